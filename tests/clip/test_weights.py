"""Weights are chosen by what is inside the files: the named file, the right library, whole indices, any prefix."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel

from maotune.clip import FrozenCLIP, load_clip
from tests.clip.conftest import toy_config
from tests.clip.test_load import IMAGES, TEXTS, archive, openai_names, sized_model


def other_model(activation: str = "quick_gelu") -> Any:
    """The same sizes as ``sized_model``, other weights."""
    model = sized_model(activation)
    model.visual_projection.weight.data.neg_()
    return model


def tensors(model: Any) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def assert_is(clip: FrozenCLIP, model: Any) -> None:
    assert clip.fingerprint == FrozenCLIP(model).fingerprint


def save_bin(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def save_safe(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path)
    return path


@pytest.mark.parametrize("save", [save_bin, save_safe])
def test_the_named_file_is_the_one_that_is_loaded(save: Callable[..., Path], tmp_path: Path) -> None:
    sized_model().save_pretrained(tmp_path)
    named = save(tensors(other_model()), tmp_path / f"finetuned.{'bin' if save is save_bin else 'safetensors'}")
    assert_is(load_clip(named, device="cpu"), other_model())
    assert_is(load_clip(tmp_path, device="cpu"), sized_model())


def test_a_named_file_in_openais_names_is_built_as_the_config_beside_it_says(tmp_path: Path) -> None:
    config = toy_config("gelu")
    config.text_config.hidden_size, config.text_config.num_attention_heads = 128, 4
    config.vision_config.hidden_size, config.vision_config.num_attention_heads = 96, 3
    torch.manual_seed(1)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    named = save_bin(openai_names(model), tmp_path / "epoch_4.pt")
    assert_is(load_clip(named, device="cpu"), model)
    beside = json.loads((tmp_path / "config.json").read_text())
    beside["text_config"]["hidden_size"] = 64  # of another model, and of no use
    (tmp_path / "config.json").write_text(json.dumps(beside))
    with pytest.raises(ValueError, match="number of attention heads of the image tower, 96 wide, is not known"):
        load_clip(save_bin({**openai_names(model), "visual.conv1.weight": torch.zeros(96, 3, 8, 8)}, named))


def test_a_folder_of_two_libraries_gives_the_weights_that_its_config_is_for(tmp_path: Path) -> None:
    model = sized_model()
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    save_safe(openai_names(other_model()), tmp_path / "open_clip_model.safetensors")
    save_bin(tensors(model), tmp_path / "pytorch_model.bin")
    assert_is(load_clip(tmp_path, device="cpu"), model)
    (tmp_path / "config.json").unlink()
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    assert_is(load_clip(tmp_path, device="cpu"), other_model())


def test_a_file_with_the_name_of_one_library_and_the_weights_of_the_other(tmp_path: Path) -> None:
    model = sized_model()
    save_safe(openai_names(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    assert_is(load_clip(tmp_path, device="cpu"), model)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_parts_and_their_index(ending: str, tmp_path: Path) -> None:
    model = sized_model()
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    weight_map = {}
    for number in (1, 2):
        part = f"part-{number}.{ending}"
        some = dict([*tensors(model).items()][number - 1 :: 2])
        (save_safe if ending == "safetensors" else save_bin)(some, tmp_path / part)
        weight_map |= dict.fromkeys(some, part)
    name = "model.safetensors" if ending == "safetensors" else "pytorch_model.bin"
    index = tmp_path / f"{name}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_is(load_clip(tmp_path, device="cpu"), model)
    assert_is(load_clip(index, device="cpu"), model)
    (save_safe if ending == "safetensors" else save_bin)(tensors(other_model()), tmp_path / name)
    assert_is(load_clip(tmp_path, device="cpu"), other_model())


def test_an_index_whose_parts_are_gone_does_not_count(tmp_path: Path) -> None:
    model = sized_model()
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(ValueError, match=r"holds no CLIP: none of model\.safetensors"):
        load_clip(tmp_path)
    save_bin(tensors(model), tmp_path / "pytorch_model.bin")
    assert_is(load_clip(tmp_path, device="cpu"), model)
    index.write_text(json.dumps({"weight_map": {"logit_scale": "9" * 10_000}}))
    assert_is(load_clip(tmp_path, device="cpu"), model)
    for wrong in ("../model.safetensors", ""):
        index.write_text(json.dumps({"weight_map": {"logit_scale": wrong}}))
        with pytest.raises(ValueError, match="file beside it"):
            load_clip(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "clip.", "module._orig_mod.", "net.clip_model."])
@pytest.mark.parametrize(
    ("names", "save", "file"), [(tensors, save_safe, "trained.safetensors"), (openai_names, save_bin, "trained.pt")]
)
def test_a_prefix_of_all_names_is_cut(prefix: str, names: Any, save: Any, file: str, tmp_path: Path) -> None:
    model = sized_model()
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    state = {f"{prefix}{name}": value for name, value in names(model).items()}
    assert_is(load_clip(save(state, tmp_path / file), device="cpu"), model)


def test_a_tower_that_was_compiled_alone(tmp_path: Path) -> None:
    state = {name.replace("visual.", "visual._orig_mod."): value for name, value in openai_names(sized_model()).items()}
    assert_is(load_clip(save_bin(state, tmp_path / "compiled.pt"), device="cpu"), sized_model())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_archive_with_a_prefix(tmp_path: Path) -> None:
    archive({f"clip.{name}": value for name, value in openai_names(sized_model()).items()}, tmp_path / "a.pt")
    assert_is(load_clip(tmp_path / "a.pt", device="cpu"), sized_model())


def test_the_state_dict_of_a_training_checkpoint(tmp_path: Path) -> None:
    state, path = openai_names(sized_model()), tmp_path / "last.pt"
    torch.save({"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(())}}}, "net": state}, path)
    assert_is(load_clip(path, device="cpu"), sized_model())
    torch.save({"ema": state, "net": state}, path)
    with pytest.raises(ValueError, match=r"several state dicts \(ema, net\)"):
        load_clip(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"has transformers' names, but no config\.json beside it"),
        ({"hidden_size": 128}, r"has transformers' names, but a config\.json of no CLIP \(it has no text_config\)"),
        ({"model_type": "siglip", "text_config": {}}, "siglip"),
    ],
)
@pytest.mark.parametrize("of_folder", [True, False])
def test_transformers_names_without_its_config(
    config: dict[str, Any] | None, message: str, of_folder: bool, tmp_path: Path
) -> None:
    path = save_safe(tensors(sized_model()), tmp_path / "model.safetensors")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_clip(tmp_path if of_folder else path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    state = openai_names(sized_model())
    state["visual.proj"][3, 2] = value
    with pytest.raises(ValueError, match=r"broken\.pt is damaged: visual\.proj of its \d+ weights hold numbers"):
        load_clip(save_bin(state, tmp_path / "broken.pt"))


def heads_of(clip: FrozenCLIP) -> tuple[int, int]:
    config = clip.model.config
    return config.text_config.num_attention_heads, config.vision_config.num_attention_heads


@pytest.mark.parametrize(
    ("content", "heads"),
    [
        ({"model_cfg": {"text_cfg": {"heads": 4}, "vision_cfg": {"head_width": 16}}}, (4, 8)),
        ({"model_cfg": {"text_cfg": {}, "vision_cfg": {"width": 128, "layers": 3}}}, (8, 2)),
        ({"model_cfg": {"text_cfg": {"heads": 4, "width": 128}}}, (4, 2)),
        ({"embed_dim": 24, "text_cfg": {"heads": 4}, "vision_cfg": {"head_width": 32, "image_size": 32}}, (4, 4)),
    ],
)
def test_heads_of_open_clips_config(content: dict[str, Any], heads: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    assert heads_of(load_clip(save_bin(openai_names(sized_model()), tmp_path / "clip.pt"), device="cpu")) == heads


def test_an_image_size_that_is_no_multiple_of_the_patch(tmp_path: Path) -> None:
    path = save_bin(openai_names(sized_model()), tmp_path / "clip.pt")
    config = tmp_path / "open_clip_config.json"
    config.write_text('{"model_cfg": {"vision_cfg": {"image_size": [38, 38]}}}')
    assert load_clip(path, device="cpu").preprocess.size == 38
    config.write_text('{"model_cfg": {"vision_cfg": {"image_size": 40}}}')
    with pytest.raises(ValueError, match="images of 40 pixels are stated, but its positions are for 4 x 4 patches"):
        load_clip(path)


@pytest.mark.parametrize(
    ("tower", "stated", "message"),
    [
        ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type = avg, which is not supported"),
        ("vision_cfg", {"final_ln_after_pool": True}, "final_ln_after_pool = True"),
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-6}}, "norm_kwargs"),
        ("text_cfg", {"pool_type": "last"}, "text_cfg.pool_type = last"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask"),
        ("text_cfg", {"act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
        ("text_cfg", {"hf_tokenizer_name": "bert-base-uncased"}, "hf_tokenizer_name = bert-base-uncased"),
        ("text_cfg", {"width": 512}, "text_cfg.width is 512 there, and 128 by the weights"),
        ("vision_cfg", {"layers": 12}, "vision_cfg.layers is 12 there, and 3 by the weights"),
        ("vision_cfg", [12], "vision_cfg in the config beside it should be an object"),
    ],
)
def test_an_open_clip_that_is_built_in_another_way_is_refused_by_name(
    tower: str, stated: Any, message: str, tmp_path: Path
) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {tower: stated}}))
    with pytest.raises(ValueError, match=message):
        load_clip(save_bin(openai_names(sized_model()), tmp_path / "clip.pt"))


def test_settings_of_open_clip_that_change_no_feature_are_let_pass(tmp_path: Path) -> None:
    vision = {
        "patch_dropout": 0.5,
        "pool_type": "tok",
        "timm_pool": "avg",
        "attentional_pool": False,
        "act_kwargs": None,
    }
    text = {"pool_type": "argmax", "context_length": 20, "vocab_size": 49408, "heads": 2}
    content = {"model_cfg": {"quick_gelu": True, "vision_cfg": vision, "text_cfg": text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    clip = load_clip(save_bin(openai_names(sized_model()), tmp_path / "clip.pt"), device="cpu")
    torch.testing.assert_close(clip.encode_texts(TEXTS), FrozenCLIP(sized_model()).encode_texts(TEXTS))
    torch.testing.assert_close(clip.encode_image(IMAGES), FrozenCLIP(sized_model()).encode_image(IMAGES))


def test_an_empty_path_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sized_model().save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_clip("")


def test_the_first_use_may_be_in_several_threads() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor; from maotune import load_clip\n"
        "with ThreadPoolExecutor(8) as pool: clips = [*pool.map(lambda _: load_clip(), range(8))]\n"
        "assert len({clip.fingerprint for clip in clips}) == 1"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
