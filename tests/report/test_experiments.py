"""Every experiment of the paper has a report: its tables and figures, from runs that are finished without tuning."""

from pathlib import Path

import pytest

from maotune.experiments.catalog import EXPERIMENTS, plan_runs
from maotune.recipe import Recipe
from maotune.report.build import build_report
from maotune.report.frame import read_experiments
from maotune.report.render import html, latex, markdown
from maotune.runs.inference import Inference
from tests.report import invented_runs

SHOWN = {
    "base-to-new": (
        {"paired", "results", "other-measures", "stages", "cost"},
        {"differences", "scatter"},
    ),
    "cross-dataset": ({"paired", "results"}, {"differences"}),
    "few-shot": ({"paired", "results", "cost"}, {"curves"}),
    "plug-in": ({"paired", "results", "stages"}, {"differences", "scatter"}),
    "cost": ({"paired", "results", "cost"}, {"cost-figure"}),
    "ablations": ({"paired", "results", "stages"}, {"differences"}),
    "pseudo-labelers": ({"paired", "results", "stages"}, {"differences"}),
    "labelers": ({"paired", "results"}, {"differences"}),
    "sensitivity": ({"results", "stages", "cost"}, {"curves", "cost-figure"}),
    "views": ({"results", "cost"}, {"curves", "cost-figure"}),
    "baselines": ({"results"}, {"differences"}),
    "distillation": ({"results"}, {"differences"}),
    "hicropl": ({"results", "cost"}, set[str]()),
}
"""By experiment: some of its tables, and some of its figures."""


def right(recipe: Recipe, stage: str, test: str) -> float:
    """MAO's stages are better, more shots are better."""
    return {"zeroshot": 0.5, "base": 0.7, "new": 0.8}.get(stage, 0.6) + 0.02 * recipe.data.shots**0.5


def test_all_experiments_that_tune_are_tried() -> None:
    assert set(SHOWN) == {name for name, experiment in EXPERIMENTS.items() if experiment.make_figure is None}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_the_report_of(name: str, tmp_path: Path) -> None:
    source = ("icons-weather",)
    few = {} if name == "few-shot" else {"data.shots": 2}
    targets = {"data.targets": ["icons-logos"]} if name == "cross-dataset" else {}
    planned = plan_runs(EXPERIMENTS[name], source, seeds=(1, 2), settings={**few, **targets})
    sweep = invented_runs.sweep(tmp_path, name, planned, right)
    if EXPERIMENTS[name].inference:
        speed = Inference(
            images_per_second=1234.0, tower_images_per_second=1240.0, batch_size=32, classes=9, device="cpu", threads=1
        )
        speed.save(sweep.trials[0].folder)
    report = build_report(read_experiments(sweep), sweep.commands, name)
    section = report.sections[0]
    tables, figures = SHOWN[name]
    assert tables | figures <= {part.name.removeprefix(f"{name}-") for part in section.parts if part}
    assert [one.name for one in report.sections][-1] == "made"
    for written in (html(report), markdown(report), latex(report)):
        assert "nan" not in written.lower().replace("banan", "")
    if EXPERIMENTS[name].inference:
        assert "1,234" in markdown(report)
