"""Finished runs as data frames: scores with means, spreads and averages; costs; one row per score for the CSV file."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from maotune.mao.labelers import UNIFORM
from maotune.mao.methods import ZEROSHOT
from maotune.printable import without_folders
from maotune.protocols import PROTOCOLS
from maotune.protocols.protocol import CROSS_VALIDATED
from maotune.report.names import LABELER_ALONE, ONE_SET, TWO_PROMPTS
from maotune.report.other_measures import OTHER_MEASURES
from maotune.runs.predictions import Scoring
from maotune.runs.result import RESULT, Result
from maotune.sweep.manifest import MANIFEST, Sweep, Trial
from maotune.sweep.trial import failure_reason
from maotune.train.evaluate import harmonic_mean
from maotune.train.session import CheckpointError

MEASURES = {
    "h": "H",
    "base": "base accuracy",
    "new": "new accuracy",
    "average": "average accuracy",
    "all": "accuracy",
    "test": "test accuracy",
    "val": "validation accuracy",
    CROSS_VALIDATED: "cross-validated accuracy",
}
"""Names of the measures that runs are judged by."""
LEVELS = ["learner", "method", "variant", "dataset", "seed"]
COSTS = ["parameters", "updates", "images", "tuning_seconds", "epochs", "peak_memory"]

Key = tuple[str, str, str]
"""Learner, method and variant: a row of most tables. Zero-shot CLIP has neither learner nor variant."""
CLIP: Key = ("", ZEROSHOT, "")
BALANCED = "†"
"""Marks variants whose labeler gives all classes an equal share, of a pool that hidden labels balanced."""
CONTROLS = (TWO_PROMPTS, ONE_SET, *LABELER_ALONE)
"""Rows beside those of the methods, put together from what their runs have recorded."""


def tidy_frame(results: Iterable[tuple[Result, Mapping[str, str]]]) -> pd.DataFrame:
    """Return a row per run, prompts and measure: what all tables and figures are made of.

    ``prompts`` is ``result`` for the accuracies that count, else the stage (or ``zeroshot``) whose prompts scored the
    ``value``; ``recipe`` is a hash of all settings but the seed; accuracies are in percent, memory in bytes.

    Args:
        results: each with more columns, the ``variant`` among them.
    """
    rows = [{**more, **row} for result, more in results for row in _tidy_rows(result)]
    return pd.DataFrame(rows, columns=None if rows else [*LEVELS, "prompts", "measure", "value", *COSTS])


def _tidy_rows(result: Result) -> Iterator[dict[str, Any]]:
    environment, stages = result.environment, result.stages
    recipe = json.dumps({key: value for key, value in result.recipe.items() if key != "seed"}, sort_keys=True)
    names = ("protocol", "dataset", "learner", "method", "seed", "shots")
    circumstances = {
        "updates": sum(stage["updates"] for stage in stages),
        "images": sum(stage.get("images", 0) for stage in stages),
        "tuning_seconds": sum(stage["seconds"] for stage in stages),
        "epochs": max(1, sum(len(stage.get("losses", ())) for stage in stages)),
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
        "parameters": result.parameters,
        "pseudo_label_accuracy": (result.pseudo_labels or {}).get("accuracy", ""),
        "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:12],
        **{f"{name}_fingerprint": environment.get(name, {}).get("fingerprint", "") for name in ("data", "clip")},
        **{name: (environment.get("git") or {}).get(name, "") for name in ("commit", "changed")},
        **{name: environment.get(name, "") for name in ("maotune", "torch", "device")},
    }
    tables = [("result", result.scores), *((stage["name"], stage.get("accuracy", {})) for stage in stages)]
    for prompts, scores in [*tables, (ZEROSHOT, result.zeroshot)]:
        for measure, value in scores.items():
            scored_with = result.scored_with.get(measure, "") if prompts == "result" else prompts
            score = {"prompts": prompts, "measure": measure, "value": value, "scored_with": scored_with}
            yield {name: getattr(result, name) for name in names} | score | circumstances


class Spread(NamedTuple):
    """Mean over seeds and sample standard deviation, in percent; no deviation for one seed."""

    mean: float
    std: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"


class Scores:
    """Scores and costs of finished runs.

    Zero-shot CLIP does not depend on seeds: it has one score per data set, and a spread only where the seeds are scored
    on different images.
    """

    def __init__(self, results: Iterable[tuple[Result, str]]) -> None:
        """Collect results, each with the variant that it belongs to (empty where none is varied)."""
        runs = [(result, {"variant": variant}) for result, variant in results]
        measures = ([name for name in PROTOCOLS[of.protocol].measures if name in of.scores] for of, _ in runs)
        first = next(filter(None, measures), [])
        self.measures: list[str] = first if "h" in first else first[:1]
        """What rows are compared by: the measure that the runs are judged by, and the halves of H."""
        tidy = tidy_frame(runs)
        clip = tidy[tidy["prompts"] == ZEROSHOT].assign(**dict(zip(LEVELS, CLIP, strict=False)))
        tuned = tidy[tidy["method"] != ZEROSHOT]
        counted = pd.concat([clip, tuned[tuned["prompts"] == "result"]])
        self.table = _pivot(counted, LEVELS)
        """Accuracy in percent: a row per learner, method, variant, data set and seed, a column per test."""
        self.by_key = _by_key(self.table)
        """The scores of each row by data set and seed."""
        self.stages_by_key = _by_key(_pivot(tuned[~tuned["prompts"].isin(["result", ZEROSHOT])], [*LEVELS, "prompts"]))
        """The accuracies after each stage of each row by data set, seed and stage (``prompts``)."""
        self.costs_by_key = _by_key(tuned.drop_duplicates(LEVELS, keep="last").set_index(LEVELS)[COSTS])
        """The costs of tuning of each row by data set and seed."""

    @property
    def measure(self) -> str:
        """The measure that the runs are judged by; empty where nothing is scored."""
        return self.measures[0] if self.measures else ""

    @functools.cached_property
    def keys(self) -> list[Key]:
        """The rows of tables in order of the runs, zero-shot CLIP first."""
        keys = dict.fromkeys(row[:3] for row in self.table.dropna(how="all").index)
        return sorted(keys, key=lambda key: key[1] != ZEROSHOT)

    @functools.cached_property
    def datasets(self) -> list[str]:
        """The data sets in order of the runs."""
        return list(dict.fromkeys(self.table.index.get_level_values("dataset")))

    @functools.cached_property
    def spreads(self) -> dict[tuple[Key, str], dict[str, Spread]]:
        """Row and data set -> test -> mean and spread over seeds; ``h`` is the H of the two mean accuracies."""
        spreads = {}
        for place, group in self.table.groupby(level=LEVELS[:4], sort=False):
            tests = group.dropna(axis=1, how="all")
            tests = tests.drop_duplicates() if place[1] == ZEROSHOT else tests
            spreads[place[:3], place[3]] = _spreads(tests.mean(), tests)
        return spreads

    @functools.cached_property
    def compared(self) -> tuple[list[Key], dict[str, list[int]]]:
        """The rows whose averages are compared, and the data sets with the seeds that all of them have.

        All rows, where all have the same data sets and seeds. Where some are missing, the rows that leave the largest
        table without a gap: a row that has hardly begun does not reduce the averages of the others to its few sets.
        """
        if not self.keys:
            return [], {}
        there = self.table.notna().any(axis=1).unstack(["dataset", "seed"], fill_value=False).loc[self.keys]
        fullest = there.loc[there.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        sizes = [count * int(fullest.iloc[:count].all().sum()) for count in range(len(fullest) + 1)]
        best = len(sizes) - 1 - sizes[::-1].index(max(sizes))
        shared = fullest.iloc[:best].all()
        cells = {name: sorted(int(seed) for of, seed in shared[shared].index if of == name) for name in self.datasets}
        chosen = {*fullest.index[:best]}
        return [key for key in self.keys if key in chosen], {name: seeds for name, seeds in cells.items() if seeds}

    @property
    def compared_cells(self) -> list[tuple[str, int]]:
        """Data set and seed of all runs that averages are over."""
        return [(name, seed) for name, seeds in self.compared[1].items() for seed in seeds]

    def average(self, key: Key) -> dict[str, Spread]:
        """Return means over data sets of means over seeds, over what all compared rows have.

        ``h`` is the H of the two averages, not the average of H. The spread is that of the averages of single seeds,
        where all data sets have the same seeds; else there is none.
        """
        if not self.compared_cells:
            return {}
        tests = self.by_key[key].reindex(self.compared_cells).dropna(axis=1, how="all")
        same = len({tuple(seeds) for seeds in self.compared[1].values()}) == 1
        of_seeds = tests.groupby(level="seed").mean()
        if not same or len(of_seeds.drop_duplicates()) == 1:
            of_seeds = of_seeds[:0]
        elif "h" in of_seeds:
            of_seeds["h"] = [harmonic_mean(*row) for row in of_seeds[["base", "new"]].to_numpy().tolist()]
        return _spreads(tests.groupby(level="dataset").mean().mean(), of_seeds)

    def rows(self) -> list[dict[str, Any]]:
        """Return a record per data set, learner, method and variant, as JSON can hold it."""
        records = []
        for (key, dataset), scores in self.spreads.items():
            by_seed = self.by_key[key].xs(dataset)
            costs = {"updates": 0, "tuning_seconds": 0}
            if key in self.costs_by_key:
                costs = self.costs_by_key[key].xs(dataset).mean()
            records.append(
                {
                    "dataset": dataset,
                    **dict(zip(LEVELS, key, strict=False)),
                    "seeds": sorted(int(seed) for seed in by_seed.index),
                    "scores": {test: spread._asdict() for test, spread in scores.items()},
                    "updates": float(costs["updates"]),
                    "seconds": float(costs["tuning_seconds"]),
                    "by_seed": {int(seed): row.dropna().to_dict() for seed, row in by_seed.iterrows()},
                }
            )
        return sorted(records, key=lambda record: self.datasets.index(record["dataset"]))


def _pivot(tidy: pd.DataFrame, levels: list[str]) -> pd.DataFrame:
    """Return a column per measure and a row for the last of each of the ``levels``, both in order of appearance."""
    rows = pd.MultiIndex.from_frame(tidy[levels].drop_duplicates())
    return tidy.pivot_table("value", levels, "measure", aggfunc="last").reindex(rows, columns=tidy["measure"].unique())


def _by_key(frame: pd.DataFrame) -> dict[Key, pd.DataFrame]:
    return {key: group.droplevel(LEVELS[:3]) for key, group in frame.groupby(level=LEVELS[:3], sort=False)}


def _spreads(means: pd.Series, samples: pd.DataFrame) -> dict[str, Spread]:
    """Return mean and sample standard deviation per test."""
    stds = samples.std() if len(samples) > 1 else {}
    values = {str(test): float(mean) for test, mean in means.items()}
    if "h" in values:
        values["h"] = harmonic_mean(values["base"], values["new"])
    return {test: Spread(mean, float(stds[test]) if test in stds else None) for test, mean in values.items()}


@dataclass(frozen=True)
class FinishedTrial:
    """A trial and its result."""

    trial: Trial
    result: Result

    @property
    def key(self) -> Key:
        """The row of tables that it belongs to."""
        return self.result.learner, self.result.method, self.variant

    @property
    def variant(self) -> str:
        """Its variant, marked where the labeler of the pool profits from hidden labels."""
        mao = self.trial.recipe.mao
        told = self.result.pseudo_labels and mao.labeler in UNIFORM and mao.unlabelled == "balanced"
        return f"{self.trial.variant}{BALANCED}" if told else self.trial.variant


@dataclass(frozen=True)
class ExperimentRuns:
    """The runs of one experiment."""

    name: str
    finished: Sequence[FinishedTrial]
    missing: Sequence[Trial] = ()
    """Neither finished nor failed."""
    failed: Sequence[tuple[Trial, str]] = ()
    """Trial and the last line of its error."""

    @functools.cached_property
    def rows(self) -> list[FinishedTrial]:
        """The finished runs, those of base-to-new with their ``CONTROLS``."""
        return [row for run in self.finished for row in (run, *_controls(run))]

    @functools.cached_property
    def scores(self) -> Scores:
        """Scores and costs of the finished runs, and of the controls that follow from them."""
        return Scores((run.result, run.variant) for run in self.rows)

    @functools.cached_property
    def rescored(self) -> dict[str, Scores]:
        """The scores of the same runs by ``OTHER_MEASURES``, where there is an H and runs have recorded predictions."""
        results: dict[str, list[tuple[Result, str]]] = {name: [] for name in OTHER_MEASURES}
        read = functools.lru_cache(1)(Scoring.find)
        for run in self.rows:
            scoring = read(run.trial.folder) if "h" in run.result.scores else None
            for name, score in OTHER_MEASURES.items() if scoring else ():
                if scoring and (scores := score(scoring, run.result.scored_with)):
                    zeroshot = score(scoring, dict.fromkeys(scores, ZEROSHOT))
                    results[name].append((replace(run.result, scores=scores, zeroshot=zeroshot), run.variant))
        return {name: Scores(of) for name, of in results.items()}

    def of(self, key: Key) -> list[FinishedTrial]:
        """Return the finished runs of a row that its averages are over."""
        cells = self.scores.compared_cells
        return [run for run in self.finished if run.key == key and (run.result.dataset, run.result.seed) in cells]


def _controls(run: FinishedTrial) -> Iterator[FinishedTrial]:
    result = run.result
    halves: dict[str, tuple[dict[str, float], dict[str, str]]] = {}
    if "h" in result.scores and result.method == "plain":
        base, new = result.scores["base"], result.zeroshot["new"]
        scores = {"base": base, "new": new, "h": harmonic_mean(base, new)}
        halves[TWO_PROMPTS] = scores, {**result.scored_with, "new": ZEROSHOT}
    if "h" in result.scores and result.method == "mao" and len(result.stages) > 1:
        last = result.stages[-1]
        halves[ONE_SET] = last["accuracy"], dict.fromkeys(result.scored_with, last["name"])
    for method, (scores, scored_with) in halves.items():
        yield FinishedTrial(run.trial, replace(result, method=method, scores=scores, scored_with=scored_with))
    for name, scores in result.labeler_alone.items():  # whatever the learner is
        scored_with = dict.fromkeys(result.scored_with, name)
        yield FinishedTrial(run.trial, replace(result, learner="", method=name, scores=scores, scored_with=scored_with))


def read_sweeps(folder: Path) -> list[Sweep]:
    """Read the sweep in ``folder``; where there is none, those in its subfolders.

    Raises:
        CheckpointError: there is none, or one cannot be read.
    """
    below = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return [Sweep.read(path) for path in (below if below and not (folder / MANIFEST).exists() else [folder])]


def has_sweeps(folder: Path) -> bool:
    """Say whether there is a sweep, or a finished run, in ``folder`` or in its subfolders."""
    return any(next(folder.glob(f"{below}{name}"), None) for below in ("", "*/") for name in (MANIFEST, RESULT))


def read_experiments(*sweeps: Sweep) -> list[ExperimentRuns]:
    """Read the runs of sweeps, experiment by experiment."""

    @functools.cache
    def read(folder: Path) -> Result | str | None:
        """Return the result, or why there is none; None where the run has not ended."""
        try:
            return Result.find(folder) or without_folders(failure_reason(folder) or "") or None
        except CheckpointError as error:
            return without_folders(str(error))

    every = [trial for sweep in sweeps for trial in sweep.trials]
    experiments = []
    for name in dict.fromkeys(trial.experiment for trial in every):
        states = [(trial, read(trial.folder)) for trial in every if trial.experiment == name]
        finished = [FinishedTrial(trial, state) for trial, state in states if isinstance(state, Result)]
        missing = [trial for trial, state in states if state is None]
        failed = [(trial, state) for trial, state in states if isinstance(state, str)]
        experiments.append(ExperimentRuns(name, finished, missing, failed))
    return experiments


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return names without their common prefix up to a dash: ``icons-animals`` is ``animals`` among its kind."""
    names = list(names)
    common = names[0].split("-")[0] + "-" if names else ""
    if len(names) > 1 and all(name.startswith(common) and name != common for name in names):
        return {name: name.removeprefix(common) for name in names}
    return {name: name for name in names}
