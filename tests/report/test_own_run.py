"""The report of runs on one's own images: what to deploy, and where it is wrong."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from maotune.experiments.catalog import PlannedRun
from maotune.recipe import Recipe, load_recipe
from maotune.report.build import build_report
from maotune.report.by_class import class_changes, match_runs
from maotune.report.content import Gallery, Report, ReportTable
from maotune.report.frame import ExperimentRuns, read_experiments, read_sweeps
from maotune.report.own_run import accuracy_interval, find_own_runs
from maotune.report.render import html
from maotune.sweep.manifest import MANIFEST
from tests.report import invented_runs
from tests.toys import COLOURS, paint_photos


def right(recipe: Recipe, stage: str, test: str) -> float:
    return {"zeroshot": 0.2, "plain": 0.5, "base": 0.6, "new": 0.95}[stage]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExperimentRuns]:
    """A folder of ``maotune train``: CoOp, plain and with MAO, on photos of four classes."""
    root = tmp_path_factory.mktemp("own")
    photos = paint_photos(root, train=2, val=6, test=10)
    given = {
        "data.source": str(photos),
        "data.unlabelled": str(root / "heap"),
        "data.shots": 2,
        "clip.source": "iconclip",
    }
    planned = [PlannedRun("", load_recipe(None, {**given, "method": method})) for method in ("mao", "plain")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAOTUNE_CACHE", str(root / "cache"))
        invented_runs.sweep(root / "runs", "adapt", planned, right)
        (root / "runs" / MANIFEST).unlink()
        (found,) = read_experiments(*read_sweeps(root / "runs"))
        yield found


@pytest.fixture(scope="module")
def report(runs: ExperimentRuns) -> Report:
    return build_report([runs], (), "own")


def tables(report: Report) -> dict[str, ReportTable]:
    return {table.name: table for table in report.tables}


def test_the_answer_is_how_often_the_best_run_is_right(runs: ExperimentRuns, report: Report) -> None:
    best, other = find_own_runs(runs)
    assert (best.run.result.method, other.run.result.method) == ("mao", "plain")
    share = best.run.result.scores["test"]
    assert report.answer.startswith(
        f"CoOp with MAO classifies {share:.1f} % of the 40 test images right (95 % interval"
    )
    assert report.answer.endswith(f"zero-shot CLIP {best.run.result.zeroshot['test']:.1f} %.")
    assert report.sections[0].code == f"maotune predict runs/{best.run.trial.name} new_photos/"


def test_the_interval_is_wilsons() -> None:
    share, low, high = accuracy_interval(np.array([True] * 8 + [False] * 2))
    assert [share, low, high] == pytest.approx([80, 49.02, 94.33], abs=0.01)


def test_each_class_has_its_accuracy_and_what_it_is_taken_for(runs: ExperimentRuns, report: Report) -> None:
    best = find_own_runs(runs)[0]
    rows = {labels[0]: cells for labels, cells in tables(report)["own-classes"].rows}
    assert rows.keys() == COLOURS.keys()
    assert {cells[0] for cells in rows.values()} == {"10"}
    accuracies = [float(cells[2]) for cells in rows.values()]
    assert accuracies == sorted(accuracies)
    assert np.mean(accuracies) == pytest.approx(best.run.result.scores["test"], abs=0.5)


def test_every_mistake_is_shown_with_what_it_was_taken_for(runs: ExperimentRuns, report: Report) -> None:
    best = find_own_runs(runs)[0]
    (gallery,) = [part for part in report.sections[0].parts if isinstance(part, Gallery)]
    wrong = best.images[best.images["label"] != best.images["taken"]]
    assert len(gallery.pictures) == len(wrong) > 0
    for picture in gallery.pictures:
        _, name = picture.lines
        assert f"is {Path(name).parent.name}" == picture.lines[0]
        assert picture.title != f"taken for {Path(name).parent.name}"
        assert picture.image().startswith("data:image/webp;base64,")
    assert "confusion matrix of 4 classes" in html(report)


def test_a_class_counts_once_though_validation_and_test_images_are_scored(runs: ExperimentRuns, report: Report) -> None:
    ((_, pairs),) = match_runs(runs).items()
    assert [test for test, _ in class_changes(pairs).index] == ["test"] * 4
    assert [cells[0] for _, cells in tables(report)["adapt-classes"].rows] == ["4"]


def test_plain_tuning_comes_before_mao_which_is_compared_with_it(report: Report) -> None:
    """Folders are sorted by name, where ``mao`` comes before ``plain``."""
    table = tables(report)["adapt-results"]
    assert [labels[1] for labels, _ in table.rows] == ["zero-shot", "plain", "MAO"]
    changes = [cells[table.lead - 1] for _, cells in table.rows]
    assert changes[:2] == ["", ""]
    assert changes[2].startswith("+")
