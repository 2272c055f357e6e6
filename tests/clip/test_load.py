"""One model in every container comes out the same; a broken or hostile file comes out as a message."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

from maotune.clip import FrozenCLIP, load_clip
from maotune.clip.stem import build_stem
from tests.clip.conftest import toy_config, toy_model
from tests.hub import HubCache, commit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TEXTS = ["a photo of a cat.", "a hot dog"]


def openai_names(model: Any) -> dict[str, Tensor]:
    """The weights as OpenAI and open_clip name and lay them out."""
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "logit_scale": "logit_scale",
    }
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    state = {new: weights.pop(old) for old, new in names.items()}
    state["text_projection"] = weights.pop("text_projection.weight").T.contiguous()
    state["visual.proj"] = weights.pop("visual_projection.weight").T.contiguous()
    for key in [key for key in weights if ".q_proj." in key]:
        parts = [weights.pop(key.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        weights[key.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    for key, value in weights.items():
        for old, new in (
            ("text_model.final_layer_norm", "ln_final"),
            ("vision_model.pre_layrnorm", "visual.ln_pre"),
            ("vision_model.post_layernorm", "visual.ln_post"),
            ("text_model.encoder.layers", "transformer.resblocks"),
            ("vision_model.encoder.layers", "visual.transformer.resblocks"),
            ("self_attn", "attn"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            key = key.replace(old, new)  # noqa: PLW2901
        state[key] = value
    return state


def sized_model(activation: str = "quick_gelu") -> Any:
    """A toy with heads 64 wide, as OpenAI's names imply, and weights that fp16 holds exactly."""
    config = toy_config(activation)
    for part in (config.text_config, config.vision_config):
        part.hidden_size, part.num_attention_heads = 128, 2
    torch.manual_seed(3)
    model = CLIPModel(config)
    for parameter in model.parameters():
        parameter.data = (torch.randn_like(parameter) * 0.1).half().float()
    model.logit_scale.data.fill_(4.6)
    return model.eval()


@pytest.fixture(scope="module")
def reference() -> FrozenCLIP:
    return FrozenCLIP(sized_model())


def archive(weights: dict[str, Tensor], path: Path) -> None:
    """A TorchScript archive, as OpenAI publishes its models: modules in modules, numbers among the weights."""
    top = nn.Module()
    for key, value in weights.items():
        *owners, name = key.split(".")
        module = top
        for owner in owners:
            if not hasattr(module, owner):
                module.add_module(owner, nn.Module())
            module = getattr(module, owner)
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    for name, value in (("input_resolution", 32), ("context_length", 20), ("vocab_size", 49408)):  # type: ignore[assignment]
        top.register_buffer(name, torch.tensor(value))
    torch.jit.script(top).save(str(path))


def transformers_folder(path: Path) -> Path:
    sized_model().save_pretrained(path / "model")
    return path / "model"


def transformers_bin(path: Path) -> Path:
    model = sized_model()
    (path / "config.json").write_text(json.dumps(model.config.to_dict()))
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    return path


def sharded(path: Path) -> Path:
    sized_model().save_pretrained(path / "model", max_shard_size="2MB")
    assert (path / "model" / "model.safetensors.index.json").is_file()
    return path / "model"


def torchscript(path: Path) -> Path:
    archive({key: value.half() for key, value in openai_names(sized_model()).items()}, path / "ViT.pt")
    return path / "ViT.pt"


def state_dict(path: Path) -> Path:
    torch.save(openai_names(sized_model()), path / "state.pt")
    return path / "state.pt"


def training_checkpoint(path: Path) -> Path:
    state = {f"module.{key}": value for key, value in openai_names(sized_model()).items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, path / "epoch_3.pt")
    return path / "epoch_3.pt"


def half_safetensors(path: Path) -> Path:
    weights = {key: value.half() for key, value in openai_names(sized_model()).items()}
    weights["logit_scale"] = torch.tensor(4.6)
    save_file(weights, path / "clip.safetensors")
    return path / "clip.safetensors"


