"""Did MAO help here? Against plain tuning, as many updates of it, and zero-shot CLIP, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

from maotune.mao.methods import ZEROSHOT
from maotune.report.document import Cell, Group, Line, Table
from maotune.report.paired import FEWEST, Paired, paired
from maotune.report.study import Study
from maotune.report.summary import MEASURES

AGAINST = {"plain": "plain tuning", "step-matched": "the step-matched control", ZEROSHOT: "zero-shot CLIP"}
"""What MAO is compared with, and how sentences call it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """MAO on a learner against something else, over the same data sets and seeds."""

    learner: str
    against: str
    """A key of ``AGAINST``."""
    paired: Paired


def comparisons(study: Study) -> list[Comparison]:
    """All of MAO's in a study; of a variant with the same variant, else with what has none."""
    measure = study.measure
    by_key = {(one.learner, one.method, one.variant): one for one in study.series}
    found = []
    for one in study.series:
        if one.method != "mao" or measure is None:
            continue
        label = f"{one.learner} ({one.variant})" if one.variant else one.learner
        for against in AGAINST:
            learner = "" if against == ZEROSHOT else one.learner
            others = [by_key.get((learner, against, variant)) for variant in dict.fromkeys((one.variant, ""))]
            other = next(filter(None, others), None)
            result = paired(one, other, measure) if other else None
            if result:
                found.append(Comparison(label, against, result))
    return found


def answer(study: Study, found: Sequence[Comparison]) -> str:
    """One sentence on all learners."""
    if not found or study.measure is None:
        return "MAO cannot be judged: no run with it and its counterpart are both finished."
    clauses: dict[str, list[str]] = {}
    for against, called in AGAINST.items():
        of_it = [one for one in found if one.against == against]
        if of_it:
            clauses.setdefault(_clause(of_it, MEASURES[study.measure]), []).append(called)
    said = "; it ".join(f"{clause} against {_joined(called)}" for clause, called in clauses.items())
    absent = [called for against, called in AGAINST.items() if all(one.against != against for one in found)]
    left = f" There is no finished run to compare it with {_joined(absent, 'or')}." if absent else ""
    return f"MAO {said}.{left}"


def _clause(of_it: Sequence[Comparison], measure: str) -> str:
    words = {
        "higher": f"raises {measure}",
        "lower": f"lowers {measure}",
        "unclear": "makes no clear difference",
        "unknown": "cannot be judged (too few data sets and seeds)",
    }
    by_sign = {sign: [one.learner for one in of_it if one.paired.sign == sign] for sign in words}
    by_sign = {sign: learners for sign, learners in by_sign.items() if learners}
    if len(by_sign) > 1:
        return _joined([f"{words[sign]} with {_joined(learners)}" for sign, learners in by_sign.items()])
    return words[next(iter(by_sign))] + (" with any learner" if "unclear" in by_sign else " with every learner") * (
        len(of_it) > 1
    )


def evidence(study: Study, found: Sequence[Comparison]) -> list[str]:
    """A sentence for each learner, with figures."""
    measure = MEASURES[study.measure] if study.measure else ""
    sentences = []
    for learner in dict.fromkeys(one.learner for one in found):
        parts = []
        for number, one in enumerate(one for one in found if one.learner == learner):
            verb = "gains" if one.paired.mean >= 0 else "loses"
            points = "" if number else f" points of {measure}"
            parts.append(
                f"{verb} {abs(one.paired.mean):.2f}{points} against {AGAINST[one.against]} ({_how_sure(one.paired)})"
            )
        sentences.append(f"With {learner}, MAO {_joined(parts)}.")
    return sentences


def _how_sure(one: Paired) -> str:
    higher, _, ties = one.counts
    unit = "data sets" if len(one.differences) > 1 else "seeds of one data set"
    if one.interval is None:
        few = "a single run" if len(one.units) == 1 else f"{len(one.units)} {unit}"
        return f"{few}: nothing can be said of how sure this is"
    low, high = one.interval
    counted = f"better on {higher} of {len(one.units)} {unit}" + (f", equal on {ties}" if ties else "")
    chance = "; may be chance" if one.sign == "unclear" else ""
    return f"95\u00a0% interval {signed(low)} to {signed(high)}; {counted}{chance}"


def table(study: Study, found: Sequence[Comparison]) -> Table | None:
    """The comparisons in figures."""
    if not found or study.measure is None:
        return None
    lines = []
    for number, one in enumerate(found):
        higher, lower, ties = one.paired.counts
        interval = one.paired.interval
        cells = (
            Cell(signed(one.paired.mean)),
            Cell(f"{signed(interval[0])} to {signed(interval[1])}" if interval else "–"),
            Cell(f"{higher}/{lower}/{ties}"),
            Cell(str(len(one.paired.differences))),
            Cell(str(max(len(seeds) for seeds in one.paired.pairs.values()))),
        )
        lines.append(Line((one.learner, one.against), cells, number > 0 and found[number - 1].learner != one.learner))
    several = len(found[0].paired.differences) > 1
    return Table(
        f"{study.name}-paired",
        f"MAO minus its counterpart: {MEASURES[study.measure]} in percentage points, paired over data sets and seeds.",
        ("learner", "MAO against"),
        (Group("", ("difference", "95 % interval", "+/−/=", "sets", "seeds")),),
        tuple(lines),
        (
            "Differences are means over the seeds of a data set; interval (Student's t) and counts are over data sets."
            if several
            else "One data set: interval and counts are over its seeds, and say nothing about other data.",
            f"+/−/=: on how many MAO is higher, lower, equal. Below {FEWEST} there is no interval. Intervals are not "
            f"corrected for their number, {len(found)}.",
        ),
    )


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a real minus; what rounds to nothing has none."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def _joined(parts: Sequence[str], last: str = "and") -> str:
    """With commas, and a word before the last."""
    return f" {last} ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
