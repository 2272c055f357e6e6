"""Sentences of a report: did MAO help, how certain is that, what is missing."""

from collections import Counter
from collections.abc import Sequence

from maotune.mao.methods import ZEROSHOT
from maotune.report.compare import AGAINST, Difference, MaoComparison
from maotune.report.frame import MEASURES, ExperimentRuns, Key, Scores
from maotune.report.names import TWO_PROMPTS, learner_name, method_name
from maotune.sweep.manifest import Trial

NOTHING = "–"
"""An empty cell."""
MOST = 9
"""Groups of missing trials that are named."""


def answer(runs: ExperimentRuns, comparisons: Sequence[MaoComparison], measure: str = "") -> str:
    """Answer in a sentence on all learners whether MAO helped, by one measure: by default that of the experiment."""
    measure = measure or runs.scores.measure
    compared = [each for each in comparisons if each.measure == measure]
    if not compared:
        return "MAO cannot be judged: no run with it and its counterpart are both finished."
    judged = [each for each in compared if each.verdict != "void"]
    void = dict.fromkeys(each.title for each in compared if each.verdict == "void")
    clauses: dict[str, list[str]] = {}
    for against, name in AGAINST.items():
        if group := [each for each in judged if each.against == against]:
            clauses.setdefault(_clause(group, MEASURES[measure]), []).append(name)
    sentences = []
    if clauses:
        sentence = "; it ".join(f"{clause} against {joined(names)}" for clause, names in clauses.items())
        sentences.append(f"MAO {sentence}.")
    if void:
        of = f" with {joined([*void])}" if judged else ""
        sentences.append(
            f"Whether MAO helps cannot be told here{of}: plain tuning does not clearly raise base accuracy over "
            "zero-shot CLIP."
        )
    possible = {against: name for against, name in AGAINST.items() if against != TWO_PROMPTS}
    absent = [name for against, name in possible.items() if all(each.against != against for each in compared)]
    if absent and measure == runs.scores.measure:
        sentences.append(f"There is no finished run to compare it with {joined(absent, 'or')}.")
    return " ".join(sentences)


def _clause(group: Sequence[MaoComparison], measure: str) -> str:
    words = {
        "higher": f"raises {measure}",
        "lower": f"lowers {measure}",
        "unclear": f"makes no clear difference in {measure}",
        "unknown": "cannot be judged (too few data sets and seeds)",
    }
    by_verdict = {verdict: [each.title for each in group if each.verdict == verdict] for verdict in words}
    by_verdict = {verdict: learners for verdict, learners in by_verdict.items() if learners}
    if len(by_verdict) > 1:
        return joined([f"{words[verdict]} with {joined(learners)}" for verdict, learners in by_verdict.items()])
    verdict = next(iter(by_verdict))
    return words[verdict] + (
        "" if len(group) == 1 else " with any learner" if verdict == "unclear" else " with every learner"
    )


def subtitle(experiments: Sequence[ExperimentRuns], main: ExperimentRuns | None) -> str:
    """Count the finished runs, and say what the experiment of the answer is over."""
    finished = counted(len({run.trial.folder for runs in experiments for run in runs.finished}), "finished run")
    if main is None:
        return finished
    seeds = counted(len({run.result.seed for run in main.finished}), "seed")
    learners = dict.fromkeys(learner_name(learner) for learner, _, _ in main.scores.keys if learner)
    sets = counted(len(main.scores.datasets), "data set")
    return f"{finished}; {main.name}: {', '.join((sets, *learners, seeds))}"


