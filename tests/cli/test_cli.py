"""The command line: what it prints, writes and answers, and how it stops and goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from maotune.cli import join_values
from tests.cli.conftest import Maotune

COMMAND = Path(sys.executable).parent / "maotune"
SMALL = ("--data", "icons-weather", "--shots", 2, "--epochs", 2, "data.views=1", "--json")
ICONCLIP = ("--clip", "iconclip")
METHODS = ("train", "--methods", "plain", "step-matched", "mao", "--seeds", 1, *SMALL)


def test_help_is_quick_because_torch_is_not_imported() -> None:
    code = "import sys; from maotune.cli import call; call(['train', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--methods" in done.stdout


def test_several_values_need_no_commas() -> None:
    given = ["train", "--seeds", "1", "2", "--data", "x", "--method", "plain", "mao", "epochs=2", "--mao"]
    joined = ["train", "--seeds", "1,2", "--data", "x", "--method", "plain,mao", "epochs=2", "--mao"]
    assert join_values(given) == joined
    assert join_values(["evaluate", "--data", "x", "run"]) == ["evaluate", "--data", "x", "run"]
    assert join_values([]) == []


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ("run --seeds 1 2 3 base-to-new", "run --seeds 1,2,3 base-to-new"),
        (
            "run --learners coop maple base-to-new --methods plain",
            "run --learners coop,maple base-to-new --methods plain",
        ),
        ("run --data icons-food icons-weather density", "run --data icons-food,icons-weather density"),
        ("report --formats html csv runs/base-to-new", "report --formats html,csv runs/base-to-new"),
    ],
)
def test_the_argument_of_a_command_may_stand_behind_an_option_of_several_values(given: str, joined: str) -> None:
    assert join_values(given.split()) == joined.split()


@pytest.fixture(scope="module")
def tuned(maotune: Maotune) -> dict[str, Any]:
    answer = maotune(*METHODS)
    assert answer.code == 0, answer.err
    return {**answer.json, "told": answer.err}


def test_train_compares_with_zeroshot_and_the_control(tuned: dict[str, Any]) -> None:
    assert [row["method"] for row in tuned["rows"]] == ["zeroshot", "plain", "step-matched", "mao"]
    matched, mao = tuned["runs"][1:]
    updates = [sum(stage["updates"] for stage in run["stages"]) for run in (matched, mao)]
    assert mao["scored_with"] == {"base": "base", "new": "new"}
    assert updates[1] <= updates[0] < updates[1] + matched["recipe"]["epochs"], "as many, in whole epochs"
    for run in tuned["runs"]:
        assert set(run["scores"]) == {"base", "new", "h"}
        assert all(set(stage["accuracy"]) == {"base", "new", "h"} for stage in run["stages"])


def test_a_plan_with_its_cost_comes_before_the_work(tuned: dict[str, Any]) -> None:
    plans = [line for line in tuned["told"].splitlines() if line.startswith("plan:")]
    assert len(plans) == 3
    for plan, run in zip(plans, tuned["runs"], strict=True):
        assert f"{sum(stage['updates'] for stage in run['stages']):,} in all" in plan
    assert tuned["told"].count("estimated") == 3
    assert "GB of memory" in tuned["told"]


def test_a_finished_run_is_reported_and_not_done_again(maotune: Maotune, tuned: dict[str, Any]) -> None:
    again = maotune(*METHODS)
    assert {**again.json, "told": tuned["told"]} == tuned
    assert again.err.count("finished before") == 3
    table = maotune(*METHODS[:-1])
    assert table.code == 0
    assert "step-matched" in table.out
    assert "against the step-matched control" in table.out


def run_folder(home: Path, method: str) -> Path:
    (folder,) = (home / "runs").glob(f"icons-weather-coop-{method}-*")
    return folder


def test_evaluate_gives_the_same_number_again(maotune: Maotune, home: Path, tuned: dict[str, Any]) -> None:
    (stored,) = maotune("evaluate", run_folder(home, "mao"), "--json").json["runs"]
    assert stored["stages"] == tuned["runs"][2]["stages"]
    scored = maotune(
        "evaluate", run_folder(home, "plain"), "--data", "icons-weather", "--prompts", "zeroshot", "--json"
    )
    alone = maotune("zeroshot", "--data", "icons-weather", "--json").json
    assert scored.json["accuracy"] == pytest.approx(alone["rows"][0]["all"])
    assert scored.json["mean_per_class"] == pytest.approx(alone["rows"][0]["mean_per_class"])
    assert alone["rows"][0]["base"] == pytest.approx(tuned["runs"][0]["zeroshot"]["base"])
    assert alone["mean"]["h"] == pytest.approx(tuned["runs"][0]["zeroshot"]["h"])


def test_predict_among_other_classes_and_past_broken_files(maotune: Maotune, home: Path, tuned: dict[str, Any]) -> None:
    folder = home / "new"
    folder.mkdir()
    Image.new("RGB", (80, 40), "white").save(folder / "white.png")
    (folder / "broken.png").write_bytes(b"nothing")
    run = shutil.copytree(run_folder(home, "mao"), home / "moved")
    answer = maotune("predict", run, folder, "--classes", "snow, a red car", "--top-k", 2, "--json")
    assert answer.code == 0, answer.err
    (image,) = answer.json["images"]
    assert answer.json["prompts"] == "new"
    assert {entry["class"] for entry in image["classes"]} == {"snow", "a red car"}
    assert sum(entry["probability"] for entry in image["classes"]) == pytest.approx(1, abs=1e-4)
    assert [Path(skipped["image"]).name for skipped in answer.json["skipped"]] == ["broken.png"]
    lines = maotune("predict", run / "prompts.safetensors", folder / "white.png").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(folder / "white.png")]
    strict = maotune("predict", run, folder, "--strict")
    assert strict.code == 1
    assert "broken.png" in strict.err


def test_predict_prints_hostile_names_and_obeys_none(
    maotune: Maotune, home: Path, tuned: dict[str, Any], tmp_path: Path
) -> None:
    """Names of files and classes with escape sequences, line breaks and formulas; in JSON they are as they are."""
    names = ["\x1b[2J.png", "line\nbreak.png", "=1+1.png", "tab\t.png", "caf\udce9.png"]
    for name in names:
        Image.new("RGB", (80, 40), "white").save(tmp_path / name)
    (tmp_path / "bad\x1b[8m.png").write_bytes(b"nothing")
    (tmp_path / "names.txt").write_text("=cmd()\n\x1b[31mred car\n", encoding="utf-8")
    command = ("predict", run_folder(home, "mao"), ".", "--classes", "names.txt", "--top-k", 2)
    answer = maotune(*command, cwd=tmp_path)
    assert answer.code == 0, answer.err
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert {row[0] for row in rows} == {r"\x1b[2J.png", r"line\nbreak.png", "'=1+1.png", r"tab\t.png", r"caf\udce9.png"}
    assert {cell.rpartition(" ")[0] for row in rows for cell in row[1:]} == {"'=cmd()", r"\x1b[31mred car"}
    assert r"skipped: bad\x1b[8m.png: no picture" in answer.err
    assert "\x1b" not in answer.out + answer.err
    document = maotune(*command, "--json", cwd=tmp_path).json
    assert {image["image"] for image in document["images"]} == {*names}
    assert document["skipped"][0]["image"] == "bad\x1b[8m.png"
    assert {each["class"] for each in document["images"][0]["classes"]} == {"=cmd()", "\x1b[31mred car"}


def test_own_images_are_adapted_to(maotune: Maotune, photos: Path) -> None:
    own = ("--data", "photos/", "--unlabelled", "heap/", "--classes", "names.txt", "--mao", "--epochs", 2, *ICONCLIP)
    answer = maotune("train", *own, "data.views=1", "--json", cwd=photos)
    assert answer.code == 0, answer.err
    (run,) = answer.json["runs"]
    assert run["protocol"] == "adapt"
    assert [Path(skipped["name"]).name for skipped in run["skipped"]] == ["broken.jpg"]
    best = max(run["zeroshot"]["cv"], *(stage["accuracy"]["cv"] for stage in run["stages"]))
    assert run["scores"]["cv"] == best, "never worse than zero-shot on images that were held out"
    assert run["comparison"]["folds"] == 5
    assert run["environment"]["data"]["parts"]["shots"]["images"] == run["comparison"]["images"]
    found = maotune("predict", photos / run["folder"], photos / "heap", "--json").json
    assert len(found["images"]) == 6
    assert {entry["classes"][0]["class"] for entry in found["images"]} <= {"tomato", "green leaf", "sky", "snow"}
    strict = maotune("train", *own, "--strict", cwd=photos)
    assert strict.code == 1
    assert "broken.jpg" in strict.err
    check_scores_of_folders(maotune, photos, run["folder"])
    check_answers(maotune, photos, run["folder"])


def check_scores_of_folders(maotune: Maotune, photos: Path, run: str) -> None:
    """All images of a folder without splits are scored; of the run's own, those that were held out for it."""
    other = photos / "more"
    if not other.exists():
        shutil.copytree(photos / "photos", other)
        (other / "leaf").rename(other / "green leaf")
    scored = maotune("evaluate", run, "--data", "more", "--out", "scored", "--json", cwd=photos)
    assert scored.code == 0, scored.err
    document = scored.json
    assert (document["split"], document["images"]) == ("all", 21)
    assert [Path(image["image"]).name for image in document["skipped"]] == ["broken.jpg"]
    assert {row["class"]: row["images"] for row in document["classes"]} == {"tomato": 7, "green leaf": 7, "sky": 7}
    assert sum(map(sum, document["confusion"])) == 21
    assert 0 <= document["ece"] <= 100
    written = {path.name for path in (photos / "scored").iterdir()}
    assert {"predictions.csv", "classes.csv", "confusion.csv", "calibration.png"} <= written
    assert len((photos / "scored" / "predictions.csv").read_text().splitlines()) == 22
    told = maotune("evaluate", run, "--data", "more", cwd=photos).out
    assert "more, all: " in told
    assert "expected calibration error" in told
    own = maotune("evaluate", run, "--data", "photos", "--json", cwd=photos).json
    assert (own["split"], own["images"]) == ("all", 21)
    none = maotune("evaluate", run, "--data", "more", "--split", "val", cwd=photos)
    assert none.code == 1
    assert "has no readable image in val; it has 3 classes" in none.err