def open_clip_folder(path: Path) -> Path:
    save_file(openai_names(sized_model()), path / "open_clip_model.safetensors")
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3]}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    return path


def open_clip_text_below(path: Path) -> Path:
    """open_clip's newer class keeps the text tower under its own name."""
    state = {}
    for key, value in openai_names(sized_model()).items():
        state[key if key.startswith("visual.") or key == "logit_scale" else f"text.{key}"] = value
    torch.save(state, path / "custom.pt")
    return path / "custom.pt"


@pytest.mark.parametrize(
    "save",
    [
        transformers_folder,
        transformers_bin,
        sharded,
        pytest.param(torchscript, marks=pytest.mark.filterwarnings("ignore:.*torch.jit")),
        state_dict,
        training_checkpoint,
        half_safetensors,
        open_clip_folder,
        open_clip_text_below,
    ],
)
def test_every_container(save: Callable[[Path], Path], tmp_path: Path, reference: FrozenCLIP) -> None:
    clip = load_clip(save(tmp_path), device="cpu", dtype="fp32")
    torch.testing.assert_close(clip.encode_image(IMAGES), reference.encode_image(IMAGES))
    torch.testing.assert_close(clip.encode_texts(TEXTS), reference.encode_texts(TEXTS))
    assert clip.preprocess.size == 32
    assert clip.logit_scale == pytest.approx(99.484, abs=0.3)
    if save not in (torchscript,):  # there even the temperature is fp16
        assert clip.fingerprint == reference.fingerprint


def test_fingerprint_tells_models_apart(reference: FrozenCLIP) -> None:
    assert FrozenCLIP(sized_model("gelu")).fingerprint != reference.fingerprint
    changed = sized_model()
    changed.vision_model.post_layernorm.bias.data[5] += 0.001
    assert FrozenCLIP(changed).fingerprint != reference.fingerprint


def test_activation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def is_quick(path: Path, **options: Any) -> bool:
        caplog.clear()
        config = load_clip(path, device="cpu", **options).model.config
        assert config.text_config.hidden_act == config.vision_config.hidden_act
        return config.text_config.hidden_act == "quick_gelu"

    state = openai_names(sized_model())
    torch.save(state, tmp_path / "mine.pt")
    assert is_quick(tmp_path / "mine.pt")
    assert "does not tell its activation: taking quick_gelu" in caplog.text
    assert not is_quick(tmp_path / "mine.pt", activation="gelu")
    assert not caplog.text
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    assert not is_quick(tmp_path / "open_clip_pytorch_model.bin")
    assert "taking gelu" in caplog.text
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 24}}')
    assert not is_quick(tmp_path)
    assert not caplog.text
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    assert is_quick(tmp_path)


def test_numbers_of_the_pictures(tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path)
    assert load_clip(folder).preprocess.std == (0.1, 0.2, 0.3)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    assert load_clip(folder).preprocess.mean == (0.0, 0.0, 0.0)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0], "image_std": [1, 1, 1]}')
    with pytest.raises(ValueError, match="should be three numbers"):
        load_clip(folder)


def test_own_vocabulary_and_stem(tmp_path: Path) -> None:
    """What IconCLIP needs: a convolutional stem in the image tower and a vocabulary of its own."""
    vocabulary = {
        name: number for number, name in enumerate(["<unk>", "cat", "dog", "<|startoftext|>", "<|endoftext|>"])
    }
    encoding = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    encoding.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    encoding.enable_padding(length=20)
    encoding.save(str(tmp_path / "tokenizer.json"))
    config = toy_config()
    config.text_config.vocab_size = 5
    config.vision_config.stem = {"channels": [8, 16, 16], "groups": 4}
    model = CLIPModel(config)
    model.vision_model.embeddings.patch_embedding = build_stem(config.vision_config.stem, 48)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    clip = load_clip(tmp_path, device="cpu")
    assert clip.tokenize(["Cat  dog", "cat"]).ids.tolist() == [[3, 1, 2, 4], [3, 1, 4, 0]]
    assert clip.model.config.text_config.eos_token_id == 4
    vision = model.eval().vision_model(IMAGES).pooler_output
    torch.testing.assert_close(clip.encode_image(IMAGES), model.visual_projection(vision), rtol=1e-4, atol=1e-5)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"vocabulary of 5 tokens.*no tokenizer\.json"):
        load_clip(tmp_path)


