"""The pretraining stream: which icons a step sees, and how a batch of them becomes pictures. Everything runs on
whole batches."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tools.icons.sources import SIZE

TEMPLATES = (
    "a photo of a {}.",
    "{}",
    "a picture of a {}.",
    "an icon of a {}.",
    "a drawing of {}.",
    "a small colourful {}.",
    "a photo of the {}.",
    "this is {}.",
)
TEMPLATE_ODDS = (0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own pixel statistics, so that one image pipeline serves both."""


class Stream:
    """Draws concepts first, then one of their pictures.

    Three pools: one-colour icons whose name shares a word with a class of the suite; all other one-colour icons; and
    coloured icons, emoji and flags. Every icon has the name that its artist gave it as its caption, not the name of
    the suite's class that it belongs to: else the model knows the classes so well that no prompt can add anything.
    Within a pool a caption's odds grow with the square root of its number of icons.
    """

    def __init__(self, work: Path, seed: int) -> None:
        folder = work / "corpus"
        index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.captions: list[str] = index["captions"]
        self.pictures = {kind: np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in ("mono", "color")}
        self.random = np.random.default_rng(seed)
        own, concept = (np.asarray(index["mono"][key]) for key in ("caption", "concept"))
        words = {word for number in set(concept.tolist()) - {-1} for word in self.captions[number].split()}
        related = np.asarray(
            [len(parts) <= 3 and not words.isdisjoint(parts) for parts in map(str.split, self.captions)]
        )
        near = related[own] | (concept >= 0)
        self.pools = {
            "related": _pool("mono", np.flatnonzero(near), own),
            "mono": _pool("mono", np.flatnonzero(~near), own),
            "color": _pool("color", np.arange(len(index["color"]["caption"])), np.asarray(index["color"]["caption"])),
        }

    def draw(self, count: int, shares: dict[str, float], per_concept: int) -> tuple[Tensor, Tensor]:
        """Draw a batch.

        Args:
            count: pictures in the batch.
            shares: pool -> its share of the batch; the shares sum to 1.
            per_concept: so many pictures are drawn of each drawn concept.

        Returns:
            pictures (B, 4, 64, 64) float32 in 0..1 with premultiplied colours (one-colour icons in black),
            captions (B,) int64.
        """
        sizes = self.random.multinomial(count // per_concept, list(shares.values())) * per_concept
        batch = np.zeros((count, SIZE, SIZE, 4), np.uint8)
        captions = np.zeros(count, np.int64)
        at = 0
        for pool, size in zip(shares, sizes, strict=True):
            entry = self.pools[pool]
            # the last odd is 1 up to rounding, hence the clip
            chosen = np.searchsorted(entry["odds"], self.random.random(size // per_concept)).clip(
                max=len(entry["captions"]) - 1
            )
            chosen = chosen.repeat(per_concept)
            offset = (self.random.random(size) * entry["counts"][chosen]).astype(np.int64)
            rows = entry["rows"][entry["starts"][chosen] + offset]
            captions[at : at + size] = entry["captions"][chosen]
            picked = self.pictures[entry["kind"]][rows]
            if entry["kind"] == "mono":
                batch[at : at + size, ..., 3] = picked
            else:
                batch[at : at + size] = picked
            at += size
        return torch.from_numpy(batch).permute(0, 3, 1, 2).float().div_(255), torch.from_numpy(captions)


def _pool(kind: str, rows: NDArray[np.int64], caption_of: NDArray[np.int64]) -> dict[str, Any]:
    """Group the rows of a pool by caption, with the odds of each caption."""
    order = rows[np.argsort(caption_of[rows], kind="stable")]
    captions, starts, counts = np.unique(caption_of[order], return_index=True, return_counts=True)
    odds = np.sqrt(counts.astype(np.float64))
    return {
        "kind": kind, "rows": order, "captions": captions, "starts": starts, "counts": counts,
        "odds": np.cumsum(odds / odds.sum()),
    }  # fmt: skip


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng) * (high - low) + low


def _pose(pictures: Tensor, scale: tuple[float, float], turn: float, shift: float, rng: torch.Generator) -> Tensor:
    count = len(pictures)
    size = _uniform(count, *scale, rng)
    angle = _uniform(count, -turn, turn, rng) * math.pi / 180
    stretch = _uniform(count, -0.12, 0.12, rng).exp()
    shear = _uniform(count, -0.12, 0.12, rng) * (turn > 0)
    cos, sin = angle.cos() / size, angle.sin() / size
    free = shift + (1 - size).clamp(min=0)
    theta = torch.stack(
        [
            torch.stack([cos * stretch, -sin + shear, _uniform(count, -1, 1, rng) * free], 1),
            torch.stack([sin, cos / stretch, _uniform(count, -1, 1, rng) * free], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def _recolor(pictures: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Give black one-colour icons a colour, turn and shade the colours of the others, sometimes draw dark outlines."""
    count = len(pictures)
    color, alpha = pictures[:, :3], pictures[:, 3:]
    ink = color.sum(dim=(1, 2, 3)) < 1e-3  # premultiplied: nothing but alpha
    first, second = torch.rand(count, 3, 1, 1, generator=rng), torch.rand(count, 3, 1, 1, generator=rng)
    dark = torch.rand(count, 1, 1, 1, generator=rng) > strength
    first = torch.where(dark, first * 0.25, first)
    second = torch.where(torch.rand(count, 1, 1, 1, generator=rng) < 0.5 * strength, second, first)
    ramp = torch.linspace(0, 1, SIZE).view(1, 1, SIZE, 1)
    painted = (first * (1 - ramp) + second * ramp) * alpha
    hue = torch.eye(3) + torch.randn(count, 3, 3, generator=rng) * 0.12 * strength
    gray = torch.full((3, 3), 1 / 3)
    fade = (_uniform(count, -0.4, 0.5, rng) * strength).view(-1, 1, 1)
    color = torch.bmm(hue * (1 - fade) + gray * fade, color.flatten(2)).view_as(color)
    color = torch.where(ink.view(-1, 1, 1, 1), painted, color)
    light = torch.rand(count, 1, 2, 2, generator=rng) * 0.7 * strength + (1 - 0.45 * strength)
    color = color * F.interpolate(light, size=(SIZE, SIZE), mode="bilinear", align_corners=True)
    thick = alpha.clone()
    outlined = torch.nonzero(torch.rand(count, generator=rng) < 0.15 * strength)[:, 0]
    thick[outlined] = F.max_pool2d(alpha[outlined], 3, 1, 1)
    return torch.cat([color.clamp(0, 1).minimum(thick), thick], 1)


def _backgrounds(count: int, clutter: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Plain, gradient, noise and clutter, by equal parts where `strength` is 1; near-white where it is 0."""
    plain = torch.rand(count, 3, 1, 1, generator=rng)
    light = torch.rand(count, 1, 1, 1, generator=rng) > 0.55 * strength
    plain = torch.where(light, 1 - plain * (0.03 + 0.35 * strength), plain)
    field = plain.expand(count, 3, SIZE, SIZE).clone()
    kind = torch.rand(count, generator=rng) / max(strength, 1e-3)
    for low, high, cells in ((0.0, 0.2, 2), (0.2, 0.35, 5), (0.35, 0.5, 11)):
        chosen = torch.nonzero((kind >= low) & (kind < high))[:, 0]
        noise = torch.rand(len(chosen), 3, cells, cells, generator=rng) - 0.5
        field[chosen] += _uniform(len(chosen), 0.2, 0.8, rng).view(-1, 1, 1, 1) * F.interpolate(
            noise, size=(SIZE, SIZE), mode="bilinear", align_corners=True
        )
    chosen = torch.nonzero((kind >= 0.5) & (kind < 0.8))[:, 0]
    for _ in range(2 if len(chosen) else 0):
        other = clutter[torch.randint(len(clutter), (len(chosen),), generator=rng)]
        other = _pose(other, (0.25, 0.6), 30.0, 0.5, rng) * _uniform(len(chosen), 0.25, 0.7, rng).view(-1, 1, 1, 1)
        field[chosen] = field[chosen] * (1 - other[:, 3:]) + other[:, :3]
    return field.clamp(0, 1)


def paint(pictures: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Compose pictures with backgrounds, poses, colours, noise and blur.

    Args:
        pictures: (B, 4, 64, 64), premultiplied.
        strength: 0: dark on nearly white, upright; 1: everything.
        rng: source of the randomness.

    Returns:
        (B, 3, 64, 64), normalised with CLIP's statistics.
    """
    count = len(pictures)
    pictures = _recolor(pictures, strength, rng)
    posed = _pose(pictures, (1 - 0.45 * strength, 1.0 + 0.1 * strength), 5 + 20 * strength, 0.02 + 0.08 * strength, rng)
    field = _backgrounds(count, pictures, strength, rng)
    image = field * (1 - posed[:, 3:]) + posed[:, :3]
    blurred = torch.nonzero(torch.rand(count, generator=rng) < 0.35 * strength)[:, 0]
    soft = F.avg_pool2d(F.pad(image[blurred], (1, 1, 1, 1), mode="replicate"), 3, 1)
    image[blurred] = torch.lerp(image[blurred], soft, _uniform(len(blurred), 0.3, 1.0, rng).view(-1, 1, 1, 1))
    grain = _uniform(count, 0, 0.08 * strength, rng).view(-1, 1, 1, 1)
    image = image + torch.randn(count, 1, SIZE, SIZE, generator=rng) * grain
    contrast = _uniform(count, 1 - 0.3 * strength, 1 + 0.2 * strength, rng).view(-1, 1, 1, 1)
    image = ((image - 0.5) * contrast + 0.5).clamp(0, 1)
    return (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
