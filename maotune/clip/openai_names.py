"""Translate a state dict in OpenAI's and open_clip's names to transformers' names and configuration."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

log = logging.getLogger(__name__)

ACTIVATIONS = ("quick_gelu", "gelu")
HEAD_WIDTHS = {
    "text": {1280: 64},
    "image": {1280: 80, 1408: 88, 1664: 104, 1792: 112},
}
"""Width of an attention head in towers wider than 1024, by width: open_clip's H, g, G and e. Up to 1024, heads are 64
wide in the published models of OpenAI (whose code allows nothing else) and of open_clip."""

_LAYER = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE_LAYERS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_PROJECTIONS = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives carry among the weights."""
_APPLIED_OR_IDLE = frozenset(
    {
        *("width", "layers", "heads", "head_width", "image_size"),
        *("mlp_ratio", "patch_size", "context_length", "vocab_size", "pos_embed_type"),  # the weights tell
        *("patch_dropout", "output_tokens", "pad_id", "attn_pooler_queries", "attn_pooler_heads"),
        *("timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"),
        *("hf_model_pretrained", "hf_pooler_type", "hf_proj_type"),
    }
)
"""Settings of a tower in open_clip's ``model_cfg`` that are applied, or change no feature of the models here."""
_USUAL = {"pool_type": ("tok", "argmax"), "proj_type": ("linear",)}
"""Values of other settings that build a tower as CLIP's are built."""


