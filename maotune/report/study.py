"""What a folder of runs holds, experiment by experiment: finished runs, those still missing, those that failed."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maotune.mao.methods import ZEROSHOT
from maotune.report.summary import Row, Series, measure_of, series, summarise, widest
from maotune.runs.result import Result
from maotune.sweep.manifest import Sweep, Trial
from maotune.sweep.trial import ERROR


@dataclass(frozen=True)
class Run:
    """A finished trial."""

    trial: Trial
    result: Result


@dataclass(frozen=True)
class Study:
    """The runs of one experiment."""

    name: str
    runs: Sequence[Run]
    missing: Sequence[Trial] = ()
    """Neither finished nor failed."""
    failed: Sequence[tuple[Trial, str]] = ()
    """With the last line of what went wrong."""

    @functools.cached_property
    def rows(self) -> list[Row]:
        """One for each data set, learner, method and variant, and one for zero-shot CLIP on each data set."""
        plain = [row for row in summarise([run.result for run in self.runs]) if row.method == ZEROSHOT]
        variants = dict.fromkeys(run.trial.variant for run in self.runs)
        tuned = [row for variant in variants for row in summarise(self.results(variant), variant)]
        return [*plain, *(row for row in tuned if row.method != ZEROSHOT)]

    @functools.cached_property
    def series(self) -> list[Series]:
        """One for each learner, method and variant; zero-shot CLIP first."""
        return series([row for row in self.rows if row.scores])

    @functools.cached_property
    def averaged(self) -> list[Series]:
        """The series that have averages."""
        return widest(self.series)[0]

    @functools.cached_property
    def cells(self) -> dict[str, list[int]]:
        """The data sets and seeds that they all have: what averages are taken over."""
        return widest(self.series)[1]

    @functools.cached_property
    def datasets(self) -> list[str]:
        """In order of the runs."""
        return list(dict.fromkeys(row.dataset for row in self.rows))

    @property
    def measure(self) -> str | None:
        """What its runs are judged by."""
        return measure_of(self.rows[0].scores) if self.rows else None

    def results(self, variant: str) -> list[Result]:
        """Of the finished runs of one variant."""
        return [run.result for run in self.runs if run.trial.variant == variant]

    def of(self, one: Series) -> list[Run]:
        """The finished runs behind a series."""
        key = (one.learner, one.method, one.variant)
        return [run for run in self.runs if (run.result.learner, run.result.method, run.trial.variant) == key]


def read_studies(sweep: Sweep) -> list[Study]:
    """The experiments of a sweep, in the order in which it was asked for them."""
    results: dict[Path, Result | None] = {}
    by_name: dict[str, list[Trial]] = {}
    for trial in sweep.trials:
        by_name.setdefault(trial.experiment, []).append(trial)
        if trial.folder not in results:
            results[trial.folder] = trial.result()
    studies = []
    for name, trials in by_name.items():
        open_ones = [trial for trial in trials if results[trial.folder] is None]
        errors = {trial.name: _reason(trial.folder) for trial in open_ones}
        studies.append(
            Study(
                name,
                [Run(trial, result) for trial in trials if (result := results[trial.folder]) is not None],
                [trial for trial in open_ones if not errors[trial.name]],
                [(trial, errors[trial.name]) for trial in open_ones if errors[trial.name]],
            )
        )
    return studies


def _reason(folder: Path) -> str:
    """The last line of a trial's error, which is the message; empty where it has not failed."""
    path = folder / ERROR
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without what they all begin with up to a dash, as ``icons-animals`` is ``animals`` among its kind."""
    names = list(names)
    common = names[0].split("-")[0] + "-" if names else ""
    if len(names) > 1 and all(name.startswith(common) and name != common for name in names):
        return {name: name.removeprefix(common) for name in names}
    return {name: name for name in names}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested settings by dotted key."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flat(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }
