import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from maotune.recipe import Recipe, load_recipe
from maotune.runs.folder import RECIPE, find_run_folder
from maotune.sweep.manifest import MANIFEST, Sweep, Trial
from maotune.train.session import CheckpointError


def trials(folder: Path, seeds: range, variant: str = "", **settings: object) -> list[Trial]:
    recipes = [load_recipe(None, {"data.source": "icons-weather", "seed": seed, **settings}) for seed in seeds]
    return [Trial(folder / recipe.slug, "base-to-new", variant, recipe) for recipe in recipes]


def test_a_plan_is_read_as_it_was_written_and_extended(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    first = Sweep.plan(folder, trials(folder, range(2)), "maotune run a")
    assert Sweep.read(folder) == first
    Sweep.plan(folder, trials(folder, range(1, 4)), "maotune run b")
    again = Sweep.read(folder)
    assert [trial.recipe.seed for trial in again.trials] == [0, 1, 2, 3]
    assert again.commands == ("maotune run a", "maotune run b")
    for trial in again.trials:
        assert Recipe.model_validate_json((trial.folder / RECIPE).read_text(encoding="utf-8")) == trial.recipe


def test_the_same_run_in_two_variants_has_one_folder(tmp_path: Path) -> None:
    Sweep.plan(tmp_path, [*trials(tmp_path, range(1), "a"), *trials(tmp_path, range(1), "b")], "")
    read = Sweep.read(tmp_path).trials
    assert [trial.variant for trial in read] == ["a", "b"]
    assert read[0].folder == read[1].folder


def test_a_plan_does_not_write_again_what_stands(tmp_path: Path) -> None:
    Sweep.plan(tmp_path, trials(tmp_path, range(2)), "")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"*/{RECIPE}")}
    Sweep.plan(tmp_path, trials(tmp_path, range(3)), "")
    assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"*/{RECIPE}")}.items()


OTHER = load_recipe(None, {"seed": 9}).model_dump_json()


@pytest.mark.parametrize(
    ("content", "said"), [(OTHER, "holds other settings"), ('{"epochs": "many"}', "is no recipe of this version")]
)
def test_the_folder_of_another_run_is_refused_and_the_others_go_on(tmp_path: Path, content: str, said: str) -> None:
    first, second = trials(tmp_path, range(2))
    first.folder.mkdir()
    (first.folder / RECIPE).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        Sweep.plan(tmp_path, [first], "")
    assert not (tmp_path / MANIFEST).exists()
    sweep = Sweep.plan(tmp_path, [first, second], "")
    assert said in sweep.refused[first.folder]
    assert [*sweep.refused] == [first.folder]
    assert (first.folder / RECIPE).read_text() == content
    assert Sweep.read(tmp_path).trials == sweep.trials


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", None])
def test_a_damaged_recipe_is_written_again(tmp_path: Path, content: bytes | None) -> None:
    (trial,) = trials(tmp_path, range(1))
    Sweep.plan(tmp_path, [trial], "")
    path = trial.folder / RECIPE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"seed": 0', b'"seed": 2') if content is None else content)
    assert find_run_folder(tmp_path, trial.recipe) == trial.folder
    assert Sweep.plan(tmp_path, [trial], "").refused == {}
    assert path.read_bytes() == whole
    assert load_recipe(path) == trial.recipe, "people take it as it is"


def plan(folder: Path, seed: int) -> None:
    Sweep.plan(folder, trials(folder, range(seed, seed + 2)), f"maotune run --seed {seed}")


def test_those_who_plan_at_once_lose_nothing(tmp_path: Path) -> None:
    context = get_context("fork")
    planners = [context.Process(target=plan, args=(tmp_path, seed)) for seed in range(4)]
    for process in planners:
        process.start()
    for process in planners:
        process.join()
    assert [process.exitcode for process in planners] == [0] * 4
    sweep = Sweep.read(tmp_path)
    assert sorted(trial.recipe.seed for trial in sweep.trials) == [0, 1, 2, 3, 4]
    assert len(sweep.commands) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"trials": []}', '{"commands": [], "trials": [{"name": "a"}]}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"sweep\.json was not written by this version"):
        Sweep.read(tmp_path)


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no sweep\.json and no finished run"):
        Sweep.read(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", "a/b", "", ".", ".."])
def test_a_manifest_names_no_folder_outside_its_own(name: str, tmp_path: Path) -> None:
    Sweep.plan(tmp_path, [Trial(tmp_path / "one", "base-to-new", "", Recipe())], "")
    tree = json.loads((tmp_path / "sweep.json").read_text())
    tree.pop("checksum")
    tree["trials"][0]["name"] = name
    (tmp_path / "sweep.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match="no name of a folder in it"):
        Sweep.read(tmp_path)
