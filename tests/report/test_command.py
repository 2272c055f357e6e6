"""``maotune report``."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from maotune.cli import call
from tests.report.conftest import Reported


def answer(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call(["report", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def test_json_holds_the_comparisons_and_where_the_files_are(hostile: Reported, tmp_path: Path) -> None:
    code, out, _ = answer(hostile.sweep.folder, "--json", "--format", "csv", "markdown", "--out", tmp_path / "x")
    assert code == 0
    found = json.loads(out)
    assert found["answer"] == hostile.report.answer
    assert [Path(path).name for path in found["files"]] == ["results.csv", "report.md"]
    assert all(Path(path).stat().st_size for path in found["files"])
    assert {(one["learner"], one["against"]) for one in found["comparisons"]} == {
        (learner, against)
        for learner in ("coop", "kgcoop")
        for against in ("plain", "step-matched", "zeroshot", "two-prompts")
    }
    assert found["rows"][0]["experiment"] == "base-to-new"


def test_text_writes_no_file(hostile: Reported, tmp_path: Path) -> None:
    code, out, _ = answer(hostile.sweep.folder, "--format", "text", "--out", tmp_path / "none")
    assert code == 0
    assert "So far, MAO" in " ".join(out.split())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("arguments", "said"), [(("--format", "pdf"), "markdown"), ((), "finished run")])
def test_what_cannot_be_reported_is_said(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = answer(tmp_path, *arguments)
    assert code != 0
    assert said in err
    assert not (tmp_path / "report").exists()


def test_a_folder_of_sweeps_is_reported_as_one(hostile: Reported, tmp_path: Path) -> None:
    below = tmp_path / "sweeps" / "hostile"
    below.parent.mkdir()
    below.symlink_to(hostile.sweep.folder)
    code, out, _ = answer(tmp_path / "sweeps", "--format", "csv", "--json")
    assert code == 0
    assert json.loads(out)["answer"] == hostile.report.answer
    code, out, _ = answer(tmp_path / "sweeps", "--claims", "--format", "html,markdown", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["answer"].startswith("Of 41 claims of the paper: ")
    assert [Path(path).parent.name for path in said["files"]] == ["claims", "claims"]
    assert "MAO raises H" in Path(said["files"][1]).read_text(encoding="utf-8")
