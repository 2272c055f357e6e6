"""A small convolutional stem in place of the patch convolution of CLIP's image tower."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_MOST = 12
"""Convolutions of a stem: each halves the image."""


class ConvStem(nn.Module):
    """Images to a grid of patch tokens through stride-2 convolutions with group normalisation.

    It takes the place of `vision_model.embeddings.patch_embedding` in a transformers `CLIPModel`: same input, same
    output, but it learns much faster on little data than one large-stride convolution (Xiao et al., "Early
    Convolutions Help Transformers See Better", 2021).

    Shapes: images (B, 3, H, W) -> (B, hidden, H / s, W / s), with stride s = 2 ** len(channels).
    """

    def __init__(self, channels: list[int], groups: int, hidden: int) -> None:
        """Build the stem with random weights.

        Args:
            channels: width after each stride-2 convolution.
            groups: groups of the group normalisation; divides every width.
            hidden: width of the tokens, reached by a last 1 x 1 convolution.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for source, width in zip([3, *channels[:-1]], channels, strict=True):
            layers += [
                nn.Conv2d(source, width, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(groups, width),
                nn.GELU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Conv2d(channels[-1], hidden, 1)

    @property
    def weight(self) -> Tensor:
        """The last weight: transformers reads the dtype of the patch embedding from an attribute of this name."""
        return self.project.weight

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens on a grid (B, hidden, H / s, W / s) for images (B, 3, H, W)."""
        tokens: Tensor = self.project(self.layers(images))
        return tokens


def build_stem(config: Any, hidden: int) -> ConvStem:
    """Build the stem that `vision_config.stem` of a saved config.json describes.

    Args:
        config: `{"channels": [32, 64, 128, 256], "groups": 8}`.
        hidden: the image tower's `hidden_size`.

    Raises:
        ValueError: a key is missing or unknown, or a width is not a multiple of `groups`.
    """
    match config:
        case {"channels": [*channels], "groups": int(groups), **others} if not others:
            pass
        case _:
            raise ValueError(f"vision_config.stem is {config!r:.200}; it needs exactly 'channels' and 'groups'")
    if not 0 < len(channels) <= _MOST or groups < 1 or any(type(c) is not int or c < 1 or c % groups for c in channels):
        raise ValueError(f"stem widths {channels!r:.200} must be a list of 1 to {_MOST} multiples of groups = {groups}")
    return ConvStem(channels, groups, hidden)
