"""Load a CLIP from a file, a folder or the Hugging Face hub, without running any code from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from maotune.clip.config import check_layers, clip_config
from maotune.clip.hub import HUB_FORM, HubModel, NotDownloaded, cached_model, hub_model, is_hub_name
from maotune.clip.model import FrozenCLIP, fingerprint_of
from maotune.clip.openai_names import ACTIVATIONS, first_few, from_openai_names
from maotune.clip.preprocess import OPEN_CLIP_CONFIG, Preprocess, read_json, read_preprocess
from maotune.clip.stem import build_stem
from maotune.clip.tokenizer import Tokenizer
from maotune.clip.weights import State, find_weights, in_transformers_names, read_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPENAI = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
"""OpenAI's names of its models, and their ids on the Hugging Face hub."""
PHOTO_CLIP = "ViT-B/16"
"""The CLIP that is advised for photographs, the paper's."""
PHOTO_CLIP_SIZE = "0.6 GB"
"""What its download takes."""
_PHOTO_CLIPS = ("laion/CLIP-ViT-", "facebook/metaclip-")
"""How the hub ids of other CLIPs of photographs of any kind begin."""
_OLDER = ["*pytorch_model*.bin"]
"""Weights of models without safetensors."""
OPENAI_TOKENS = 49408
"""Size of the vocabulary of OpenAI's and open_clip's models."""
CONFIG = "config.json"
"""What transformers writes beside the weights: the sizes of the model."""
_BUILDING = threading.RLock()
"""Held while a CLIP is built: the first import of transformers' classes is not safe in several threads."""

Parts = tuple[Any, State, Tokenizer, Preprocess]
"""A transformers ``CLIPConfig``, the weights in transformers' names and float32, the tokenizer, the preprocessing."""


def load_clip(
    source: str | Path = "iconclip",
    *,
    device: str = "auto",
    dtype: str = "auto",
    activation: str = "auto",
    activation_checkpointing: bool = False,
    allow_download: bool = True,
) -> FrozenCLIP:
    """Load a frozen CLIP.

    Args:
        source: ``"iconclip"`` (the small one that ships with the package), a folder or Hugging Face id of a
            transformers or open_clip model (``OWNER/NAME``, also ``OWNER/NAME@REVISION``), OpenAI's name of one of its
            ViTs (``"ViT-B/16"``), or a file: OpenAI's TorchScript archive, or a state dict in OpenAI's, open_clip's or
            transformers' names (.pt, .bin, .safetensors).
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        dtype: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``: fp32 on a CPU, else bf16 where the GPU has it, else
            fp16.
        activation: ``"quick_gelu"``, ``"gelu"`` or ``"auto"``. A state dict does not tell which one it was trained
            with: "auto" follows ``open_clip_config.json`` beside it (which also states the number of attention heads),
            else takes quick GELU, which is OpenAI's, except in files that carry open_clip's own names
            (``open_clip_*``), and says so in the log.
        activation_checkpointing: keep fewer activations for the backward pass: less memory, more time.
        allow_download: whether a model of the Hugging Face hub that is not in its cache is downloaded.

    Raises:
        FileNotFoundError: there is no such file or folder, nor such a model on the hub.
        ValueError: not a CLIP with a vision transformer, damaged, or in parts that do not fit; or an unknown option.
    """
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype {dtype!r} is unknown: choose auto, {', '.join(DTYPES)}")
    if activation not in ("auto", *ACTIVATIONS):
        raise ValueError(f"activation {activation!r} is unknown: choose auto, {', '.join(ACTIVATIONS)}")
    target = _device(device)
    with _BUILDING:
        return _build(str(source), target, dtype, activation, activation_checkpointing, allow_download)


def _build(
    source: str,
    target: torch.device,
    dtype: str,
    activation: str,
    activation_checkpointing: bool,
    allow_download: bool,
) -> FrozenCLIP:
    path = Path(source).expanduser()
    with _model_path(source, allow_download) as (found, revision), _errors_of(found):
        config, weights, tokenizer, preprocess = _read_model(found, activation)
        config.text_config.eos_token_id = tokenizer.end
        model = _assemble(config, weights)
    model = model.to(target, DTYPES[_automatic_dtype(target) if dtype == "auto" else dtype])
    model.logit_scale.data = weights["logit_scale"].to(target)  # a temperature of 100 is 99 in bf16
    return FrozenCLIP(
        model,
        tokenizer,
        preprocess,
        name=source if source in ("iconclip", *OPENAI) or not path.exists() else path.stem,
        fingerprint=fingerprint_of(config, weights),
        revision=revision,
        activation_checkpointing=activation_checkpointing,
    )


