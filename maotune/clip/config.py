"""The sizes of a model, as a config states them: checked before anything of these sizes is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from maotune.clip.openai_names import ACTIVATIONS

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_TOWERS = {
    "text_config": ("text_model", (*_SIZES, "vocab_size", "max_position_embeddings")),
    "vision_config": ("vision_model", (*_SIZES, "image_size", "patch_size", "num_channels")),
}
"""Sizes that are read of each tower, and the beginning of the names of its weights."""
_OTHERS = ("hidden_act", "layer_norm_eps", "stem", "bos_token_id", "eos_token_id", "pad_token_id")
_LARGEST = 1 << 24
"""Of a size. The largest vocabularies have a quarter of a million tokens."""


def clip_config(content: Mapping[str, Any]) -> Any:
    """Return the transformers ``CLIPConfig`` with the settings in ``content`` that features depend on.

    Raises:
        ValueError: a size that is no whole number above 0, another activation, or parts that do not fit.
    """
    from transformers import CLIPConfig  # a second of import that only loading needs

    plain: dict[str, Any] = {key: content[key] for key in ("projection_dim",) if key in content}
    for name, (_, sizes) in _TOWERS.items():
        stated = content.get(name) or {}
        if not isinstance(stated, Mapping):
            raise ValueError(f"config.json: {name} should be an object, not {stated!r:.80}")
        plain[name] = {key: stated[key] for key in (*sizes, *_OTHERS) if key in stated}
        _check_sizes(f"{name}.", plain[name], sizes)
    _check_sizes("", plain, ("projection_dim",))
    try:
        config = CLIPConfig.from_dict(plain)
    except Exception as error:  # transformers raises several kinds
        reason = " ".join(str(error).split())
        raise ValueError(f"config.json describes no CLIP that can be built: {reason:.300}") from error
    for part in (config.text_config, config.vision_config):
        if part.hidden_act not in ACTIVATIONS:
            raise ValueError(f"the activation {part.hidden_act!r} is not supported: only {' and '.join(ACTIVATIONS)}")
        if not 0 < part.layer_norm_eps < 1:
            raise ValueError(
                f"config.json: layer_norm_eps is {part.layer_norm_eps}; it should be a small number above 0"
            )
    return config


def check_layers(config: Any, weights: Iterable[str]) -> None:
    """Compare the layers that a config states with those that there are weights of.

    Raises:
        ValueError: they differ.
    """
    names = list(weights)
    for name, (model, _) in _TOWERS.items():
        stated, prefix = getattr(config, name).num_hidden_layers, f"{model}.encoder.layers."
        numbers = {key[len(prefix) :].partition(".")[0] for key in names if key.startswith(prefix)}
        if stated != len(numbers):
            raise ValueError(f"config.json: {name}.num_hidden_layers is {stated}, but the weights have {len(numbers)}")


def _check_sizes(where: str, settings: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        value = settings.get(name, 1)
        if type(value) is not int or not 0 < value <= _LARGEST:
            raise ValueError(
                f"config.json: {where}{name} is {value!r:.80}; it should be a whole number from 1 to {_LARGEST:,}"
            )
