"""Images that are no icons are not given to IconCLIP in silence, and a model that knows nothing of them is named."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

import maotune as package
from maotune.clip.load import find_photo_clip
from maotune.recipe import RecipeError, load_recipe
from maotune.runs.clip_choice import choose_clip
from tests.cli.conftest import Maotune
from tests.toys import paint_photos, toy_clip

SMALL = {"shots": 2, "epochs": 1, "data__views": 1}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photos, and no CLIP in the cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path / "cache"))
    return paint_photos(tmp_path)


def put_into_cache(hub: Path, name: str, weights: bool = True) -> None:
    """IconCLIP under the name of another model, as the hub's client keeps it."""
    folder = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(str(files("maotune") / "assets" / "iconclip"), folder / "snapshots" / "abc")
    if not weights:
        for path in (folder / "snapshots" / "abc").glob("*.safetensors"):
            path.unlink()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")


def test_without_a_clip_for_photographs_tuning_is_refused_with_what_to_give(photos: Path) -> None:
    with pytest.raises(RecipeError, match=r"knows icons only.*--clip ViT-B/16 .*clip__source.*0\.6 GB.*iconclip"):
        package.tune(photos, **SMALL)
    for source in ("caltech101", "hub:birds"):
        assert load_recipe(None, {"data.source": source}).icon_model_by_default
    for given in ({"data.source": "icons-weather"}, {"data.source": str(photos), "clip.source": "iconclip"}):
        assert choose_clip(load_recipe(None, given)) is None
    assert choose_clip(load_recipe("vit-b16/coop", {"data.source": str(photos)})) is None


def test_the_command_stops_without_a_terminal_and_is_answered_by_an_option(
    maotune: Maotune, photos: Path, tmp_path: Path
) -> None:
    command = ("--data", photos, "--folder", tmp_path / "runs", "shots=2", "epochs=1", "data.views=1", "--json")
    refused = maotune("train", *command)
    assert refused.code == 2
    assert "--clip ViT-B/16" in refused.json["error"]
    assert maotune("zeroshot", "--data", photos).code == 2
    assert maotune("run", "base-to-new", "--data", photos, "--folder", tmp_path / "sweep", "--dry-run").code == 2
    agreed = maotune("train", *command, "--yes")
    assert agreed.code == 0, agreed.err
    assert "knows icons only" in agreed.err
    (run,) = agreed.json["runs"]
    assert run["recipe"]["clip"]["source"] == "iconclip"
    assert run["folder"] == maotune("train", *command, "--clip", "iconclip").json["runs"][0]["folder"]


def test_a_clip_for_photographs_in_the_cache_is_used(photos: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    put_into_cache(hub, "somebody/tiny-random-clip")
    put_into_cache(hub, "openai/clip-vit-base-patch16", weights=False)
    assert find_photo_clip() is None
    put_into_cache(hub, "laion/CLIP-ViT-B-32")
    assert find_photo_clip() == "laion/CLIP-ViT-B-32"
    put_into_cache(hub, "openai/clip-vit-large-patch14")
    run = package.tune(photos, **SMALL)
    assert run.recipe.clip.source == "ViT-L/14"
    assert run.recipe.name == "vit-b16/coop"


def test_a_model_that_knows_nothing_of_the_images_is_named_before_it_is_tuned(photos: Path, tmp_path: Path) -> None:
    told: list[object] = []
    run = package.tune(photos, clip=toy_clip(), callback=told.append, **SMALL)
    (warning,) = (remark for remark in run.result.remarks if "guessing" in remark)
    assert "of the 8 labelled images, where guessing gives 25 %: this model (toy 0) knows nothing" in warning
    assert any(warning in str(event) for event in told)


def test_a_model_that_knows_the_images_is_not_warned_of(maotune: Maotune, photos: Path, tmp_path: Path) -> None:
    assert maotune("data", "export", "icons-weather", tmp_path / "weather").code == 0
    run = package.tune(tmp_path / "weather", clip__source="iconclip", **SMALL)
    assert not [remark for remark in run.result.remarks if "guessing" in remark]
