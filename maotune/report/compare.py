"""Rows against each other over the same data sets and seeds: differences, and how certain they are.

There is one definition of a difference, for every measure: a run minus the run of the other row with the same data set
and seed (H is each run's own), mean over seeds, then over data sets.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from maotune.mao.methods import ZEROSHOT
from maotune.report.frame import CLIP, ExperimentRuns, Key, Scores
from maotune.report.names import TWO_PROMPTS, learner_name

FEWEST = 3
"""Number of data sets (or seeds) below which no interval is given."""
LEVEL = 0.05
"""Of errors; intervals hold 95 %."""
RESAMPLES = 10_000
TIE = 0.005
"""Percentage points: differences that are 0.00 as printed."""
AGAINST = {
    "plain": "plain tuning",
    "step-matched": "the step-matched control",
    ZEROSHOT: "zero-shot CLIP",
    TWO_PROMPTS: "two prompts without MAO",
}
"""Counterparts of MAO, and their names in sentences."""

Interval = tuple[float, float]
Verdict = Literal["higher", "lower", "unclear", "unknown", "void"]


@dataclass(frozen=True)
class Difference:
    """Paired differences of a measure in percentage points, first minus second."""

    gaps: pd.Series
    """Difference by data set (or target) and seed."""

    @functools.cached_property
    def by_dataset(self) -> dict[str, float]:
        """Mean over the seeds of each data set."""
        return {str(name): float(mean) for name, mean in self.gaps.groupby(level=0, sort=False).mean().items()}

    @property
    def mean(self) -> float:
        """Mean over data sets."""
        return sum(self.by_dataset.values()) / len(self.by_dataset)

    @property
    def units(self) -> list[float]:
        """The values that the interval is over: the data sets; of a single one, its seeds."""
        return [*self.by_dataset.values()] if len(self.by_dataset) > 1 else self.gaps.tolist()

    @functools.cached_property
    def _test(self) -> tuple[Interval | None, float | None]:
        """95 % interval of the mean, and the two-sided probability of such a mean by chance, by Student's t."""
        if len(self.units) < FEWEST:
            return None, None
        from scipy.stats import sem, t

        error, freedom = sem(self.units), len(self.units) - 1
        if error == 0:
            return (self.mean, self.mean), float(self.mean == 0)
        low, high = t.interval(1 - LEVEL, freedom, self.mean, error)
        return (float(low), float(high)), 2 * float(t.sf(abs(self.mean) / error, freedom))

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean by Student's t over ``units``; None with fewer than ``FEWEST``."""
        return self._test[0]

    @property
    def p(self) -> float | None:
        """Two-sided probability of such a mean where there is no difference, by the same t; None without interval."""
        return self._test[1]

    @functools.cached_property
    def resampled(self) -> Interval | None:
        """95 % interval of the mean where data sets, and seeds within them, are drawn anew with replacement."""
        if len(self.units) < FEWEST:
            return None
        sets = [gaps.to_numpy() for _, gaps in self.gaps.groupby(level=0, sort=False)]
        random = np.random.default_rng(0)
        shape = (RESAMPLES, len(sets))  # a data set that is drawn twice has other seeds each time
        means = np.stack([gaps[random.integers(len(gaps), size=(*shape, len(gaps)))].mean(axis=2) for gaps in sets])
        every = np.take_along_axis(means, random.integers(len(sets), size=(1, *shape)), axis=0).mean(axis=2)
        low, high = np.quantile(every, (LEVEL / 2, 1 - LEVEL / 2)).tolist()
        return low, high

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of ``units`` that are higher, lower, and equal as printed."""
        higher, lower = (sum(sign * unit >= TIE for unit in self.units) for sign in (1, -1))
        return higher, lower, len(self.units) - higher - lower

    @property
    def sign(self) -> Verdict:
        """Position of the interval: above 0, below, or around it; ``unknown`` without one."""
        return "unknown" if self.p is None else self.verdict(self.p)

    def verdict(self, p: float) -> Verdict:
        """Return the sign of the mean where it is certain enough by ``p``, which may be corrected."""
        return "unclear" if p >= LEVEL else "higher" if self.mean > 0 else "lower"


@dataclass(frozen=True, slots=True)
class MaoComparison:
    """MAO on a learner against a counterpart by one measure."""

    learner: str
    against: str
    """A key of ``AGAINST``."""
    measure: str
    difference: Difference
    corrected: float | None
    """``difference.p``, corrected for the number of comparisons of the experiment."""
    tuning: Difference | None
    """What plain tuning of the learner gains over zero-shot CLIP on base classes, where that can be said."""

    @property
    def title(self) -> str:
        """The name of the learner."""
        return learner_name(self.learner)

    @property
    def verdict(self) -> Verdict:
        """The sign after the correction; ``void`` where plain tuning does not clearly gain, so that nothing follows."""
        if void(self.tuning):
            return "void"
        return "unknown" if self.corrected is None else self.difference.verdict(self.corrected)


def pair(scores: Scores, first: Key, second: Key, measure: str) -> Difference | None:
    """Compare two rows where both have the data set and the seed; None where they share nothing.

    For an ``average`` over targets the pairs are the targets, since there is one data set to tune on.
    """
    if not {first, second} <= scores.by_key.keys():
        return None
    gaps = (scores.by_key[first] - scores.by_key[second]).dropna(how="all")
    if measure == "average":
        targets = gaps.drop(columns=[*scores.datasets, "average"], errors="ignore").droplevel("dataset")
        series = targets.T.sort_index().stack().dropna()
    else:
        series = gaps[measure].dropna() if measure in gaps else pd.Series(dtype=float)
    return Difference(series) if len(series) else None


def void(tuning: Difference | None) -> bool:
    """Say whether nothing follows for MAO: what plain tuning gains is known, and it is not clearly a gain."""
    return tuning is not None and tuning.sign in ("unclear", "lower")


def holm(ps: Iterable[float | None]) -> list[float | None]:
    """Return probabilities corrected for their number by Holm's method; None stays None and does not count."""
    given = pd.Series([*ps], dtype=float)
    ranked = given.dropna().sort_values(kind="stable")
    corrected = (ranked * np.arange(len(ranked), 0, -1)).clip(upper=1).cummax()
    return [None if pd.isna(p) else float(p) for p in corrected.reindex(given.index)]


