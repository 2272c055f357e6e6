"""Load a CLIP from a file, a folder or the Hugging Face hub, without running any code from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from maotune.clip.model import FrozenCLIP, Preprocess, fingerprint_of
from maotune.clip.openai_names import ACTIVATIONS, first_few, from_openai_names
from maotune.clip.stem import build_stem
from maotune.clip.tokenizer import Tokenizer
from maotune.clip.torchscript import is_torchscript, read_torchscript

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPENAI = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
"""OpenAI's names of its models, and their ids on the Hugging Face hub."""
OPENAI_TOKENS = 49408
"""Size of the vocabulary of OpenAI's and open_clip's models."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
"""What open_clip writes beside the weights: the sizes of the model, and how images are normalised."""
WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")

State = dict[str, Tensor]
Parts = tuple[Any, State, Tokenizer, Preprocess]
"""A transformers ``CLIPConfig``, the weights in transformers' names and float32, the tokenizer, the preprocessing."""


def load_clip(
    source: str | Path = "iconclip",
    *,
    device: str = "auto",
    dtype: str = "auto",
    activation: str = "auto",
    activation_checkpointing: bool = False,
) -> FrozenCLIP:
    """Load a frozen CLIP.

    Args:
        source: ``"iconclip"`` (the small one that ships with the package), a folder or Hugging Face id of a
            transformers or open_clip model, OpenAI's name of one of its ViTs (``"ViT-B/16"``), or a file: OpenAI's
            TorchScript archive, or a state dict in OpenAI's, open_clip's or transformers' names (.pt, .bin,
            .safetensors).
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        dtype: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``: fp32 on a CPU, else bf16 where the GPU has it, else
            fp16.
        activation: ``"quick_gelu"``, ``"gelu"`` or ``"auto"``. A state dict does not tell which one it was trained
            with: "auto" follows ``open_clip_config.json`` beside it (which also states the number of attention heads),
            else takes quick GELU, which is OpenAI's, except in files that carry open_clip's own names
            (``open_clip_*``), and says so in the log.
        activation_checkpointing: keep fewer activations for the backward pass: less memory, more time.

    Raises:
        FileNotFoundError: there is no such file or folder, nor such a model on the hub.
        ValueError: not a CLIP with a vision transformer, damaged, or in parts that do not fit; or an unknown option.
    """
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype {dtype!r} is unknown: choose auto, {', '.join(DTYPES)}")
    if activation not in ("auto", *ACTIVATIONS):
        raise ValueError(f"activation {activation!r} is unknown: choose auto, {', '.join(ACTIVATIONS)}")
    target = _device(device)
    if str(source) == "iconclip":
        with as_file(files("maotune") / "assets" / "iconclip") as folder:
            if not folder.is_dir():
                raise FileNotFoundError("this copy of maotune has no IconCLIP in it: install it again or name another")
            config, weights, tokenizer, preprocess = _read_folder(folder, activation)
    elif (path := Path(source).expanduser()).is_file():
        config, weights, tokenizer, preprocess = _read_file(path, activation)
    else:
        config, weights, tokenizer, preprocess = _read_folder(
            path if path.is_dir() else _fetch(str(source)), activation
        )
    config.text_config.eos_token_id = tokenizer.end
    model = _assemble(config, weights).to(target, DTYPES[_automatic_dtype(target) if dtype == "auto" else dtype])
    model.logit_scale.data = weights["logit_scale"].to(target)  # a temperature of 100 is 99 in bf16
    return FrozenCLIP(
        model,
        tokenizer,
        preprocess,
        name=str(source) if str(source) in ("iconclip", *OPENAI) or not path.exists() else path.stem,
        fingerprint=fingerprint_of(config, weights),
        activation_checkpointing=activation_checkpointing,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown: choose auto, cpu, cuda, cuda:0, ...") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _automatic_dtype(device: torch.device) -> str:
    if device.type == "cpu":
        return "fp32"
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _fetch(name: str) -> Path:
    """Return the local folder of a model on the Hugging Face hub; what is in the cache is not downloaded again."""
    from huggingface_hub import snapshot_download  # slow to import, and most users never need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    identity = OPENAI.get(name, name)
    if name.startswith("RN") and name[2:3].isdigit():
        raise ValueError(
            f"{name} has a ResNet for its image tower: only vision transformers are supported ({', '.join(OPENAI)})"
        )
    if name.startswith((".", "/", "~")) or identity.count("/") != 1:
        raise FileNotFoundError(
            f"no file or folder {name}: give the path of a CLIP, iconclip, owner/name on the Hugging Face hub, "
            f"or one of {', '.join(OPENAI)}"
        )
    wanted = ["*.json", "*.safetensors"]
    try:
        try:
            folder = Path(snapshot_download(identity, allow_patterns=wanted, local_files_only=True))
            if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
                return folder
        except LocalEntryNotFoundError:
            pass
        folder = Path(snapshot_download(identity, allow_patterns=wanted))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(identity, allow_patterns=[*wanted, "*pytorch_model.bin"]))
        return folder
    except (OSError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{name} is no file or folder here, and the Hugging Face hub gave no {identity} "
            f"({type(error).__name__}): check the name and the network, or give the path of a downloaded CLIP"
        ) from error


