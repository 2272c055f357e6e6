"""MAO against its counterparts over the same data sets and seeds: differences, and how certain they are."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from maotune.mao.methods import ZEROSHOT
from maotune.report.frame import ExperimentRuns, Key, Scores

FEWEST = 3
"""Number of data sets (or seeds) below which no interval is given."""
TIE = 0.005
"""Percentage points: differences that are 0.00 as printed."""
AGAINST = {"plain": "plain tuning", "step-matched": "the step-matched control", ZEROSHOT: "zero-shot CLIP"}
"""Counterparts of MAO, and their names in sentences."""


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

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean by Student's t over ``units``; None with fewer than ``FEWEST``."""
        units = pd.Series(self.units)
        if len(units) < FEWEST:
            return None
        from scipy.special import stdtrit

        half = float(stdtrit(len(units) - 1, 0.975) * units.std() / len(units) ** 0.5)
        return self.mean - half, self.mean + half

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of ``units`` that are higher, lower, and equal as printed."""
        higher, lower = (sum(sign * unit >= TIE for unit in self.units) for sign in (1, -1))
        return higher, lower, len(self.units) - higher - lower

    @property
    def sign(self) -> Literal["higher", "lower", "unclear", "unknown"]:
        """Position of the interval: above 0, below, or around it; ``unknown`` without one."""
        if self.interval is None:
            return "unknown"
        low, high = self.interval
        return "higher" if low > 0 else "lower" if high < 0 else "unclear"


@dataclass(frozen=True, slots=True)
class MaoComparison:
    """MAO on a learner against a counterpart."""

    learner: str
    against: str
    """A key of ``AGAINST``."""
    difference: Difference


def pair(scores: Scores, first: Key, second: Key, measure: str) -> Difference | None:
    """Compare two rows where both have the data set and the seed; None where they share nothing.

    For an ``average`` over targets the pairs are the targets, since there is one data set to tune on.
    """
    gaps = (scores.by_key[first] - scores.by_key[second]).dropna(how="all")
    if measure == "average":
        targets = gaps.drop(columns=[*scores.datasets, "average"], errors="ignore").droplevel("dataset")
        series = targets.T.sort_index().stack().dropna()
    else:
        series = gaps[measure].dropna() if measure in gaps else pd.Series(dtype=float)
    return Difference(series) if len(series) else None


def compare_mao(runs: ExperimentRuns) -> list[MaoComparison]:
    """Compare every row of MAO with its counterparts: of the same variant, else of none."""
    scores = runs.scores
    comparisons = []
    for learner, method, variant in scores.keys if scores.measure else ():
        if method != "mao":
            continue
        for against in AGAINST:
            counterparts = [
                ("" if against == ZEROSHOT else learner, against, each) for each in dict.fromkeys((variant, ""))
            ]
            counterpart = next((key for key in counterparts if key in scores.keys), None)
            if counterpart and (found := pair(scores, (learner, method, variant), counterpart, scores.measure)):
                comparisons.append(MaoComparison(f"{learner} ({variant})" if variant else learner, against, found))
    return comparisons


def comparison_records(runs: ExperimentRuns) -> list[dict[str, Any]]:
    """Return all comparisons of an experiment, as JSON can hold them."""
    return [
        {
            "experiment": runs.name,
            "measure": runs.scores.measure,
            "learner": comparison.learner,
            "against": comparison.against,
            "difference": comparison.difference.mean,
            "interval": comparison.difference.interval,
            "higher_lower_equal": comparison.difference.counts,
            "by_dataset": comparison.difference.by_dataset,
        }
        for comparison in compare_mao(runs)
    ]
