"""From results of runs to the rows of a table: mean and spread over seeds, and averages over data sets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from maotune.mao.methods import ZEROSHOT
from maotune.runs.result import Result
from maotune.train.evaluate import harmonic_mean

MEASURES = {
    "h": "H",
    "average": "average accuracy",
    "all": "accuracy",
    "test": "test accuracy",
    "val": "validation accuracy",
}
"""What runs are judged by, the first that they have, and what it is called."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over seeds and sample standard deviation, in percent; no deviation for one seed."""

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of the values of one measure, a seed each."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one data set."""

    dataset: str
    learner: str
    method: str
    seeds: tuple[int, ...]
    scores: Mapping[str, Spread]
    """By test. The mean of ``h`` is the H of the two mean accuracies; its spread is over the seeds' own H."""
    updates: float
    seconds: float
    """Of tuning alone."""
    by_seed: Mapping[int, Mapping[str, float]]
    """The scores of each seed."""
    variant: str = ""
    """Of an experiment that varies a setting; empty where none is varied."""


def summarise(results: Sequence[Result], variant: str = "") -> list[Row]:
    """One row for zero-shot CLIP and each (data set, learner, method), in the order in which they first occur.

    Zero-shot CLIP knows no seed: it counts once, and has a spread only where the seeds are scored on different images.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dataset, "", ZEROSHOT), []).append(result)
        if result.method != ZEROSHOT:
            groups.setdefault((result.dataset, result.learner, result.method), []).append(result)
    place = {dataset: number for number, dataset in enumerate(dict.fromkeys(key[0] for key in groups))}
    rows = []
    for (dataset, learner, method), of_seeds in sorted(groups.items(), key=lambda item: place[item[0][0]]):
        plain = method == ZEROSHOT
        tables = [result.zeroshot if plain else result.scores for result in of_seeds]
        by_seed = dict(zip((result.seed for result in of_seeds), tables, strict=True))
        if plain:
            tables = [table for number, table in enumerate(tables) if table not in tables[:number]]
        scores = {test: Spread.of([table[test] for table in tables]) for test in tables[0]}
        if "h" in scores:
            scores["h"] = Spread(harmonic_mean(scores["base"].mean, scores["new"].mean), scores["h"].std)
        rows.append(
            Row(
                dataset=dataset,
                learner=learner,
                method=method,
                seeds=tuple(sorted(by_seed)),
                scores=scores,
                updates=0 if plain else fmean(sum(s["updates"] for s in result.stages) for result in of_seeds),
                seconds=0 if plain else fmean(sum(s["seconds"] for s in result.stages) for result in of_seeds),
                by_seed=by_seed,
                variant=variant,
            )
        )
    return rows


def measure_of(scores: Iterable[str]) -> str | None:
    """What runs with these scores are judged by; None where nothing was scored."""
    scores = set(scores)
    return next((name for name in MEASURES if name in scores), None)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """In plain words, for each data set and learner with MAO: did it help, against what, and by how much."""
    sentences = []
    for row in rows:
        if row.method != "mao":
            continue
        measure = measure_of(row.scores)
        if measure is None:  # nothing was scored
            continue
        others = [
            other
            for other in rows
            if other.dataset == row.dataset
            and (
                other.method == ZEROSHOT or (other.learner == row.learner and other.method in ("plain", "step-matched"))
            )
        ]
        parts = []
        for other in others:
            difference = row.scores[measure].mean - other.scores[measure].mean
            name = {ZEROSHOT: "zero-shot CLIP", "plain": f"plain {row.learner}"}.get(
                other.method, "the step-matched control"
            )
            parts.append(f"{difference:+.2f} against {name}")
        seeds = f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else "1 seed: no spread is known"
        sentences.append(
            f"{row.dataset}, {row.learner} + MAO: {MEASURES[measure]} {row.scores[measure]}; "
            f"{', '.join(parts)} ({seeds})."
        )
    return sentences


@dataclass(frozen=True, slots=True)
class Series:
    """One method of one learner, over data sets."""

    learner: str
    method: str
    variant: str
    rows: Mapping[str, Row]
    """By data set."""

    def average(self, cells: Mapping[str, Sequence[int]]) -> dict[str, Spread]:
        """Means over data sets of means over seeds; ``h`` is the H of the two averages, not the average of H.

        The spread is that of the seeds' own averages, where all data sets have the same seeds; none otherwise.

        Args:
            cells: the data sets to average over, and which seeds of each (``shared``).
        """
        if not cells:
            return {}
        tests = [test for test in next(iter(self.rows.values())).scores if test != "h"]
        seeds = set.intersection(*(set(seeds) for seeds in cells.values()))
        same = len(seeds) > 1 and all(len(of) == len(seeds) for of in cells.values())

        def over(choice: Mapping[str, Sequence[int]]) -> dict[str, float]:
            means = {
                test: fmean(fmean(self.rows[name].by_seed[seed][test] for seed in of) for name, of in choice.items())
                for test in tests
            }
            return means | (
                {"h": harmonic_mean(means["base"], means["new"])} if {"base", "new"} <= means.keys() else {}
            )

        of_seeds = [over({name: [seed] for name in cells}) for seed in sorted(seeds)] if same else []
        if all(table == of_seeds[0] for table in of_seeds):  # zero-shot CLIP knows no seed
            of_seeds = []
        return {
            test: Spread(mean, stdev([table[test] for table in of_seeds]) if of_seeds else None)
            for test, mean in over(cells).items()
        }


def series(rows: Sequence[Row]) -> list[Series]:
    """The rows put together over data sets, in the order in which they first occur."""
    found: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.learner, row.method, row.variant), {})[row.dataset] = row
    return [Series(*key, of_sets) for key, of_sets in found.items()]


def shared(several: Sequence[Series]) -> dict[str, list[int]]:
    """The data sets that all series have, and for each the seeds that all have there: means over them compare."""
    if not several:
        return {}
    cells = {
        name: sorted(set.intersection(*(set(one.rows[name].by_seed) for one in several)))
        for name in several[0].rows
        if all(name in one.rows for one in several)
    }
    return {name: seeds for name, seeds in cells.items() if seeds}


def widest(every: Sequence[Series]) -> tuple[list[Series], dict[str, list[int]]]:
    """The series whose averages are compared, and the cells that they share (``shared``).

    All of them, where all have the same data sets and seeds. Where some are missing, those that leave the largest table
    without a gap: a series that has hardly begun does not take the other averages down to its few data sets.
    """
    cells = {id(one): sum(len(row.by_seed) for row in one.rows.values()) for one in every}
    fullest = sorted(every, key=lambda one: -cells[id(one)])
    choices = [fullest[:count] for count in range(len(fullest), 0, -1)]
    best = max(choices, key=lambda some: len(some) * sum(map(len, shared(some).values())), default=[])
    return [one for one in every if one in best], shared(best)
