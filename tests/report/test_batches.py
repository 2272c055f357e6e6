"""Figures 5 and 6 on the page, from what ``maotune run density`` and ``cases`` write."""

import json
from pathlib import Path

import pytest

from maotune.experiments.example_batches import collect_example_batches
from maotune.experiments.name_distances import measure_name_distances
from maotune.recipe import load_recipe
from maotune.report.batches import batch_sections
from maotune.report.build import build_report
from maotune.report.content import FigurePanels, Gallery, ReportTable
from maotune.report.render import html


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = load_recipe(None, {"data.source": "icons-weather", "data.shots": 2, "epochs": 2})
    folder = tmp_path_factory.mktemp("figures")
    measure_name_distances(recipe).save(folder)
    collect_example_batches(recipe).save(folder)
    return folder


def test_the_distances_and_the_pictures_have_a_section_each(folder: Path) -> None:
    density, cases = batch_sections(folder)
    table, figure = density.parts
    assert isinstance(table, ReportTable)
    assert isinstance(figure, FigurePanels)
    assert [*dict.fromkeys(table.groups)] == ["all-MiniLM-L6-v2", "the text tower of iconclip"]
    assert len(figure.panels) == 4, "a histogram by each model, and the names of a batch of each kind"
    hard, random = cases.parts
    assert isinstance(hard, Gallery)
    assert isinstance(random, Gallery)
    assert [picture.framed for picture in hard.pictures[: hard.columns]] == [True] + [False] * (hard.columns - 1)
    assert not any(picture.framed for picture in random.pictures)
    page = html(build_report([], (), "figures", [density, cases]))
    assert page.count('class="framed"') == len(hard.pictures) // hard.columns
    assert "MAO's mini-batches hold classes with closer names" in page.replace("&#39;", "'")


def test_what_cannot_be_read_is_left_out_and_nothing_is_loaded_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "density-a-seed1.json").write_text("{}")
    told = json.loads(next(folder.glob("cases-*.json")).read_text(encoding="utf-8"))
    for entry in told["batches"]["hard"][0]:
        entry["picture"] = "https://example.org/x.png"
    (tmp_path / "cases-b-seed1.json").write_text(json.dumps(told))
    (cases,) = batch_sections(tmp_path)
    assert "example.org" not in html(build_report([], (), "figures", [cases]))
    assert batch_sections(tmp_path / "nothing") == []
