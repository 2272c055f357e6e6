"""Distances between the class names of a mini-batch, drawn at random and by MAO (paper, Figure 5).

The paper embeds class names by Word2Vec; here they are embedded by MiniLM, the model that the hard negatives are chosen
by, and by the text tower of the CLIP that is tuned. A smaller distance by the former shows that the sampler does what
it says; by the latter, that the classes are close for the model that learns to tell them apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from maotune.experiments.first_batches import HARD, RANDOM, draw_first_batches, write_document
from maotune.mao.name_encoder import find_encoder
from maotune.recipe import Recipe
from maotune.runs.build import build_clip, templates_of

MINILM = "all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class NameEmbedding:
    """The class names in the space of one model."""

    model: str
    coordinates: list[list[float]]
    """(C, 2) embeddings of the names on the first two principal components of all C."""
    explained: list[float]
    """Share of the variance on each of the two components."""
    distances: dict[str, list[float]]
    """``random`` (the learner as published) and ``hard`` (MAO) -> of each batch of an epoch, the mean cosine distance
    between the names of two of its classes."""


@dataclass(frozen=True, kw_only=True)
class NameDistances:
    """Distances between the class names of mini-batches."""

    dataset: str
    seed: int
    b: int
    """Query images per batch of MAO."""
    k: int
    """Classes per query."""
    classes: list[str]
    """The C base classes."""
    embeddings: list[NameEmbedding]
    """By MiniLM, and by the text tower of the recipe's CLIP."""
    shown: dict[str, list[int]]
    """``random`` and ``hard`` -> the classes of the epoch's first batch."""

    def __str__(self) -> str:
        sentences = []
        for embedding in self.embeddings:
            random, hard = embedding.distances[RANDOM], embedding.distances[HARD]
            sentences.append(
                f"by {embedding.model}, two classes of a batch are {fmean(hard):.3f} ± {pstdev(hard):.3f} apart with "
                f"MAO's hard negatives and {fmean(random):.3f} ± {pstdev(random):.3f} at random "
                f"({fmean(hard) - fmean(random):+.3f})"
            )
        return f"{self.dataset}, seed {self.seed}: {'; '.join(sentences)}"

    def document(self) -> dict[str, Any]:
        """Return everything, as JSON can hold it."""
        return asdict(self)

    def save(self, folder: Path) -> Path:
        """Write ``density-DATASET-seedN.json``; return its path."""
        return write_document(folder, f"density-{self.dataset}-seed{self.seed}", self.document())


def measure_name_distances(recipe: Recipe) -> NameDistances:
    """Compare the batches of the first epoch of ``plain`` and of MAO's base stage by the names of their classes.

    The distance within a batch is the mean over the pairs of its distinct classes, so that a class that a random
    batch holds twice does not make it closer.

    Raises:
        ValueError: no such data, or it does not fit the protocol.
    """
    drawn = draw_first_batches(recipe)
    held = {
        kind: [sorted({sample.label for sample in batch}) for batch in batches]
        for kind, batches in drawn.batches.items()
    }
    clip = build_clip(recipe.clip)
    text = clip.zeroshot_text(drawn.classes, templates_of(recipe, drawn.templates))
    embedded = {
        MINILM: find_encoder().encode([name.replace("_", " ") for name in drawn.classes]),
        f"the text tower of {clip.name}": F.normalize(text.float().cpu(), dim=1),
    }
    return NameDistances(
        dataset=drawn.dataset,
        seed=recipe.seed,
        b=drawn.b,
        k=drawn.k,
        classes=list(drawn.classes),
        embeddings=[_embedding(model, names, held) for model, names in embedded.items()],
        shown={kind: batches[0] for kind, batches in held.items()},
    )


def _embedding(model: str, names: Tensor, batches: dict[str, list[list[int]]]) -> NameEmbedding:
    from sklearn.decomposition import PCA

    components = PCA(n_components=2).fit(names)
    return NameEmbedding(
        model=model,
        coordinates=components.transform(names).tolist(),
        explained=components.explained_variance_ratio_.tolist(),
        distances={kind: _within(names, of_kind) for kind, of_kind in batches.items()},
    )


def mean_distance(embedded: Tensor) -> float:
    """Return the mean of 1 - cosine over all pairs of the rows, (n, e) of length 1, n > 1."""
    n = len(embedded)
    # The squared length of the sum holds every pair twice, and n times the square of a row.
    return 1 - (float(embedded.double().sum(0).square().sum()) - n) / (n * (n - 1))


def _within(embedded: Tensor, batches: Sequence[Sequence[int]]) -> list[float]:
    within = [mean_distance(embedded[list(classes)]) for classes in batches if len(classes) > 1]
    if not within:
        raise ValueError(
            "every batch holds one class only: there is no pair of classes whose distance could be measured"
        )
    return within
