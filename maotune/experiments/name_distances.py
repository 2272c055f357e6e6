"""Distances between the class names of a mini-batch, drawn at random and by MAO (paper, Figure 5).

The paper embeds class names by Word2Vec; here they are embedded by MiniLM, the model that the hard negatives are chosen
by. So a smaller distance within a batch shows that the sampler does what it says, not that another model agrees.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from maotune.experiments.first_batches import COLOURS, TITLES, draw_first_batches, new_figure, paths
from maotune.files import open_atomic, write_atomic
from maotune.mao.neighbours import class_embeddings
from maotune.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

SIDES: tuple[tuple[int, Literal["left", "right"]], ...] = ((1, "left"), (-1, "right"))
"""Side of a point on which a name is written, and its alignment."""


@dataclass(frozen=True, slots=True)
class BatchDistance:
    """Mean cosine distance between the names of two classes of a batch, over the batches of an epoch."""

    mean: float
    std: float
    """Standard deviation over batches, not over seeds."""
    batches: int


@dataclass(frozen=True, kw_only=True)
class NameDistances:
    """Distances between the class names of mini-batches."""

    dataset: str
    seed: int
    b: int
    """Query images per batch of MAO."""
    k: int
    """Classes per query."""
    embedding: str
    """Model that embeds the names."""
    classes: list[str]
    """The C base classes."""
    coordinates: list[list[float]]
    """(C, 2) embeddings of the names on the first two principal components of all C."""
    explained: list[float]
    """Share of the variance on each of the two components."""
    distance: dict[str, BatchDistance]
    """``random`` (the learner as published) and ``hard`` (MAO) -> distance."""
    shown: dict[str, list[int]]
    """``random`` and ``hard`` -> the classes of the epoch's first batch."""

    def __str__(self) -> str:
        random, hard = self.distance["random"], self.distance["hard"]
        return (
            f"{self.dataset}, seed {self.seed}: by name, two classes of a batch are {hard.mean:.3f} ± {hard.std:.3f} "
            f"apart with MAO's hard negatives and {random.mean:.3f} ± {random.std:.3f} at random "
            f"({hard.mean - random.mean:+.3f})"
        )

    def document(self) -> dict[str, Any]:
        """Return everything, as JSON can hold it."""
        return asdict(self)

    def save(self, folder: Path) -> list[Path]:
        """Write ``density-DATASET-seedN.json`` and its figure as SVG; return their paths."""
        document, figure = paths(folder, f"density-{self.dataset}-seed{self.seed}", "json", "svg")
        write_atomic(document, json.dumps(self.document(), indent=1) + "\n")
        with open_atomic(figure) as file:
            plot_name_distances(self).savefig(file, format="svg", metadata={"Date": None})
        return [document, figure]


def measure_name_distances(recipe: Recipe) -> NameDistances:
    """Compare the batches of the first epoch of ``plain`` and of MAO's base stage by the names of their classes.

    The distance within a batch is the mean over the pairs of its distinct classes, so that a class that a random
    batch holds twice does not make it closer.

    Raises:
        ValueError: no such data, or it does not fit the protocol.
    """
    from sklearn.decomposition import PCA

    drawn = draw_first_batches(recipe)
    embedded = class_embeddings([name.replace("_", " ") for name in drawn.classes])
    components = PCA(n_components=2).fit(embedded)
    held = {
        kind: [sorted({sample.label for sample in batch}) for batch in batches]
        for kind, batches in drawn.batches.items()
    }
    return NameDistances(
        dataset=drawn.dataset,
        seed=recipe.seed,
        b=drawn.b,
        k=drawn.k,
        embedding="all-MiniLM-L6-v2",
        classes=list(drawn.classes),
        coordinates=components.transform(embedded).tolist(),
        explained=components.explained_variance_ratio_.tolist(),
        distance={kind: _over_batches(embedded, batches) for kind, batches in held.items()},
        shown={kind: batches[0] for kind, batches in held.items()},
    )


def mean_distance(embedded: Tensor) -> float:
    """Return the mean of 1 - cosine over all pairs of the rows, (n, e) of length 1, n > 1."""
    n = len(embedded)
    # The squared length of the sum holds every pair twice, and n times the square of a row.
    return 1 - (float(embedded.double().sum(0).square().sum()) - n) / (n * (n - 1))


def _over_batches(embedded: Tensor, batches: Sequence[Sequence[int]]) -> BatchDistance:
    within = [mean_distance(embedded[list(classes)]) for classes in batches if len(classes) > 1]
    if not within:
        raise ValueError(
            "every batch holds one class only: there is no pair of classes whose distance could be measured"
        )
    return BatchDistance(fmean(within), pstdev(within), len(within))


def plot_name_distances(distances: NameDistances) -> "Figure":
    """Plot all class names on their principal components, with the names of one random and of one hard batch."""
    figure = new_figure(13, 6)
    panels: Sequence[Axes] = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, (kind, distance) in zip(panels, distances.distance.items(), strict=True):
        shown = distances.shown[kind]
        panel.scatter(*_columns(distances.coordinates), 9, color="#BBBBBB")
        panel.scatter(*_columns([distances.coordinates[label] for label in shown]), 22, color=COLOURS[kind])
        panel.set_title(
            f"{TITLES[kind]}: {len(shown)} of {len(distances.classes)} classes\n"
            f"mean distance {distance.mean:.3f} ± {distance.std:.3f} over {distance.batches} batches",
            fontsize=10,
        )
        panel.set_xlabel(f"first component ({distances.explained[0]:.0%} of the variance)", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(0.15, 0.05)
        panel.tick_params(labelsize=7)
    panels[0].set_ylabel(f"second component ({distances.explained[1]:.0%})", fontsize=8)
    figure.suptitle(
        f"{distances.dataset}: one mini-batch by the names of its classes ({distances.embedding})", fontsize=11
    )
    figure.draw_without_rendering()  # places the panels, which names are placed by
    figure.set_layout_engine("none")
    for panel, shown in zip(panels, distances.shown.values(), strict=True):
        _name(panel, [(distances.classes[label].replace("_", " "), distances.coordinates[label]) for label in shown])
    return figure


def _columns(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _name(panel: "Axes", points: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Write names beside their points, each at the first position where it covers no other."""
    written: list[Bbox] = []
    for name, (x, y) in points:
        places = [(side * 4, 2 + 7 * line, align) for line in (0, -1, 1, -2, 2) for side, align in SIDES]
        for right, up, align in places:
            text = panel.annotate(
                name, (x, y), (right, up), textcoords="offset points", ha=align, fontsize=7, parse_math=False
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in written):
                break
            text.remove()
        else:  # no free place: it is written over another
            text = panel.annotate(name, (x, y), (4, 2), textcoords="offset points", fontsize=7, parse_math=False)
            box = text.get_window_extent()
        written.append(box)
