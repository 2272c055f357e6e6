"""One method against another over the same data sets and seeds: the difference, and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from maotune.report.summary import Series

FEWEST = 3
"""Pairs below which nothing is said of how sure a difference is."""
TIE = 0.005
"""Percentage points: differences that are 0.00 as printed."""

Sign = Literal["higher", "lower", "unclear", "unknown"]


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of a measure in percentage points, first minus second, over pairs of the same data set and seed."""

    pairs: Mapping[str, Mapping[int, float]]
    """By data set (or target), then by seed."""

    @property
    def differences(self) -> dict[str, float]:
        """By data set, mean over its seeds."""
        return {name: fmean(of_seeds.values()) for name, of_seeds in self.pairs.items()}

    @property
    def mean(self) -> float:
        """Mean over data sets."""
        return fmean(self.differences.values())

    @property
    def units(self) -> list[float]:
        """What the interval is over: the data sets; of a single one, its seeds."""
        differences = [*self.differences.values()]
        return differences if len(differences) > 1 else [*next(iter(self.pairs.values())).values()]

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean difference by Student's t over ``units``; None with fewer than ``FEWEST``."""
        units = self.units
        if len(units) < FEWEST:
            return None
        from scipy.special import stdtrit

        half = float(stdtrit(len(units) - 1, 0.975)) * stdev(units) / len(units) ** 0.5
        return self.mean - half, self.mean + half

    @property
    def counts(self) -> tuple[int, int, int]:
        """Of ``units``: how many are higher, lower, and equal as printed."""
        units = self.units
        higher, lower = sum(unit >= TIE for unit in units), sum(unit <= -TIE for unit in units)
        return higher, lower, len(units) - higher - lower

    @property
    def sign(self) -> Sign:
        """Where the interval lies: above 0, below it, or around it; ``unknown`` without one."""
        if self.interval is None:
            return "unknown"
        low, high = self.interval
        return "higher" if low > 0 else "lower" if high < 0 else "unclear"


def paired(first: Series, second: Series, measure: str) -> Paired | None:
    """Compare two series by ``measure`` where both have the data set and the seed; None where they share nothing.

    Of an ``average`` over targets the pairs are the targets, since there is one data set to tune on.
    """
    if measure == "average":
        return _paired_targets(first, second)
    pairs = {
        name: {
            seed: scores[measure] - second.rows[name].by_seed[seed][measure]
            for seed, scores in row.by_seed.items()
            if seed in second.rows[name].by_seed
        }
        for name, row in first.rows.items()
        if name in second.rows
    }
    pairs = {name: of_seeds for name, of_seeds in pairs.items() if of_seeds}
    return Paired(pairs) if pairs else None


def _paired_targets(first: Series, second: Series) -> Paired | None:
    pairs: dict[str, dict[int, float]] = {}
    for source, row in first.rows.items():
        other = second.rows[source].by_seed if source in second.rows else {}
        for seed, scores in row.by_seed.items():
            for test in scores.keys() - {source, "average"} if seed in other else ():
                pairs.setdefault(test, {})[seed] = scores[test] - other[seed][test]
    return Paired({name: pairs[name] for name in sorted(pairs)}) if pairs else None
