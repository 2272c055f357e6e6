"""Finished runs as data frames: scores with means, spreads and averages; costs; one row per score for the CSV file."""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from maotune.mao.methods import ZEROSHOT
from maotune.protocols import PROTOCOLS
from maotune.runs.result import Result
from maotune.sweep.manifest import Sweep, Trial
from maotune.sweep.trial import failure_reason
from maotune.train.evaluate import harmonic_mean

MEASURES = {
    "h": "H",
    "average": "average accuracy",
    "all": "accuracy",
    "test": "test accuracy",
    "val": "validation accuracy",
}
"""Names of the measures that runs are judged by."""
LEVELS = ["learner", "method", "variant", "dataset", "seed"]

Key = tuple[str, str, str]
"""Learner, method and variant: a row of most tables. Zero-shot CLIP has neither learner nor variant."""


@dataclass(frozen=True, slots=True)
class Spread:
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
        scores: dict[tuple[Any, ...], dict[str, float]] = {}
        costs: dict[tuple[Any, ...], dict[str, float]] = {}
        self.measure: str | None = None
        for result, variant in results:
            place = (result.dataset, result.seed)
            scores[("", ZEROSHOT, "", *place)] = result.zeroshot
            if result.method != ZEROSHOT:
                key = (result.learner, result.method, variant, *place)
                scores[key] = result.scores
                costs[key] = {
                    "updates": sum(stage["updates"] for stage in result.stages),
                    "images": sum(stage.get("images", 0) for stage in result.stages),
                    "seconds": sum(stage["seconds"] for stage in result.stages),
                    "epochs": max(1, sum(len(stage.get("losses", ())) for stage in result.stages)),
                    "parameters": result.parameters,
                    "peak_memory": result.peak_memory,
                }
            measures = PROTOCOLS[result.protocol].measures
            self.measure = self.measure or next((name for name in measures if name in result.scores), None)
        self.table = _frame(scores)
        """Accuracy in percent: a row per learner, method, variant, data set and seed, a column per test."""
        self.costs = _frame(costs)
        """Costs of tuning, by the same index."""

    @functools.cached_property
    def by_key(self) -> dict[Key, pd.DataFrame]:
        """The scores of each row by data set and seed."""
        return _by_key(self.table)

    @functools.cached_property
    def costs_by_key(self) -> dict[Key, pd.DataFrame]:
        """The costs of each row by data set and seed."""
        return _by_key(self.costs)

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
        fullest = there.sum(axis=1).sort_values(ascending=False, kind="stable").index
        best, most = len(fullest), -1
        for count in range(len(fullest), 0, -1):
            shared = int(there.loc[fullest[:count]].all().sum())
            if count * shared > most:
                best, most = count, count * shared
        chosen = {*fullest[:best]}
        shared_cells = there.loc[fullest[:best]].all()
        cells: dict[str, list[int]] = {}
        for name in self.datasets:
            if seeds := sorted(int(seed) for dataset, seed in shared_cells[shared_cells].index if dataset == name):
                cells[name] = seeds
        return [key for key in self.keys if key in chosen], cells

    def average(self, key: Key) -> dict[str, Spread]:
        """Return means over data sets of means over seeds, over what all compared rows have.

        ``h`` is the H of the two averages, not the average of H. The spread is that of the averages of single seeds,
        where all data sets have the same seeds; else there is none.
        """
        _, cells = self.compared
        if not cells:
            return {}
        pairs = [(name, seed) for name, seeds in cells.items() for seed in seeds]
        tests = self.by_key[key].reindex(pairs).dropna(axis=1, how="all")
        same = len({tuple(seeds) for seeds in cells.values()}) == 1
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
            learner, method, variant = key
            by_seed = self.by_key[key].xs(dataset)
            tuned = method != ZEROSHOT
            costs = self.costs_by_key[key].xs(dataset).mean() if tuned else {"updates": 0, "seconds": 0}
            records.append(
                {
                    "dataset": dataset,
                    "learner": learner,
                    "method": method,
                    "variant": variant,
                    "seeds": sorted(int(seed) for seed in by_seed.index),
                    "scores": {test: {"mean": spread.mean, "std": spread.std} for test, spread in scores.items()},
                    "updates": float(costs["updates"]),
                    "seconds": float(costs["seconds"]),
                    "by_seed": {int(seed): row.dropna().to_dict() for seed, row in by_seed.iterrows()},
                }
            )
        return sorted(records, key=lambda record: self.datasets.index(record["dataset"]))


def _by_key(frame: pd.DataFrame) -> dict[Key, pd.DataFrame]:
    return {key: group.droplevel(LEVELS[:3]) for key, group in frame.groupby(level=LEVELS[:3], sort=False)}


