"""The mini-batches that a run would be tuned on, without tuning: what Figures 5 and 6 of the paper look at."""

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
"""MAO's batches of the base stage; those of the learner as published."""
COLOURS = {RANDOM: "#0072B2", HARD: "#D55E00"}
"""Told apart by the colour-blind, too."""
TITLES = {RANDOM: "random sampling", HARD: "MAO's hard negatives"}


class BatchFigure(Protocol):
    """Something to look at, with what it shows in numbers; as text, a sentence on it."""

    def document(self) -> dict[str, Any]:
        """What it shows, as JSON can hold it."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write the document and the figure; returns their paths."""
        ...


@dataclass(frozen=True, kw_only=True)
class FirstBatches:
    """The first epoch, image by image."""

    dataset: str
    classes: tuple[str, ...]
    """The base classes."""
    b: int
    """Query images a batch of MAO's."""
    k: int
    """Classes a query."""
    batches: dict[str, list[list[Sample]]]
    """By ``RANDOM`` and ``HARD``: its batches, the queries of a hard one first."""


def draw_first_batches(recipe: Recipe) -> FirstBatches:
    """The batches of the first epoch of ``plain`` and of MAO's base stage, the same that a run of ``recipe`` takes.

    Raises:
        ValueError: no such data, or it does not fit the protocol.
    """
    splits, _ = build_splits(recipe)
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
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure  # takes a second, and the draw_first_batches alone need none of it

    return Figure(figsize=(width, height), layout="constrained")


def paths(folder: Path, name: str, *kinds: str) -> list[Path]:
    """Files in ``folder``, which is made, of one name without characters that file systems dislike."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"\W+", "-", name).strip("-")
    return [folder / f"{stem}.{kind}" for kind in kinds]
