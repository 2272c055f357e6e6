"""``maotune run density`` and ``cases``: experiments that tune nothing."""

import json
from pathlib import Path
from statistics import fmean

from tests.cli.conftest import Maotune

WEATHER = ("--data", "icons-weather", "--seeds", 1)


def test_what_a_picture_shows_is_told_and_written(maotune: Maotune, tmp_path: Path) -> None:
    told = maotune("run", "density", *WEATHER, "--folder", tmp_path)
    assert told.code == 0, told.err
    assert told.out.startswith("icons-weather, seed 1: by all-MiniLM-L6-v2, two classes of a batch are 0.")
    document = json.loads((tmp_path / "density-icons-weather-seed1.json").read_text(encoding="utf-8"))
    (picture,) = maotune("run", "density", *WEATHER, "--folder", tmp_path, "--json").json["pictures"]
    files = picture.pop("files")
    assert picture == document
    assert [Path(file).name for file in files] == ["density-icons-weather-seed1.json"]
    for embedding in document["embeddings"]:
        assert f"{fmean(embedding['distances']['hard']):.3f}" in told.out
    assert maotune("report", tmp_path, "--format", "html").code == 0
    assert "counterpart of Figure 5" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_a_dry_run_writes_nothing(maotune: Maotune, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert maotune("run", "cases", "--dry-run", "--folder", folder).out.startswith(
        "the data of 33 figures, as JSON in "
    )
    planned = maotune("run", "cases", "--dry-run", "--folder", folder, *WEATHER, "--json").json
    assert planned == {"pictures": [{"source": "icons-weather", "seed": 1}]}
    assert not folder.exists()


def test_what_tunes_nothing_has_no_learners(maotune: Maotune, tmp_path: Path) -> None:
    answer = maotune("run", "density", *WEATHER, "--learners", "coop", "--folder", tmp_path)
    assert answer.code == 2
    assert "density tunes nothing: leave out --learners and --methods" in answer.err