@contextmanager
def _model_path(source: str, allow_download: bool) -> Iterator[tuple[Path, str | None]]:
    """Yield the folder or file of a model, and the revision of a model of the hub."""
    path = Path(source).expanduser()
    if source == "iconclip":
        with as_file(files("maotune") / "assets" / "iconclip") as folder:
            if not folder.is_dir():
                raise FileNotFoundError("this copy of maotune has no IconCLIP in it: install it again or name another")
            yield folder, None
    elif not (source.strip() and path.exists()):
        yield _fetch(source, allow_download)
    elif path.is_dir() or path.is_file():
        yield path, None
    else:
        raise ValueError(f"{path} is neither a file nor a folder")


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn what parts of the wrong kinds cause, in files that anybody may have written, into one error."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged, or no CLIP that can be read ({type(error).__name__}: {reason:.200})"
        ) from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is unknown, or not supported: choose auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _automatic_dtype(device: torch.device) -> str:
    if device.type == "cpu":
        return "fp32"
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def find_photo_clip() -> str | None:
    """Return the name of a CLIP for photographs that is in the cache of the Hugging Face hub; None where there is none.

    Known ones alone: OpenAI's, ViT-B/16 first, then others by name; a cache may hold CLIPs of tests or of one domain.
    """
    from huggingface_hub import constants

    folders = sorted(Path(constants.HF_HUB_CACHE).glob("models--*"))
    others = [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]
    known = [PHOTO_CLIP, *OPENAI, *(name for name in others if name.startswith(_PHOTO_CLIPS) and is_hub_name(name))]
    return next((name for name in known if cached_model(OPENAI.get(name, name), older=_OLDER)), None)


def _fetch(name: str, allow_download: bool) -> HubModel:
    """Return a model on the Hugging Face hub."""
    if name.startswith("RN") and name[2:3].isdigit():
        raise ValueError(
            f"{name} has a ResNet for its image tower: only vision transformers are supported ({', '.join(OPENAI)})"
        )
    known, _, revision = name.rpartition("@")
    identity = OPENAI.get(name) or (f"{OPENAI[known]}@{revision}" if known in OPENAI else name)
    if not is_hub_name(identity):
        raise FileNotFoundError(
            f"no file or folder {name}: give the path of a CLIP, iconclip, {HUB_FORM} on the Hugging Face hub, "
            f"or one of {', '.join(OPENAI)}"
        )
    try:
        return hub_model(identity, older=_OLDER, allow_download=allow_download)
    except NotDownloaded as error:
        raise FileNotFoundError(
            f"{error}. It is fetched from the Hugging Face hub only where you say so: clip=... or "
            "allow_download=True, on the command line --clip"
        ) from error


def _read_model(path: Path, activation: str) -> Parts:
    """Read a model from its folder, or from one file with weights and what lies beside it."""
    folder = path if path.is_dir() else path.parent
    beside = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    family = beside.get("model_type", "clip" if "text_config" in beside else None)
    if path.is_dir():
        if family not in (None, "clip") and "text_config" in beside:
            raise ValueError(f"{folder} is a {family} model; only CLIP is supported")
        path, weights = find_weights(folder, family == "clip")
    else:
        weights = read_weights(path)
    if in_transformers_names(weights):
        if family != "clip":
            has = f"a {CONFIG} of {family or 'no CLIP (it has no text_config)'}" if beside else f"no {CONFIG}"
            raise ValueError(f"{path} has transformers' names, but {has} beside it: put that of the model there")
        config = clip_config(beside)
        weights = {key: value.float() for key, value in weights.items() if not key.endswith("position_ids")}
        if activation != "auto":
            config.text_config.hidden_act = config.vision_config.hidden_act = activation
    else:
        stated = _stated_beside(folder, beside if family == "clip" else {}, weights)
        content, weights = from_openai_names(weights, stated, activation, path)
        config = clip_config(content)
    return config, weights, _tokenizer(folder, config), read_preprocess(folder, config.vision_config.image_size)


def _stated_beside(folder: Path, beside: dict[str, Any], weights: State) -> dict[str, Any] | None:
    """Return what is stated beside weights in OpenAI's names, as open_clip's ``model_cfg``; None: nothing.

    ``beside``, the content of transformers' config, is of use where it is that of a model as wide.
    """
    path = folder / OPEN_CLIP_CONFIG
    if path.is_file():
        content = read_json(path)
        stated: dict[str, Any] = content.get("model_cfg", content if "vision_cfg" in content else {})
        return stated
    if not beside or "input_resolution" in weights:  # OpenAI's archives need no config
        return None
    config = clip_config(beside)
    text, vision = config.text_config, config.vision_config
    widths = [
        value.shape[-1] for name, value in weights.items() if name.endswith((".class_embedding", "ln_final.bias"))
    ]
    if {*widths} != {text.hidden_size, vision.hidden_size}:
        return None
    return {
        "quick_gelu": text.hidden_act == "quick_gelu",
        "text_cfg": {"width": text.hidden_size, "heads": text.num_attention_heads},
        "vision_cfg": {"width": vision.hidden_size, "head_width": vision.hidden_size // vision.num_attention_heads},
    }


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


def _assemble(config: Any, weights: State) -> Any:
    """Build the transformers model with exactly these weights."""
    from transformers import CLIPModel

    check_layers(config, weights)
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
