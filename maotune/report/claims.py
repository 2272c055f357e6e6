"""What held and what did not: the claims of the paper, and their counterparts in the runs of several sweeps."""

import functools
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from maotune.mao.methods import ZEROSHOT
from maotune.report.compare import Difference, Verdict, holm, pair, void
from maotune.report.content import Report, ReportTable, Section
from maotune.report.frame import CLIP, ExperimentRuns, Key
from maotune.report.names import learner_name
from maotune.report.provenance import provenance_section
from maotune.report.published import look_up
from maotune.report.sentences import NOTHING, between, counted, joined, probability, signed

COSTS = {
    "parameters": "parameters",
    "peak_memory": "memory_mb",
    "tuning_seconds": "epoch_seconds",
    "updates": "updates",
}
"""Costs of runs -> their names among the published numbers."""
VERDICTS: Mapping[Verdict | None, str] = {
    "higher": "held",
    "lower": "did not hold",
    "unclear": "cannot be told",
    "unknown": "cannot be tested (too few data sets)",
    "void": "not judged (plain tuning does not gain)",
    None: "without runs",
}


@dataclass(frozen=True)
class Claim:
    """A claim on one learner, and what the runs say."""

    experiment: str
    source: str
    """Table or figure of the paper."""
    learner: str
    text: str
    row: Key
    other: Key
    measure: str
    most: float | None = None
    """Of a cost: the largest ratio that counts as no more."""
    control: bool = False
    """Whether it is a question that the paper does not ask."""
    difference: Difference | None = None
    ratio: float | None = None
    corrected: float | None = None
    """``difference.p``, corrected for the number of claims."""
    void: bool = False
    """Whether plain tuning of the learner does not clearly gain, so that nothing follows."""

    @property
    def verdict(self) -> Verdict | None:
        """Whether it held (``higher``), or the contrary (``lower``); None without runs."""
        if self.ratio is not None and self.most is not None:
            return "higher" if self.ratio <= self.most else "lower"
        if self.difference is None:
            return None
        if self.void:
            return "void"
        return "unknown" if self.corrected is None else self.difference.verdict(self.corrected)

    @property
    def published(self) -> str:
        """The same difference or ratio by the published numbers."""
        name = {"average": "accuracy", "source": "accuracy"}.get(self.measure, COSTS.get(self.measure, self.measure))
        for dataset in ("imagenet",) if self.measure == "source" else ("mean", "flowers102"):
            row, other = (look_up(self.experiment, key, dataset, name) for key in (self.row, self.other))
            if row and other:
                return f"{row.value / other.value:.2f} ×" if self.measure in COSTS else signed(row.value - other.value)
        return NOTHING


@functools.cache
def read_claims() -> tuple[Claim, ...]:
    """Read the claims, one for each learner."""
    tree = tomllib.loads((files("maotune.report") / "claims.toml").read_text(encoding="utf-8"))
    return tuple(
        Claim(
            experiment,
            group["source"],
            learner,
            row=_key(entry["row"], learner),
            other=_key(entry["other"], learner),
            **{name: entry[name] for name in ("text", "measure", "most", "control") if name in entry},
        )
        for experiment, group in tree.items()
        for entry in group["claims"]
        for learner in entry.get("learners", group["learners"])
    )


def _key(text: str, learner: str) -> Key:
    """Read ``LEARNER/METHOD:VARIANT``, where learner and variant may be left out."""
    before, slash, name = text.rpartition("/")
    method, _, variant = name.partition(":")
    return CLIP if method == ZEROSHOT else (before.replace("*", learner) if slash else learner, method, variant)


def judge_claims(experiments: Sequence[ExperimentRuns]) -> list[Claim]:
    """Return all claims with what the runs say; probabilities are corrected for the number of claims that have one."""
    by_name = {runs.name: runs for runs in experiments}
    judged = [_judge(claim, by_name) for claim in read_claims()]
    corrected = holm(claim.difference.p if claim.difference else None for claim in judged)
    return [replace(claim, corrected=p) for claim, p in zip(judged, corrected, strict=True)]


