"""Example mini-batches, drawn at random and by MAO (paper, Figure 6)."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageOps

from maotune.data.sets.dataset import Sample
from maotune.experiments.first_batches import HARD, RANDOM, TITLES, FirstBatches, draw_first_batches, new_figure, paths
from maotune.files import open_atomic, write_atomic
from maotune.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, COLUMNS = 96, 8
"""Side of a picture in pixels, and pictures per row."""
HEIGHT = 1.4
"""Height of a row with its names, in sides of a picture."""


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
        drawn = self.draws
        return {
            "dataset": drawn.dataset,
            "seed": self.seed,
            "b": drawn.b,
            "k": drawn.k,
            "batches": {
                kind: [[{"image": sample.image.name, "class": drawn.classes[sample.label]} for sample in batch]
                       for batch in batches]
                for kind, batches in drawn.batches.items()
            },
        }  # fmt: skip

    def save(self, folder: Path) -> list[Path]:
        """Write ``cases-DATASET-seedN.json`` and the pictures as PNG; return their paths."""
        document, figure = paths(folder, f"cases-{self.draws.dataset}-seed{self.seed}", "json", "png")
        write_atomic(document, json.dumps(self.document(), indent=1) + "\n")
        with open_atomic(figure) as file:
            plot_example_batches(self).savefig(file, format="png", dpi=120)
        return [document, figure]


def collect_example_batches(recipe: Recipe, batches: int = 2) -> ExampleBatches:
    """Return the first ``batches`` batches of the first epoch of ``plain`` and of MAO's base stage.

    Raises:
        ValueError: ``batches`` < 1; no such data, or it does not fit the protocol.
    """
    if batches < 1:
        raise ValueError(f"batches is {batches}: give the number of mini-batches to show, 1 or more")
    drawn = draw_first_batches(recipe)
    first = {kind: of_kind[:batches] for kind, of_kind in drawn.batches.items()}
    return ExampleBatches(
        seed=recipe.seed,
        draws=FirstBatches(dataset=drawn.dataset, classes=drawn.classes, b=drawn.b, k=drawn.k, batches=first),
    )


def plot_example_batches(examples: ExampleBatches) -> "Figure":
    """Plot a column of random batches and one of MAO's: every picture in full, with its class below.

    Raises:
        UnreadableImage: a picture cannot be read any more.
    """
    batches = examples.draws.batches
    rows = max(map(len, batches.values()))
    deepest = max(-(-len(batch) // COLUMNS) for of_kind in batches.values() for batch in of_kind)
    figure = new_figure(2 * COLUMNS, rows * (1.2 * deepest + 0.4) + 0.4)
    panels = figure.subplots(rows, 2, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for column, kind in enumerate((RANDOM, HARD)):
        for row, batch in enumerate(batches[kind]):
            distinct = len({sample.label for sample in batch})
            panels[row, column].set_title(
                f"{TITLES[kind]}, batch {row + 1}: {len(batch)} images of {distinct} classes", fontsize=10
            )
            _show(panels[row, column], batch, examples.draws.classes, deepest)
    figure.suptitle(f"{examples.draws.dataset}, seed {examples.seed}", fontsize=12)
    return figure


def _show(panel: "Axes", batch: list[Sample], classes: tuple[str, ...], deep: int) -> None:
    """Draw the pictures of a batch in rows, in units of a picture's side."""
    for number, sample in enumerate(batch):
        row, x = divmod(number, COLUMNS)
        y = row * HEIGHT
        picture = ImageOps.pad(sample.image.read(), (SIDE, SIDE), color="white")
        panel.imshow(np.asarray(picture), extent=(x + 0.04, x + 0.96, y + 0.96, y + 0.04))
        name = "\n".join(textwrap.wrap(classes[sample.label].replace("_", " "), 15)[:2])
        panel.text(x + 0.5, y + 1, name, fontsize=6.5, ha="center", va="top", parse_math=False)
    panel.set_xlim(0, COLUMNS)
    panel.set_ylim(HEIGHT * deep, 0)
