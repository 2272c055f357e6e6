"""Figures 5 and 6 of the paper: mini-batches at random and by MAO, by the names of their classes and as pictures."""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from maotune.experiments.example_batches import BatchPictures
from maotune.experiments.first_batches import HARD, RANDOM
from maotune.experiments.name_distances import NameDistances, NameEmbedding
from maotune.report.content import FigurePanels, Gallery, LineStyle, Picture, ReportTable, Section
from maotune.report.drawing import COLOURS, HEIGHT, draw_panels, place_names
from maotune.report.frame import short_names
from maotune.report.sentences import joined, signed
from maotune.runs.record import read_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {RANDOM: LineStyle("blue", "o", "●"), HARD: LineStyle("orange", "D", "◆")}
TITLES = {RANDOM: "random sampling", HARD: "MAO's hard negatives"}
Document = TypeVar("Document", NameDistances, BatchPictures)
log = logging.getLogger(__name__)


def batch_sections(folder: Path) -> list[Section]:
    """Return a section on the distances and one on the pictures of batches whose data are in ``folder``, or below."""
    sections = []
    if density := _read(folder, "density", NameDistances):
        text = (
            _say_closer(density),
            "How close the classes of a mini-batch are by name: mean cosine distance between two of its classes, over "
            "the batches of the first epoch. MiniLM chooses the hard negatives; CLIP learns to tell them apart.",
        )
        figures = [_plot_distances(document) for document in density]
        sections.append(Section("density", "density: counterpart of Figure 5", text, [_distances(density), *figures]))
    if cases := _read(folder, "cases", BatchPictures):
        shown = (
            "The first mini-batch of a run: at random, and by MAO, where each query (framed) begins a row with an "
            "image of each of the K − 1 classes whose names are nearest to its own.",
        )
        galleries = [gallery for document in cases for gallery in _galleries(document)]
        sections.append(Section("cases", "cases: counterpart of Figure 6", shown, galleries))
    return sections


def _read(folder: Path, name: str, kind: type[Document]) -> list[Document]:
    """Read what an experiment has written; what cannot be read is left out with a warning."""
    documents = []
    for path in sorted([*folder.glob(f"{name}-*-seed*.json"), *folder.glob(f"*/{name}-*-seed*.json")]):
        try:
            documents.append(read_record(kind, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            log.warning("%s is left out, `maotune run %s` writes it anew: %s", path.name, name, error)
    return documents


def _say_closer(documents: Sequence[NameDistances]) -> str:
    """Say on how many figures hard batches are closer than random ones, by each embedding."""
    closer: dict[str, list[bool]] = {}
    for embedding in (embedding for document in documents for embedding in document.embeddings):
        means = {kind: fmean(embedding.distances[kind]) for kind in STYLES}
        closer.setdefault(embedding.model, []).append(means[HARD] < means[RANDOM])
    counts = joined([f"on {sum(of)} of {len(of)} by {model}" for model, of in closer.items()])
    return f"MAO's mini-batches hold classes with closer names than random ones {counts}."


def _distances(documents: Sequence[NameDistances]) -> ReportTable:
    """Mean distances of all batches by data set, seed and embedding."""
    names = short_names(dict.fromkeys(document.dataset for document in documents))
    rows = []
    for document in documents:
        cells = []
        for embedding in document.embeddings:
            random, hard = (fmean(embedding.distances[kind]) for kind in (RANDOM, HARD))
            cells += [f"{random:.3f}", f"{hard:.3f}", signed(hard - random, 3)]
        rows.append(((names[document.dataset], str(document.seed)), cells))
    models = [embedding.model for embedding in documents[0].embeddings]
    return ReportTable(
        "density-distances",
        "Mean distance between the names of two classes of a batch.",
        ("data set", "seed"),
        ("random", "hard", "hard − random") * len(models),
        rows,
        (),
        [model for model in models for _ in range(3)],
    )


def _plot_distances(document: NameDistances) -> FigurePanels:
    """Histograms of the batch distances by each embedding, and the names on two components of the first."""
    names = [name.replace("_", " ") for name in document.classes]
    first = document.embeddings[0]
    points = np.array(first.coordinates)

    def histogram(axes: "Axes", embedding: NameEmbedding) -> None:
        values = [embedding.distances[kind] for kind in STYLES]
        edges = np.histogram_bin_edges(np.concatenate(values), 16)
        for of_kind, style in zip(values, STYLES.values(), strict=True):
            shade = COLOURS[style.colour]
            axes.hist(of_kind, edges.tolist(), weights=[1 / len(of_kind)] * len(of_kind), color=shade, alpha=0.6)
            axes.axvline(fmean(of_kind), color=shade, linewidth=1.2, linestyle="--")
        axes.set(xlabel="mean distance of two classes", ylabel="share of the batches", title=embedding.model)

    def names_of(axes: "Axes", kind: str) -> None:
        shown = document.shown[kind]
        axes.plot(*points.T, ".", color=COLOURS["line"], markersize=4)
        axes.plot(*points[shown].T, STYLES[kind].marker, color=COLOURS[STYLES[kind].colour], markersize=3.5)
        axes.margins(0.15, 0.08)
        axes.autoscale_view()
        labels = [(names[label], (points[label][0], points[label][1])) for label in shown]
        place_names(axes, HEIGHT, labels, [place for _, place in labels])
        axes.set(title=f"{TITLES[kind]}: {len(shown)} of {len(names)} classes", xticks=[], yticks=[])

    share = "; ".join(f"{of:.0%}" for of in first.explained)
    title = f"{document.dataset}, seed {document.seed}"
    panels = [
        *(
            (f"{title}: distances by {embedding.model}", partial(histogram, embedding=embedding), HEIGHT)
            for embedding in document.embeddings
        ),
        *((f"{title}: the first batch, {TITLES[kind]}", partial(names_of, kind=kind), HEIGHT) for kind in STYLES),
    ]
    return draw_panels(
        f"density-{document.dataset}-seed{document.seed}",
        f"{title}: histograms of the batch distances, their means dashed; the names of the first batch of each kind "
        f"among all classes on the first two principal components of {first.model} ({share} of the variance).",
        panels,
        {TITLES[kind]: style for kind, style in STYLES.items()},
    )


def _galleries(document: BatchPictures) -> Iterator[Gallery]:
    for kind in (HARD, RANDOM):
        batch, k = document.batches[kind][0], document.k
        rows = kind == HARD and len(batch) == document.b * k
        pictures = [
            Picture(partial(_inline, entry.get("picture", "")), entry.get("class", ""), framed=rows and place % k == 0)
            for place, entry in enumerate(batch)
        ]
        distinct = len({entry.get("class") for entry in batch})
        title = f"{document.dataset}, {TITLES[kind]}: {len(batch)} images of {distinct} classes"
        yield Gallery(title, pictures, columns=k if rows else 8)


def _inline(uri: str) -> str:
    """Return a picture that is in the document itself; a page asks for nothing from elsewhere."""
    return uri if uri.startswith("data:image/webp;base64,") else ""