def evidence(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> list[str]:
    """Answer for the halves of H, and write a sentence per learner with the figures."""
    judged = any(each.verdict not in ("void", "unknown") for each in comparisons)
    sentences = [answer(runs, comparisons, measure) for measure in runs.scores.measures[1:] if judged]
    for learner in dict.fromkeys(each.learner for each in comparisons):
        of_learner = [each for each in comparisons if each.learner == learner]
        tuning = of_learner[0].tuning
        parts: list[str] = []
        for each in of_learner:
            if each.measure == runs.scores.measure:
                verb = "gains" if each.difference.mean >= 0 else "loses"
                points = "" if parts else f" points of {MEASURES[each.measure]}"
                amount = f"{verb} {abs(each.difference.mean):.2f}{points} against {AGAINST[each.against]}"
                chance = "; may be chance" if each.verdict == "unclear" else ""
                parts.append(f"{amount} ({_certainty(each.difference)}{chance})")
        sentences.append(f"With {learner_name(learner)}, MAO {joined(parts)}.")
        if tuning is not None:
            gain = f"{signed(tuning.mean)} points of base accuracy ({_certainty(tuning)})"
            sentences[-1] += f" Plain tuning over zero-shot CLIP: {gain}."
    return sentences


def _certainty(difference: Difference) -> str:
    higher, _, ties = difference.counts
    several = len(difference.by_dataset) > 1
    count, unit = len(difference.units), "data set" if several else "seed"
    if difference.interval is None:
        few = "a single run" if count == 1 else f"{count} {unit}s" + " of one data set" * (not several)
        return f"{few}: nothing can be said of how sure this is"
    low, high = difference.interval
    better = f"better on {higher} of {count} {unit}s" + " of one data set" * (not several)
    return f"95\u00a0% interval {signed(low)} to {signed(high)}; {better}" + (f", equal on {ties}" if ties else "")


def warnings(experiments: Sequence[ExperimentRuns]) -> list[str]:
    """Say what is missing or failed, and what that means for the numbers."""
    sentences = []
    for runs in experiments:
        total = len(runs.finished) + len(runs.missing) + len(runs.failed)
        if runs.missing:
            counted = _count_trials(runs.missing)
            sentences.append(f"{runs.name}: {len(runs.missing)} of {total} trials are not finished ({counted}).")
        if runs.failed:
            first, reason = runs.failed[0]
            more = f", and {len(runs.failed) - 1} more" if len(runs.failed) > 1 else ""
            sentences.append(
                f"{runs.name}: {len(runs.failed)} of {total} trials failed: {first.name} ({reason}){more}."
            )
        rows, cells = runs.scores.compared
        names = [row_name(key) for key in runs.scores.keys if key not in rows]
        if cells and (names or len(cells) < len(runs.scores.datasets)):
            without = f", and leave out {', '.join(names)}" if names else ""
            sentences.append(
                f"{runs.name}: averages are over {len(cells)} of {len(runs.scores.datasets)} data sets, the same for "
                f"all rows{without}. Differences in the sentences above are over all pairs that are finished."
            )
    return sentences


def _count_trials(trials: Sequence[Trial]) -> str:
    counts = Counter(row_name((trial.recipe.title, trial.recipe.method, trial.variant)) for trial in trials)
    named = [f"{name}: {count}" for name, count in counts.most_common(MOST)]
    return ", ".join(named) + (", ..." if len(counts) > MOST else "")


def verdicts(scores: Scores) -> list[str]:
    """Say for each data set and learner with MAO how it compares: what ``maotune train`` prints."""
    sentences = []
    for (key, dataset), spreads in scores.spreads.items():
        learner, method, variant = key
        if method != "mao" or scores.measure not in spreads:
            continue
        parts = []
        for against, name in {
            ZEROSHOT: "zero-shot CLIP",
            "plain": f"plain {learner}",
            "step-matched": AGAINST["step-matched"],
        }.items():
            counterpart = ("", against, "") if against == ZEROSHOT else (learner, against, variant)
            if other := scores.spreads.get((counterpart, dataset)):
                parts.append(f"{spreads[scores.measure].mean - other[scores.measure].mean:+.2f} against {name}")
        seeds = len(scores.by_key[key].xs(dataset))
        spread = f"{seeds} seeds" if seeds > 1 else "1 seed: no spread is known"
        score = f"{MEASURES[scores.measure]} {spreads[scores.measure]}"
        sentences.append(f"{dataset}, {learner} + MAO: {score}; {', '.join(parts)} ({spread}).")
    return sentences


def row_name(key: Key) -> str:
    """Write a row of tables in words."""
    learner, method, variant = key
    return " ".join(filter(None, (learner_name(learner), method_name(method), variant)))


def counted(number: int, noun: str) -> str:
    """Write a number with a noun that has a regular plural."""
    return f"{number} {noun}{'s' * (number != 1)}"


def signed(value: float, digits: int = 2) -> str:
    """Write a number with its sign, with a real minus; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def between(interval: tuple[float, float] | None) -> str:
    """Write an interval."""
    return f"{signed(interval[0])} to {signed(interval[1])}" if interval else NOTHING


def probability(p: float | None) -> str:
    """Write a probability."""
    return NOTHING if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def joined(parts: Sequence[str], last: str = "and") -> str:
    """Join with commas, and a word before the last part."""
    return f" {last} ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
