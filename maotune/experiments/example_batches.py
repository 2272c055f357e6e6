"""Example mini-batches, drawn at random and by MAO (paper, Figure 6)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from maotune.data.images.thumbnail import thumbnail_uri
from maotune.data.sets.dataset import Sample
from maotune.experiments.first_batches import HARD, FirstBatches, draw_first_batches, write_document
from maotune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class BatchPictures:
    """The contents of batches, as JSON can hold them."""

    dataset: str
    seed: int
    b: int
    """Query images per batch of MAO."""
    k: int
    """Classes per query."""
    batches: dict[str, list[list[dict[str, str]]]]
    """``random`` and ``hard`` -> of each image of each batch its name (``image``), ``class`` and ``picture``. Where a
    hard batch has b K images, each query comes before its neighbours."""


@dataclass(frozen=True, kw_only=True)
class ExampleBatches:
    """The first batches of an epoch."""

    seed: int
    draws: FirstBatches
    """Only the batches that are shown."""

    def __str__(self) -> str:
        shown = ", ".join(f"{len(batches)} {kind}" for kind, batches in self.draws.batches.items())
        return f"{self.draws.dataset}, seed {self.seed}: {shown} mini-batches"

    def document(self) -> dict[str, Any]:
        """Return the contents of the batches, as JSON can hold them."""
        return asdict(self._pictures(lambda sample: {}))

    def save(self, folder: Path) -> Path:
        """Write ``cases-DATASET-seedN.json`` with small pictures; return its path.

        Raises:
            UnreadableImage: a picture cannot be read any more.
        """
        shown = self._pictures(lambda sample: {"picture": thumbnail_uri(sample.image.read())})
        return write_document(folder, f"cases-{self.draws.dataset}-seed{self.seed}", asdict(shown))

    def _pictures(self, more: Callable[[Sample], dict[str, str]]) -> BatchPictures:
        drawn = self.draws
        batches = {
            kind: [
                [
                    {"image": sample.image.name, "class": drawn.classes[sample.label], **more(sample)}
                    for sample in self._in_rows(kind, batch)
                ]
                for batch in of_kind
            ]
            for kind, of_kind in drawn.batches.items()
        }
        return BatchPictures(dataset=drawn.dataset, seed=self.seed, b=drawn.b, k=drawn.k, batches=batches)

    def _in_rows(self, kind: str, batch: list[Sample]) -> list[Sample]:
        """Return a whole batch of Eq. 4 query by query, each before its K - 1 neighbours, as it is drawn in columns."""
        b, k = self.draws.b, self.draws.k
        whole = kind == HARD and len(batch) == b * k
        return [batch[query + b * place] for query in range(b) for place in range(k)] if whole else batch


def collect_example_batches(recipe: Recipe, batches: int = 2) -> ExampleBatches:
    """Return the first ``batches`` batches of the first epoch of ``plain`` and of MAO's base stage.

    Raises:
        ValueError: ``batches`` < 1; no such data, or it does not fit the protocol.
    """
    if batches < 1:
        raise ValueError(f"batches is {batches}: give the number of mini-batches to show, 1 or more")
    drawn = draw_first_batches(recipe)
    first = {kind: of_kind[:batches] for kind, of_kind in drawn.batches.items()}
    return ExampleBatches(seed=recipe.seed, draws=replace(drawn, batches=first))
