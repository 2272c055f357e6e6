"""The first mini-batches of a run, without tuning: the data of the paper's Figures 5 and 6."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from maotune.data.batches import RandomSampler, Sampler
from maotune.data.sets.dataset import Sample
from maotune.mao.stages import hard_draws
from maotune.recipe import Recipe
from maotune.runs.build import build_splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARD, RANDOM = "hard", "random"
"""Kinds of batches: MAO's base stage, and the learner as published."""
COLOURS = {RANDOM: "#0072B2", HARD: "#D55E00"}
"""Colour-blind-safe palette."""
TITLES = {RANDOM: "random sampling", HARD: "MAO's hard negatives"}


class BatchFigure(Protocol):
    """A figure with its data; as text, a sentence on it."""

    def document(self) -> dict[str, Any]:
        """Return the data, as JSON can hold it."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write the data and the figure; return their paths."""
        ...


@dataclass(frozen=True, kw_only=True)
class FirstBatches:
    """The batches of the first epoch."""

    dataset: str
    classes: tuple[str, ...]
    """The base classes."""
    b: int
    """Query images per batch of MAO."""
    k: int
    """Classes per query."""
    batches: dict[str, list[list[Sample]]]
    """``RANDOM`` and ``HARD`` -> batches; the queries of a hard one come first."""


def draw_first_batches(recipe: Recipe) -> FirstBatches:
    """Return the batches of the first epoch of ``plain`` and of MAO's base stage, the same as in a run of ``recipe``.

    Raises:
        ValueError: no such data, or it does not fit the protocol.
    """
    splits = build_splits(recipe).splits
    views = recipe.data.views or recipe.epochs  # as many as a run has: the draws depend on them
    shots = list(splits.shots)
    samples, sampler = hard_draws(splits.classes, shots, splits.train, recipe.mao, views=views, seed=recipe.seed)
    b, k = recipe.mao.b_and_k(len(splits.classes))
    random = RandomSampler(len(shots), recipe.batch_size, views, recipe.seed)
    batches = {RANDOM: _first_epoch(random, shots), HARD: _first_epoch(sampler, samples)}
    return FirstBatches(dataset=splits.name, classes=splits.classes, b=b, k=k, batches=batches)


def _first_epoch(sampler: Sampler, samples: list[Sample]) -> list[list[Sample]]:
    return [[samples[image] for image, _ in batch] for batch in sampler.epoch(0)]


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that size in inches."""
    from matplotlib.figure import Figure  # takes a second, and the draw_first_batches alone need none of it

    return Figure(figsize=(width, height), layout="constrained")


def paths(folder: Path, name: str, *kinds: str) -> list[Path]:
    """Return paths of files in ``folder``, which is created, with one name that all file systems allow."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"\W+", "-", name).strip("-")
    return [folder / f"{stem}.{kind}" for kind in kinds]
