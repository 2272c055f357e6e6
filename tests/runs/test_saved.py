"""A file of prompts from a stranger: whatever is missing or wrong in it is an error in words, and costs nothing."""

import copy
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import maotune
from maotune.learners import LEARNERS
from maotune.recipe import RecipeError
from maotune.train.session import CheckpointError, load_prompts
from tests.hub import HubCache
from tests.toys import toy_clip

ABSENT = object()


@pytest.fixture(scope="module")
def parts(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a good file."""
    small = {"shots": 2, "epochs": 1, "data__views": 1, "learner__context_length": 4, "train__warmup_epochs": 0}
    run = maotune.tune("photos", clip=toy_clip(), **small)
    return load_prompts(run.save(place / "good.safetensors"))


def write(path: Path, tensors: dict[str, Tensor], metadata: Any) -> Path:
    """As older versions and strangers write it: without a checksum."""
    safetensors.torch.save_file(
        tensors, path, {"prompts": metadata if isinstance(metadata, str) else json.dumps(metadata)}
    )
    return path


def changed(metadata: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(metadata)
    *parents, last = where.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[last] = value
    if value is ABSENT:
        del node[last]
    return tree


WRONG = [None, 3, "text", [], {}, [[]], {"a": 1}, -1, 1e400, [None], {"base": None}, True]
PARTS = [
    *("recipe", "clip", "stages", "result", "stages.plain", "clip.source", "clip.fingerprint", "clip.activation"),
    *("recipe.learner", "recipe.protocol", "recipe.clip", "recipe.data", "recipe.learner.context_length", "recipe.mao"),
    *("result.scores", "result.scored_with", "result.stages", "result.templates", "result.protocol", "result.zeroshot"),
    *(
        "result.predictors",
        "result.predictors.base",
        "result.environment",
        "result.skipped",
        "result.dataset",
        "result.pseudo_labels",
        "result.recipe",
    ),
]


@pytest.mark.parametrize("where", PARTS)
def test_every_part_that_is_missing_or_wrong_is_an_error_of_ours(
    where: str, parts: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    """It is said when the file is loaded or, at the latest, when it predicts; some values are right, too."""
    tensors, metadata = parts
    refused = 0
    for value in (ABSENT, *WRONG):
        path = write(tmp_path / "x.safetensors", tensors, changed(metadata, where, value))
        try:
            run = maotune.load(path, clip=toy_clip())
            run.predict(Path("heap"))
            assert repr(run)
        except (CheckpointError, RecipeError):
            refused += 1
    assert refused >= 3


def test_a_good_file_loads_and_predicts(parts: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path) -> None:
    run = maotune.load(write(tmp_path / "x.safetensors", *parts), clip=toy_clip())
    assert len(run.predict(Path("heap"))) == 8


@pytest.mark.parametrize(
    ("metadata", "message"),
    [("[" * 50_000, "recursion"), ("[1]", "damaged"), ("{", "is not JSON"), ("7", "damaged"), ("{}", "one stage")],
)
def test_a_header_of_other_things(
    metadata: str, message: str, parts: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        maotune.load(write(tmp_path / "x.safetensors", parts[0], metadata), clip=toy_clip())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8, torch.bool, torch.complex64, torch.int64])
def test_numbers_of_another_kind_are_refused(
    dtype: torch.dtype, parts: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    tensors = {name: value.to(dtype) for name, value in parts[0].items()}
    run = maotune.load(write(tmp_path / "x.safetensors", tensors, parts[1]), clip=toy_clip())
    with pytest.raises(CheckpointError, match=f"plain/context is missing|context is {dtype}, here it is torch.float32"):
        run.learner(prompts="plain")


SIZES = {
    "coop": ({"context_length": 10**9}, {"context_length": 10**18}, {"context_length": -4}),
    "cocoop": ({"context_length": 10**9},),
    "vpt": ({"visual_length": 10**9}, {"depth": 10**9}),
    "ivlp": ({"visual_length": 10**9}, {"text_length": 10**9}),
    "maple": ({"context_length": 10**9}, {"depth": 10**9}),
    "proda": ({"context_length": 10**9}, {"prompts": 10**9}),
    "tcp": ({"context_length": 10**9}, {"hidden": 10**9}),
}


@pytest.mark.parametrize(
    ("learner", "settings"),
    [(learner, {**each}) for learner, cases in SIZES.items() for each in cases],
)
def test_a_recipe_that_asks_for_more_than_the_file_holds_allocates_nothing(
    learner: str, settings: dict[str, Any], parts: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    tensors, metadata = parts
    assert learner in LEARNERS
    hostile = changed(metadata, "recipe.learner", {"name": learner, **settings})
    path = write(tmp_path / "x.safetensors", tensors, hostile)
    with pytest.raises(
        (CheckpointError, RecipeError, ValueError), match=r"asks for a tensor|is -4|choose 1 to|unknown|10"
    ):
        maotune.load(path, clip=toy_clip()).learner(prompts="plain")


def test_what_a_file_names_is_not_fetched_from_the_hub(
    parts: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # where it is asked, it says so
    tensors, metadata = parts
    foreign = changed(metadata, "recipe.clip.source", "stranger/tracking-pixel")
    path = write(tmp_path / "x.safetensors", tensors, foreign)
    with pytest.raises(FileNotFoundError, match=r"has not been downloaded before.*allow_download=True.*--clip"):
        maotune.load(path)
    for allowed in ({"allow_download": True}, {"clip": "stranger/tracking-pixel"}):
        with pytest.raises(FileNotFoundError, match="the Hugging Face hub gave no stranger/tracking-pixel"):
            maotune.load(path, **allowed)


def test_prompts_go_with_the_revision_that_they_were_tuned_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HubCache(tmp_path / "hub", monkeypatch)
    assets = Path(str(files("maotune") / "assets" / "iconclip"))
    revision = hub.put("someone/clip", 1, lambda folder: shutil.copytree(assets, folder, dirs_exist_ok=True))
    small = {"shots": 1, "epochs": 1, "data__views": 1, "data__bank": False}
    run = maotune.tune("icons-weather", clip__source="someone/clip", **small)
    assert run.result.environment["clip"]["revision"] == revision
    path = run.save(tmp_path / "prompts.safetensors")
    hub.put("someone/clip", 2, lambda folder: (folder / "config.json").write_text("{}"))
    assert maotune.load(path).clip.revision == revision
    tensors, metadata = load_prompts(path)
    for wrong in ("main", "../../x", 7):
        hostile = write(tmp_path / "x.safetensors", tensors, changed(metadata, "clip.revision", wrong))
        with pytest.raises(CheckpointError, match=r"clip\.revision"):
            maotune.load(hostile)