def test_half_precision_keeps_the_temperature(tmp_path: Path, reference: FrozenCLIP) -> None:
    clip = load_clip(half_safetensors(tmp_path), device="cpu", dtype="bf16")
    assert clip.dtype == torch.bfloat16
    assert clip.logit_scale == pytest.approx(reference.logit_scale)
    assert clip.fingerprint == reference.fingerprint
    assert torch.cosine_similarity(clip.encode_image(IMAGES), reference.encode_image(IMAGES)).min() > 0.99


def broken(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], Path]:
    def save(path: Path) -> Path:
        state = openai_names(sized_model())
        change(state)
        torch.save(state, path / "broken.pt")
        return path / "broken.pt"

    return save


def truncated(path: Path) -> Path:
    whole = state_dict(path)
    whole.write_bytes(whole.read_bytes()[:5000])
    return whole


def text_file(path: Path) -> Path:
    (path / "page.pt").write_text("<html>404</html>")
    return path / "page.pt"


def other_family(path: Path) -> Path:
    (path / "config.json").write_text('{"model_type": "siglip", "text_config": {}, "vision_config": {}}')
    return path


def mixed_up(path: Path) -> Path:
    sized_model().save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 77
    (path / "config.json").write_text(json.dumps(config))
    return path


def no_weights(path: Path) -> Path:
    torch.save({"epoch": 3}, path / "nothing.pt")
    return path / "nothing.pt"


def resnet(state: dict[str, Tensor]) -> None:
    state["visual.layer1.0.conv1.weight"] = torch.zeros(1)


def timm(state: dict[str, Tensor]) -> None:
    state["visual.trunk.stem.weight"] = torch.zeros(1)


def no_projection(state: dict[str, Tensor]) -> None:
    del state["visual.proj"]


def no_bias(state: dict[str, Tensor]) -> None:
    del state["transformer.resblocks.1.ln_1.bias"]


def layer_scale(state: dict[str, Tensor]) -> None:
    state["visual.transformer.resblocks.0.ls_1.gamma"] = torch.zeros(48)


def narrow(state: dict[str, Tensor]) -> None:
    state["transformer.resblocks.1.mlp.c_fc.weight"] = torch.zeros(100, 128)


def odd_heads(path: Path) -> Path:
    torch.save(openai_names(toy_model()), path / "toy.pt")
    return path / "toy.pt"


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (broken(resnet), "ResNet.*only vision transformers"),
        (broken(timm), "timm"),
        (broken(no_projection), r"broken\.pt is not a CLIP.*lacks visual\.proj"),
        (broken(no_bias), r"lack text_model\.encoder\.layers\.1\.layer_norm1\.bias"),
        (broken(layer_scale), r"weights that CLIP does not have: visual.*ls_1\.gamma"),
        (odd_heads, r"number of attention heads of the text tower, 32 wide, is not known\. State it, and"),
        (broken(narrow), r"layers\.1\.mlp\.fc1\.weight is \(100, 128\) instead of \(128, 128\)"),
        (truncated, r"state\.pt can not be read as weights"),
        (text_file, r"page\.pt can not be read as weights"),
        (other_family, "siglip model; only CLIP"),
        (mixed_up, r"position_embedding\.weight is \(20, 128\) instead of \(77, 128\)"),
        (no_weights, "holds a dict without weights"),
        (lambda path: path, r"holds no CLIP: no config\.json"),
    ],
)
def test_broken_files(save: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_clip(save(tmp_path))


def test_heads_are_as_stated_and_never_guessed_for_an_unknown_width(tmp_path: Path) -> None:
    config = toy_config()
    for part, width, heads in ((config.text_config, 128, 4), (config.vision_config, 1152, 16)):
        part.hidden_size, part.num_attention_heads, part.num_hidden_layers = width, heads, 1
    torch.manual_seed(3)
    model = CLIPModel(config).eval()
    torch.save(openai_names(model), tmp_path / "wide.pt")
    with pytest.raises(ValueError, match=r"image tower, 1152 wide, is not known.*\"vision_cfg\": {\"head_width\""):
        load_clip(tmp_path / "wide.pt")

    def state(**towers: Any) -> None:
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True, **towers}}))

    state(text_cfg={"heads": 4}, vision_cfg={"head_width": 72})
    clip, reference = load_clip(tmp_path / "wide.pt", device="cpu"), FrozenCLIP(model)
    torch.testing.assert_close(clip.encode_image(IMAGES), reference.encode_image(IMAGES))
    torch.testing.assert_close(clip.encode_texts(TEXTS), reference.encode_texts(TEXTS))
    state(text_cfg={"heads": 5}, vision_cfg={"head_width": 72})
    with pytest.raises(ValueError, match=r"text tower, 128 wide, is not as open_clip_config\.json says: {'heads': 5}"):
        load_clip(tmp_path / "wide.pt")