def _judge(claim: Claim, experiments: Mapping[str, ExperimentRuns]) -> Claim:
    if claim.experiment not in experiments:
        return claim
    scores = experiments[claim.experiment].scores
    if claim.measure in COSTS:
        costs = scores.costs_by_key
        if not {claim.row, claim.other} <= costs.keys():
            return claim
        ratios = (costs[claim.row][claim.measure] / costs[claim.other][claim.measure]).dropna()
        return replace(claim, ratio=float(ratios.groupby(level=0).mean().mean()) if len(ratios) else None)
    measure = scores.datasets[0] if claim.measure == "source" and scores.datasets else claim.measure
    plain: Key = (claim.learner, "plain", "")
    gains = (pair(runs.scores, plain, CLIP, "base") for runs in (experiments[claim.experiment], *experiments.values()))
    tuning = next(filter(None, gains), None)
    only_plain = claim.row[1] == claim.other[1] == "plain"
    return replace(
        claim, difference=pair(scores, claim.row, claim.other, measure), void=not only_plain and void(tuning)
    )


def claims_report(experiments: Sequence[ExperimentRuns], commands: Sequence[str], title: str) -> Report:
    """Report what held and what did not."""
    claims = judge_claims(experiments)
    papers, controls = ([claim for claim in claims if claim.control == control] for control in (False, True))
    counts = Counter(VERDICTS[claim.verdict] for claim in papers)
    found = "; ".join(f"{counts[words]} {words}" for words in VERDICTS.values() if counts[words])
    tested = sum(claim.corrected is not None for claim in claims)
    notes = (
        "A claim on accuracy held where the difference is higher by a two-sided test at 5 %, paired over data sets and "
        f"corrected by Holm's method for {counted(tested, 'comparison')}; where it is lower by that, the claim did not "
        "hold; else it cannot be told. Of costs the ratio counts. Resampled: data sets, and seeds within them, are "
        "drawn anew with replacement. Nothing is judged where plain tuning of the learner does not clearly raise base "
        "accuracy over zero-shot CLIP.",
    )
    names = ", ".join(runs.name for runs in experiments)
    return Report(
        title=title,
        subtitle=f"The claims of the paper, and their counterparts in {names}",
        answer=f"Of {counted(len(papers), 'claim')} of the paper: {found}.",
        evidence=_by_verdict(claims),
        sections=[
            Section(
                "claims",
                "What held, and what did not",
                parts=[_table("claims", "Claims of the paper.", papers, notes)],
            ),
            Section(
                "controls",
                "What the paper does not ask",
                parts=[_table("controls", "Controls that its claims depend on.", controls, ())],
            ),
            provenance_section(experiments, commands),
        ],
    )


def _by_verdict(claims: Sequence[Claim]) -> list[str]:
    """Write a sentence per verdict with its claims; the tables have those that no run speaks of, too."""
    groups: dict[str, dict[str, list[str]]] = {words: {} for words in VERDICTS.values()}
    for claim in (claim for claim in claims if claim.verdict not in (None, "unknown")):
        text = f"{claim.text} ({'control, ' * claim.control}{claim.source}"
        groups[VERDICTS[claim.verdict]].setdefault(text, []).append(learner_name(claim.learner))
    return [
        f"{words.capitalize()}: {'; '.join(f'{text}: {joined(learners)})' for text, learners in group.items())}."
        for words, group in groups.items()
        if group
    ]


def _table(name: str, caption: str, claims: Sequence[Claim], notes: Sequence[str]) -> ReportTable:
    rows = []
    for claim in claims:
        gap = claim.difference
        cells = (NOTHING,) * 5 if claim.ratio is None else (f"{claim.ratio:.2f} ×", *[NOTHING] * 4)
        if gap is not None:
            certain = (between(gap.interval), between(gap.resampled), probability(claim.corrected))
            cells = (signed(gap.mean), *certain, str(len(gap.by_dataset)))
        rows.append(
            (
                (claim.source, claim.text, learner_name(claim.learner)),
                (claim.published, *cells, VERDICTS[claim.verdict]),
            )
        )
    labels = ("paper", "claim", "learner")
    return ReportTable(
        name, caption, labels, ("published", "here", "95 % interval", "resampled", "p", "sets", "verdict"), rows, notes
    )