def check_answers(maotune: Maotune, photos: Path, run: str) -> None:
    """Answers are written to files, and images are left to a person where nothing is known of such a precision."""
    (photos / "list.csv").write_text("path\nheap/sky-7.png\nheap/leaf-8.png\n")
    for ending in ("csv", "jsonl", "parquet"):
        answer = maotune("predict", run, "list.csv", "heap/tomato-*.png", "--out", f"found.{ending}", cwd=photos)
        assert answer.code == 0, answer.err
        assert answer.out == ""
        assert (photos / f"found.{ending}").stat().st_size > 0
    assert len((photos / "found.jsonl").read_text().splitlines()) == 4
    assert maotune("predict", run, "heap", "--out", "found.xls", cwd=photos).code == 1
    careful = maotune("predict", run, "heap", "--precision", "0.999", "--json", cwd=photos).json
    assert {image["label"] for image in careful["images"]} == {"unknown"}
    assert "6 of 6 images (100%) are left to a person" in careful["left_to_a_person"]
    shown = maotune("predict", run, "heap", "--precision", "0.999", cwd=photos)
    assert all(line.split("\t")[1] == "unknown" for line in shown.out.splitlines())
    assert maotune("predict", run, "heap", "--reject", cwd=photos).code == 0
    other = maotune("predict", run, "heap", "--reject", "--classes", "a cat,a dog", cwd=photos)
    assert other.code == 1
    assert "a threshold holds for the classes that it was learned with" in other.err
    for wrong in ("https://x.org/a.png", "http://x.org/"):
        assert "is an address" in maotune("predict", run, wrong, cwd=photos).err