def _frame(records: dict[tuple[Any, ...], dict[str, float]]) -> pd.DataFrame:
    index = (
        pd.MultiIndex.from_tuples(list(records), names=LEVELS)
        if records
        else pd.MultiIndex.from_arrays([[]] * 5, names=LEVELS)
    )
    columns = list(dict.fromkeys(name for record in records.values() for name in record))
    return pd.DataFrame(
        [[record.get(name) for name in columns] for record in records.values()], index, columns, dtype=float
    )


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
        return self.result.learner, self.result.method, self.trial.variant


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
    def scores(self) -> Scores:
        """Scores and costs of the finished runs."""
        return Scores((run.result, run.trial.variant) for run in self.finished)

    def of(self, key: Key) -> list[FinishedTrial]:
        """Return the finished runs of a row that its averages are over."""
        cells = self.scores.compared[1]
        return [run for run in self.finished if run.key == key and run.result.seed in cells.get(run.result.dataset, ())]


def read_experiments(sweep: Sweep) -> list[ExperimentRuns]:
    """Read the runs of a sweep, experiment by experiment."""
    results: dict[Path, Result | None] = {}
    by_name: dict[str, list[Trial]] = {}
    for trial in sweep.trials:
        by_name.setdefault(trial.experiment, []).append(trial)
        if trial.folder not in results:
            results[trial.folder] = trial.result()
    experiments = []
    for name, trials in by_name.items():
        finished = [FinishedTrial(trial, result) for trial in trials if (result := results[trial.folder])]
        reasons = {trial.folder: failure_reason(trial.folder) for trial in trials if results[trial.folder] is None}
        missing = [trial for trial in trials if results[trial.folder] is None and not reasons[trial.folder]]
        failed = [(trial, reason) for trial in trials if (reason := reasons.get(trial.folder))]
        experiments.append(ExperimentRuns(name, finished, missing, failed))
    return experiments


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return names without their common prefix up to a dash: ``icons-animals`` is ``animals`` among its kind."""
    names = list(names)
    common = names[0].split("-")[0] + "-" if names else ""
    if len(names) > 1 and all(name.startswith(common) and name != common for name in names):
        return {name: name.removeprefix(common) for name in names}
    return {name: name for name in names}


def tidy_frame(experiments: Sequence[ExperimentRuns]) -> pd.DataFrame:
    """Return a row per trial, prompts and measure.

    ``prompts`` is ``result`` for the accuracies that count, else the stage (or ``zeroshot``) whose prompts scored the
    ``value``; ``recipe`` is a hash of all settings but the seed; accuracies are in percent, memory in bytes.
    """
    return pd.DataFrame([row for runs in experiments for run in runs.finished for row in _tidy_rows(runs.name, run)])


def _tidy_rows(experiment: str, run: FinishedTrial) -> Iterable[dict[str, Any]]:
    result, environment = run.result, run.result.environment
    git = environment.get("git") or {}
    recipe = json.dumps({key: value for key, value in result.recipe.items() if key != "seed"}, sort_keys=True)
    tables = [("result", result.scores), *((stage["name"], stage["accuracy"]) for stage in result.stages)]
    for prompts, scores in [*tables, (ZEROSHOT, result.zeroshot)]:
        for measure, value in scores.items():
            yield {
                "experiment": experiment,
                "variant": run.trial.variant,
                "trial": run.trial.name,
                "protocol": result.protocol,
                "dataset": result.dataset,
                "learner": result.learner,
                "method": result.method,
                "seed": result.seed,
                "shots": result.shots,
                "prompts": prompts,
                "measure": measure,
                "value": round(value, 4),
                "scored_with": result.scored_with.get(measure, "") if prompts == "result" else prompts,
                "updates": sum(stage["updates"] for stage in result.stages),
                "images": sum(stage["images"] for stage in result.stages),
                "tuning_seconds": round(sum(stage["seconds"] for stage in result.stages), 3),
                "seconds": round(result.seconds, 3),
                "peak_memory": result.peak_memory,
                "parameters": result.parameters,
                "pseudo_label_accuracy": (result.pseudo_labels or {}).get("accuracy", ""),
                "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:12],
                "data_fingerprint": environment.get("data", {}).get("fingerprint", ""),
                "clip_fingerprint": environment.get("clip", {}).get("fingerprint", ""),
                "commit": git.get("commit", ""),
                "changed": git.get("changed", ""),
                "maotune": environment.get("maotune", ""),
                "torch": environment.get("torch", ""),
                "device": environment.get("device", ""),
            }