class Attack:
    """Unpickling this carelessly makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("kind", ["pickle", "archive"])
def test_code_in_a_file_is_never_run(kind: str, tmp_path: Path) -> None:
    proof, path = tmp_path / "executed", tmp_path / "clip.pt"
    if kind == "pickle":
        torch.save({"state_dict": {"visual.proj": torch.zeros(2, 2)}, "extra": Attack(proof)}, path)
    else:
        with zipfile.ZipFile(path, "w") as archived:
            archived.writestr("clip/constants.pkl", pickle.dumps(()))
            archived.writestr("clip/data.pkl", pickle.dumps(Attack(proof)))
    with pytest.raises(ValueError, match="can not be read as weights"):
        load_clip(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8' is unknown: choose auto, fp32, bf16, fp16"),
        ({"device": "tpu9"}, "device 'tpu9' is unknown"),
        ({"device": "cuda:77"}, r"device 'cuda:77' is not there: this machine has \d+ CUDA devices"),
        ({"activation": "relu"}, "activation 'relu' is unknown: choose auto, quick_gelu, gelu"),
        ({"source": "RN50"}, "ResNet"),
    ],
)
def test_unknown_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_clip(**options)


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*missing\.pt: give the path of a CLIP, iconclip"):
        load_clip(tmp_path / "missing.pt")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="the Hugging Face hub gave no nobody/no-such-clip"):
        load_clip("nobody/no-such-clip")


def test_a_model_of_the_hub_is_taken_by_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(seed: int) -> Callable[[Path], None]:
        def save(folder: Path) -> None:
            torch.manual_seed(seed)
            CLIPModel(toy_config()).save_pretrained(folder)

        return save

    hub = HubCache(tmp_path, monkeypatch)
    old, new = (hub.put("someone/clip", number, write(number)) for number in (1, 2))
    latest, pinned = load_clip("someone/clip"), load_clip(f"someone/clip@{old}")
    assert (latest.revision, pinned.revision) == (new, old)
    assert latest.fingerprint == load_clip("someone/clip@main").fingerprint != pinned.fingerprint
    assert load_clip("iconclip").revision is None
    hub.put("openai/clip-vit-base-patch16", 3, write(3), branch="tuned")
    assert load_clip("ViT-B/16@tuned", device="cpu").revision == commit(3)
    with pytest.raises(FileNotFoundError, match=f"gave no someone/clip@{commit(9)}"):
        load_clip(f"someone/clip@{commit(9)}")
    for wrong in ("someone/clip@", "someone/clip@../../main", "someone/clip@a@b", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="OWNER/NAME@REVISION on the Hugging Face hub"):
            load_clip(wrong)
