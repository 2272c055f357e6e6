"""A sweep over a data set whose class names are markup in every format, and its report."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from maotune.experiments.catalog import PlannedRun
from maotune.recipe import Recipe, load_recipe
from maotune.report.build import build_report
from maotune.report.content import Report
from maotune.report.frame import ExperimentRuns, read_experiments
from maotune.sweep.manifest import Sweep
from tests.report import invented_runs
from tests.toys import paint

HOSTILE = ("<img src=x onerror=alert(1)>", 'R&D "50%" $x_1$ #2 | {y}', "rain\\*", "~snow^")
RIGHT = {"zeroshot": 0.0, "plain": 0.85, "step-matched": 0.7, "base": 0.6, "new": 0.6}


class Reported(NamedTuple):
    sweep: Sweep
    experiments: list[ExperimentRuns]
    report: Report


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "photos"
    for place, name in enumerate(HOSTILE):
        for split, count in {"train": 4, "test": 6}.items():
            for number in range(count):
                seed = 100 * place + 10 * number + (split == "test")
                paint(root / split / name / f"{number}.png", (60 * place, 200 - 40 * place, 90), seed)
    return root


def right(recipe: Recipe, stage: str, test: str) -> float:
    return RIGHT[stage]


@pytest.fixture(scope="session")
def hostile(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    """Two learners, three methods, three seeds; the last trial is not finished, and one has failed."""
    common = {"data.source": str(photos), "protocol": "base-to-new", "data.shots": 2}
    planned = [
        PlannedRun("", load_recipe(None, {**common, "learner.name": learner, "method": method, "seed": seed}))
        for seed in (1, 2, 3)
        for learner in ("coop", "kgcoop")
        for method in ("plain", "step-matched", "mao")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAOTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        sweep = invented_runs.sweep(
            tmp_path_factory.mktemp("runs") / "hostile", "base-to-new", planned, right, unfinished=2
        )
        (sweep.trials[-2].folder / "error.txt").write_text("Traceback ...\nValueError: <b>no luck\n", encoding="utf-8")
        experiments = read_experiments(sweep)
        yield Reported(sweep, experiments, build_report(experiments, sweep.commands, "hostile"))