def compare_mao(runs: ExperimentRuns) -> list[MaoComparison]:
    """Compare every row of MAO with its counterparts by each measure."""
    scores = runs.scores
    found: list[MaoComparison] = []
    for learner, method, variant in scores.keys:
        plain = _counterpart(scores, learner, "plain", variant)
        tuning = pair(scores, plain, CLIP, "base") if plain and method == "mao" else None
        for against in AGAINST if method == "mao" else ():
            other = _counterpart(scores, learner, against, variant)
            # Each half is scored by two prompts without MAO as by another counterpart.
            for measure in scores.measures[:1] if against == TWO_PROMPTS else scores.measures:
                if other and (difference := pair(scores, (learner, method, variant), other, measure)):
                    name = f"{learner} ({variant})" if variant else learner
                    found.append(MaoComparison(name, against, measure, difference, None, tuning))
    corrected = holm(each.difference.p for each in found)
    return [replace(each, corrected=p) for each, p in zip(found, corrected, strict=True)]


def _counterpart(scores: Scores, learner: str, method: str, variant: str) -> Key | None:
    """Return the row of another method: of the same variant, else of none."""
    rows = [("" if method == ZEROSHOT else learner, method, each) for each in (variant, "")]
    return next((key for key in rows if key in scores.keys), None)


def comparison_records(runs: ExperimentRuns) -> list[dict[str, Any]]:
    """Return all comparisons of an experiment, as JSON can hold them."""
    return [
        {
            "experiment": runs.name,
            **{name: getattr(each, name) for name in ("measure", "learner", "against", "verdict")},
            "difference": each.difference.mean,
            **{name: getattr(each.difference, name) for name in ("interval", "resampled", "p")},
            "p_corrected": each.corrected,
            "higher_lower_equal": each.difference.counts,
            "by_dataset": each.difference.by_dataset,
        }
        for each in compare_mao(runs)
    ]