def _read_folder(folder: Path, activation: str) -> Parts:
    """Read a transformers or open_clip model from a folder."""
    content = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "text_config" not in content:
        for name in WEIGHTS:
            if (folder / name).is_file():
                return _read_file(folder / name, activation)
        raise ValueError(f"{folder} holds no CLIP: no config.json of transformers' and none of {', '.join(WEIGHTS)}")
    if content.get("model_type", "clip") != "clip":
        raise ValueError(f"{folder} is a {content['model_type']} model; only CLIP is supported")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_json(index)["weight_map"].values()))
    else:
        names = [name for name in WEIGHTS if (folder / name).is_file()][:1]
    if not names:
        raise ValueError(f"{folder} has a config.json but none of {', '.join(WEIGHTS)}")
    weights: State = {}
    for name in names:
        weights |= _read_tensors(folder / name)
    config = _config(content)
    weights = {key: value.float() for key, value in weights.items() if not key.endswith("position_ids")}
    if activation != "auto":
        config.text_config.hidden_act = config.vision_config.hidden_act = activation
    return config, weights, _tokenizer(folder, config), _preprocess(folder, config)


def _read_file(path: Path, activation: str) -> Parts:
    """Read OpenAI's archive, or a state dict."""
    weights = _read_tensors(path)
    if "text_model.embeddings.token_embedding.weight" in weights:
        if (path.parent / "config.json").is_file():
            return _read_folder(path.parent, activation)
        raise ValueError(f"{path} has transformers' names, but no config.json beside it")
    beside = path.parent / OPEN_CLIP_CONFIG
    model_config = _json(beside).get("model_cfg", {}) if beside.is_file() else None
    content, renamed = from_openai_names(weights, model_config, activation, path)
    config = _config(content)
    return config, renamed, _tokenizer(path.parent, config), _preprocess(path.parent, config)


def _read_tensors(path: Path) -> State:
    """Read all tensors of a file, by name; nothing in the file is executed."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if is_torchscript(path):
            return read_torchscript(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes in three readers
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{path} can not be read as weights ({type(error).__name__}: {reason})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds a {type(loaded).__name__} without weights, not the state dict of a CLIP")
    weights = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if all(key.startswith("module.") for key in weights):  # saved while training on several devices
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object")
    return content


def _config(content: dict[str, Any]) -> Any:
    from transformers import CLIPConfig  # a second of import that only loading needs

    config = CLIPConfig.from_dict(content)
    for part in (config.text_config, config.vision_config):
        if part.hidden_act not in ACTIVATIONS:
            raise ValueError(f"the activation {part.hidden_act!r} is not supported: only {' and '.join(ACTIVATIONS)}")
    return config


def _tokenizer(folder: Path, config: Any) -> Tokenizer:
    text = config.text_config
    if text.vocab_size == OPENAI_TOKENS:
        return Tokenizer.openai(text.max_position_embeddings)
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(folder / "tokenizer.json", text.max_position_embeddings)
    raise ValueError(
        f"the text tower has a vocabulary of {text.vocab_size} tokens instead of OpenAI's {OPENAI_TOKENS}, "
        f"and {folder} has no tokenizer.json for it"
    )


def _preprocess(folder: Path, config: Any) -> Preprocess:
    size = config.vision_config.image_size
    for name, prefix in (("preprocessor_config.json", "image_"), (OPEN_CLIP_CONFIG, "")):
        if (folder / name).is_file():
            content = _json(folder / name)
            content = content.get("preprocess_cfg", content)
            if {f"{prefix}mean", f"{prefix}std"} <= set(content):
                mean, std = (_three(content[prefix + key], folder / name) for key in ("mean", "std"))
                return Preprocess(size, mean, std)
    return Preprocess(size)


def _three(values: Any, path: Path) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError(f"{path}: {values} should be three numbers")
    red, green, blue = map(float, values)
    return red, green, blue


def _assemble(config: Any, weights: State) -> Any:
    """Build the transformers model with exactly these weights."""
    from transformers import CLIPModel

    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        model = CLIPModel(config)
        if stem := getattr(config.vision_config, "stem", None):
            model.vision_model.embeddings.patch_embedding = build_stem(stem, config.vision_config.hidden_size)
    expected = model.state_dict()
    if missing := [key for key in expected if key not in weights]:
        raise ValueError(f"the weights lack {first_few(missing)}")
    if unknown := [key for key in weights if key not in expected]:
        raise ValueError(f"the weights have more than a CLIP of this size: {first_few(unknown)}")
    wrong = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if weights[key].shape != expected[key].shape
    ]
    if wrong:
        raise ValueError(f"the weights do not fit together: {first_few(wrong)}")
    model.load_state_dict(weights, assign=True)
    for embeddings in (model.text_model.embeddings, model.vision_model.embeddings):
        embeddings.position_ids = torch.arange(embeddings.position_ids.shape[-1])[None]  # not among the weights
    return model