def from_openai_names(
    weights: Mapping[str, Tensor], model_config: Mapping[str, Any] | None, activation: str, path: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content of a transformers ``CLIPConfig``, and the weights in its names and float32.

    Args:
        weights: in OpenAI's or open_clip's names.
        model_config: ``model_cfg`` of the ``open_clip_config.json`` beside the file, if there is one: it decides the
            activation and the number of attention heads, which the weights do not tell.
        activation: ``quick_gelu``, ``gelu`` or ``auto``; see ``load_clip``.
        path: the file, for messages.

    Raises:
        ValueError: not a CLIP with a vision transformer, one that ``model_config`` builds in another way, or the number
            of attention heads is not known.
    """
    if any(key.startswith("visual.layer") for key in weights):
        raise ValueError(f"{path} has a ResNet for its image tower: only vision transformers are supported")
    if any(key.startswith("visual.trunk") for key in weights):
        raise ValueError(f"{path} has an image tower of timm's: only open_clip's own vision transformers are supported")
    if activation == "auto":
        activation = _activation(weights, model_config, path)
    # Newer classes of open_clip put the text tower one level lower.
    rest = {key.removeprefix("text."): value for key, value in weights.items()}
    for name in (*OPENAI_SIZES, "attn_mask"):
        rest.pop(name, None)
    if missing := [key for key in (*_OUTSIDE_LAYERS, *_PROJECTIONS) if key not in rest]:
        raise ValueError(f"{path} is not a CLIP with a vision transformer: it lacks {first_few(missing)}")
    stated = model_config or {}
    vocabulary, text_width = rest["token_embedding.weight"].shape
    width, _, _, patch = rest["visual.conv1.weight"].shape
    text = {"hidden_size": text_width, **_tower(rest, "transformer", path)}
    vision = {"hidden_size": width, **_tower(rest, "visual.transformer", path)}
    _check_tower("text_cfg", stated, text, path)
    _check_tower("vision_cfg", stated, vision, path)
    grid = math.isqrt(rest["visual.positional_embedding"].shape[0] - 1)
    resolution = weights.get("input_resolution", (stated.get("vision_cfg") or {}).get("image_size"))
    config = {
        "projection_dim": rest["text_projection"].shape[1],
        "text_config": {
            **text,
            "num_attention_heads": _heads("text", text_width, stated.get("text_cfg"), path),
            "hidden_act": activation,
            "vocab_size": vocabulary,
            "max_position_embeddings": rest["positional_embedding"].shape[0],
        },
        "vision_config": {
            **vision,
            "num_attention_heads": _heads("image", width, stated.get("vision_cfg"), path),
            "hidden_act": activation,
            "patch_size": patch,
            "image_size": _image_size(resolution, patch, grid, path),
        },
    }
    renamed = {new: rest.pop(old).float() for old, new in _OUTSIDE_LAYERS.items()}
    renamed |= {new: rest.pop(old).float().T.contiguous() for old, new in _PROJECTIONS.items()}
    unknown = []
    for key, value in rest.items():
        side, _, position = key.partition("transformer.resblocks.")
        number, _, name = position.partition(".")
        tower = {"": "text_model", "visual.": "vision_model"}.get(side)
        stem, _, kind = name.rpartition(".")
        layer = f"{tower}.encoder.layers.{number}"
        if tower and stem in _LAYER:
            renamed[f"{layer}.{_LAYER[stem]}.{kind}"] = value.float()
        elif tower and name in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for letter, part in zip("qkv", value.float().chunk(3), strict=True):
                renamed[f"{layer}.self_attn.{letter}_proj.{name.rpartition('_')[2]}"] = part
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"{path} has weights that CLIP does not have: {first_few(unknown)}")
    return config, renamed


def first_few(names: Sequence[str]) -> str:
    """Name the first five, and count the rest."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _activation(weights: Mapping[str, Tensor], model_config: Mapping[str, Any] | None, path: Path) -> str:
    if model_config is not None:
        return "quick_gelu" if model_config.get("quick_gelu", False) else "gelu"
    if all(name in weights for name in OPENAI_SIZES):
        return "quick_gelu"
    guess = "gelu" if path.name.startswith("open_clip_") else "quick_gelu"
    log.warning(
        "%s does not tell its activation: taking %s; --activation (clip.activation) gelu or quick_gelu decides",
        path,
        guess,
    )
    return guess


def _check_tower(name: str, model_config: Mapping[str, Any], measured: Mapping[str, int], path: Path) -> None:
    """Refuse what a config states of a tower that is not so, or would have to be built in another way."""
    stated = model_config.get(name) or {}
    if not isinstance(stated, Mapping):
        raise ValueError(f"{path}: {name} in the config beside it should be an object, not {stated!r:.80}")
    for key, value in stated.items():
        own = {"width": measured["hidden_size"], "layers": measured["num_hidden_layers"]}.get(key, value)
        if value != own:
            raise ValueError(
                f"{path} is not the model of the config beside it: {name}.{key} is {value} there, "
                f"and {own} by the weights"
            )
        if key not in _APPLIED_OR_IDLE and value and value not in _USUAL.get(key, ()):
            raise ValueError(f"{path}: the config beside it states {name}.{key} = {value}, which is not supported")


def _image_size(stated: Any, patch: int, grid: int, path: Path) -> int:
    """Return the size of images: as stated, if that gives as many patches as there are positions."""
    sides = {*stated} if isinstance(stated, list | tuple) else {patch * grid if stated is None else _whole(stated)}
    size = sides.pop()
    if sides or size // patch != grid:
        raise ValueError(
            f"{path}: images of {stated} pixels are stated, but its positions are for {grid} x {grid} patches of "
            f"{patch} x {patch} pixels, {patch * grid} x {patch * grid}"
        )
    return int(size)


def _whole(number: Any) -> int:
    """Return a whole number that a config or a tensor states; 0: it states none."""
    if isinstance(number, Tensor) and number.numel() == 1:
        number = number.item()
    return int(number) if isinstance(number, int | float) and math.isfinite(number) else 0


def _heads(side: str, width: int, tower_config: Mapping[str, Any] | None, path: Path) -> int:
    """Return the attention heads of a tower: as configured (with open_clip's defaults), else as its width tells."""
    if tower_config is None:
        head_width = float(HEAD_WIDTHS[side].get(width, 64 if width <= 1024 else 0))
    elif side == "text":
        heads = _whole(tower_config.get("heads", 8))
        head_width = width / heads if heads > 0 else 0.0
    else:
        head_width = _whole(tower_config.get("head_width", 64))
    if head_width < 1 or width % head_width:
        setting = '"text_cfg": {"heads": 8}' if side == "text" else '"vision_cfg": {"head_width": 64}'
        raise ValueError(
            f"{path}: the number of attention heads of the {side} tower, {width} wide, is "
            + ("not known" if tower_config is None else f"not as open_clip_config.json says: {dict(tower_config)}")
            + ". State it, and the activation, in an open_clip_config.json beside the file, for instance "
            f'{{"model_cfg": {{"quick_gelu": true, {setting}}}}}'
        )
    return int(width // head_width)


def _tower(weights: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, int]:
    numbers = {key[len(prefix) + 11 :].partition(".")[0] for key in weights if key.startswith(f"{prefix}.resblocks.")}
    first = weights.get(f"{prefix}.resblocks.0.mlp.c_fc.weight")
    if first is None:
        raise ValueError(f"{path} is not a CLIP with a vision transformer: it lacks {prefix}.resblocks")
    return {"intermediate_size": first.shape[0], "num_hidden_layers": len(numbers)}
