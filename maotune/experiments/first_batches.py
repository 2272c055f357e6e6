"""The first mini-batches of a run, without tuning: the data of the paper's Figures 5 and 6."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from maotune.data.batches import RandomSampler, Sampler
from maotune.data.sets.dataset import Sample
from maotune.files import write_atomic
from maotune.mao.stages import hard_draws
from maotune.recipe import Recipe
from maotune.runs.build import build_splits

HARD, RANDOM = "hard", "random"
"""Kinds of batches: MAO's base stage, and the learner as published."""


class BatchFigure(Protocol):
    """The data of a figure, which ``maotune report`` draws; as text, a sentence on it."""

    def document(self) -> dict[str, Any]:
        """Return the data, as JSON can hold it."""
        ...

    def save(self, folder: Path) -> Path:
        """Write the data; return the path."""
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
    templates: tuple[str, ...] = ()
    """The data set's own zero-shot prompts."""
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
    return FirstBatches(
        dataset=splits.name, classes=splits.classes, b=b, k=k, templates=splits.templates, batches=batches
    )


def _first_epoch(sampler: Sampler, samples: list[Sample]) -> list[list[Sample]]:
    return [[samples[image] for image, _ in batch] for batch in sampler.epoch(0)]


def write_document(folder: Path, name: str, document: Mapping[str, Any]) -> Path:
    """Write a document as JSON into ``folder``, which is created, under a name that all file systems allow."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"\W+", "-", name).strip("-")
    path = folder / f"{stem}.json"
    write_atomic(path, json.dumps(document, indent=1) + "\n")
    return path
