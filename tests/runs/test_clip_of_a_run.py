"""A run knows its CLIP: the activation that was set, and how images were prepared."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPImageProcessorPil

import maotune
from maotune.recipe import RecipeError
from maotune.train.session import CheckpointError
from tests.clip.test_load import openai_names
from tests.toys import paint_photos, toy_clip

SMALL = {"shots": 2, "epochs": 1, "data__views": 1, "learner__context_length": 4, "data__bank": False}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict beside a config that states the heads, and no quick GELU."""
    towers = {"text_cfg": {"heads": 2}, "vision_cfg": {"head_width": 8}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers}))
    torch.save(openai_names(toy_clip().model), tmp_path / "toy.pt")
    return tmp_path / "toy.pt"


def test_an_activation_that_was_set_is_that_of_the_loaded_run(weights: Path, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    given = {"clip__source": str(weights), "clip__activation": "quick_gelu"}
    run = maotune.tune(photos, folder=tmp_path / "run", **given, **SMALL)
    assert run.clip.activation == "quick_gelu"
    expected = [*run.predict(tmp_path / "heap")]
    for again in (maotune.load(tmp_path / "run"), maotune.load(tmp_path / "run", clip=weights)):
        assert again.recipe.clip.activation == again.clip.activation == "quick_gelu"
        assert [*again.predict(tmp_path / "heap")] == expected
    with pytest.raises(CheckpointError, match="or another activation"):
        maotune.load(tmp_path / "run", clip=maotune.load_clip(weights, activation="gelu"))
    with pytest.raises(RecipeError, match="'quick_gelu' or 'gelu'"):
        maotune.tune(photos, clip__activation="relu")


def test_an_activation_set_in_python_is_saved_with_the_run(weights: Path, tmp_path: Path) -> None:
    photos, clip = paint_photos(tmp_path), maotune.load_clip(weights, activation="quick_gelu")
    maotune.tune(photos, folder=tmp_path / "run", clip=clip, clip__source=str(weights), **SMALL)
    assert maotune.load(tmp_path / "run").clip.fingerprint == clip.fingerprint


def test_images_that_would_be_prepared_in_another_way_are_refused(tmp_path: Path) -> None:
    photos, model = paint_photos(tmp_path), tmp_path / "model"
    toy_clip().model.save_pretrained(model)
    CLIPImageProcessorPil(size=32, crop_size=32).save_pretrained(model)
    maotune.tune(photos, folder=tmp_path / "run", clip__source=str(model), **SMALL)
    assert maotune.load(tmp_path / "run").clip.preprocess.resize == "shortest"
    CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(model)
    with pytest.raises(CheckpointError, match=r"prepared in another way .* here 32 bicubic .* squash 32"):
        maotune.load(tmp_path / "run")