def test_mao_without_unlabelled_images_says_what_to_give(maotune: Maotune, photos: Path) -> None:
    answer = maotune("train", "--data", "photos", "--mao", *ICONCLIP, cwd=photos)
    assert answer.code == 1
    assert "--unlabelled" in answer.err
    assert "base-only" in answer.err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("train", "--method", "moa"), "did you mean mao"),
        (("train", "--learner", "copo"), "did you mean"),
        (("train", "lerner.name=coop"), "did you mean learner"),
        (("train", "learner.contxt_length=4"), "did you mean context_length"),
        (("train", "mao.labeller=tuned"), "did you mean labeler"),
        (("train", "epochs=none"), "epochs"),
        (("train", "--seeds", "one"), "seed"),
        (("train", "--recipe", "missing.yaml"), "missing.yaml"),
        (("train", "--mao", "--method", "plain"), "--mao"),
        (("train", "--sedes", "1"), "--seeds"),
        (("zeroshot", "--suite", "icons-12"), "did you mean icons-11"),
        (("list", "lerners"), "did you mean learners"),
        (("tarin",), "train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors_name_what_is_nearest_and_exit_with_2(
    maotune: Maotune, arguments: tuple[str, ...], wanted: str
) -> None:
    answer = maotune(*arguments, "--json")
    assert answer.code == 2, answer
    assert wanted in answer.err
    assert wanted in answer.json["error"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("train", "--data", "icons-wether"), "icons-weather"),
        (("predict", "nowhere", "x.png"), "nowhere"),
        (("train", "--data", "icons-weather", "--clip", "nowhere"), "no file or folder nowhere"),
        (("data", "show", "icons-wether"), "icons-weather"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_failures_exit_with_1_and_are_json_too(maotune: Maotune, arguments: tuple[str, ...], wanted: str) -> None:
    answer = maotune(*arguments, "--json")
    assert answer.code == 1
    assert wanted in answer.json["error"]
    assert wanted in answer.err


@pytest.mark.parametrize("what", ["learners", "methods", "data", "settings", "recipes"])
def test_lists(maotune: Maotune, what: str) -> None:
    entries = maotune("list", what, "--json").json
    assert entries
    assert all(entries.values()), "every entry has a line on it"
    told = maotune("list", what).out
    assert all(name in told for name in entries)


def test_data_can_be_looked_at_checked_and_exported(maotune: Maotune, photos: Path, home: Path) -> None:
    shown = maotune("data", "show", "icons-weather", "--json").json
    assert shown["classes"]
    checked = maotune("data", "check", photos / "photos", "--json").json
    assert [Path(skipped["name"]).name for skipped in checked["skipped"]] == ["broken.jpg"]
    assert maotune("data", "check", photos / "photos", "--strict").code == 1
    target = home / "exported"
    written = maotune("data", "export", photos / "photos" / "leaf", target, "--json")
    assert written.code == 0, written.err
    assert written.json["images"] == len([*target.rglob("*.png")])
    refused = maotune("data", "export", photos / "photos" / "leaf", target)
    assert refused.code == 1
    assert "exists" in refused.err


def test_the_cache_is_shown_and_cleared(maotune: Maotune, tuned: dict[str, Any]) -> None:
    assert maotune("cache", "--json").json["bytes"] > 0
    assert maotune("cache", "--clear", "--json").json["cleared"]
    left = maotune("cache", "--json").json
    assert (left["bytes"], left["shards"]) == (0, 0)


LONG = ("--data", "icons-weather", "--mao", "--shots", 8, "--epochs", 8, "data.views=1", "train.checkpoint_seconds=0")


@pytest.fixture(scope="module")
def whole(maotune: Maotune, home: Path) -> Path:
    """The prompts of a run that nobody stopped."""
    assert maotune("train", *LONG, "--folder", home / "whole").code == 0
    (path,) = (home / "whole").glob("*/prompts.safetensors")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_prompts(
    maotune: Maotune, environment: dict[str, str], whole: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    stopped = tmp_path / "stopped"
    command = [COMMAND, "train", *map(str, LONG), "--folder", stopped]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not [*stopped.glob("*/checkpoint.safetensors")] and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, stop)
    _, told = process.communicate()
    if process.returncode == 0:
        pytest.skip("the run was over before it could be stopped")
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "Resume with: maotune train --data icons-weather --mao --shots 8 --epochs 8" in told
        assert "--resume" in told
    refused = maotune("train", *LONG, "--folder", stopped)
    assert refused.code == 1
    assert "--resume" in refused.err
    assert maotune("train", *LONG, "--folder", stopped, "--resume").code == 0
    (found,) = stopped.glob("*/prompts.safetensors")
    for name, value in load_file(whole).items():
        assert torch.equal(load_file(found)[name], value), name
