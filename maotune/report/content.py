"""The contents of a report: sections of text, tables, figures and pictures of classes.

Text is never markup: class names come from users, and each format escapes for itself (``render``).
"""

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd


class Cell(NamedTuple):
    """A cell as formats show it."""

    mean: str
    """Or a word."""
    std: str
    best: bool
    """Whether it is the best of its column, or within noise of it."""


@dataclass(frozen=True)
class ReportTable:
    """A table of formatted cells: numbers as ``mean`` or ``mean ± std``, or words."""

    kind: ClassVar = "table"
    """For templates."""
    name: str
    """Unique in the report: anchors and LaTeX labels are made of it."""
    caption: str
    labels: Sequence[str]
    """Headings of the label columns."""
    titles: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[str]]]
    """Labels and cells."""
    notes: Sequence[str] = ()
    """Sentences below the table."""
    groups: Sequence[str] = ()
    """Group of each column, if columns are grouped."""
    words: bool = False
    """Whether cells are words: left-aligned and wrapped."""
    marked: Collection[int] = ()
    """Columns whose best numbers are marked where there are several rows, and those within noise of them."""
    lead: int = 0
    """Number of first columns that are shown where room is short; 0: all."""

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def cells(self) -> list[list[Cell]]:
        """The cells of each row."""
        table = pd.DataFrame([[*cells] for _, cells in self.rows], dtype=object)
        marked = table[[*self.marked] if len(table) > 1 else []]
        best = marked.apply(_best).reindex(columns=table.columns, fill_value=False).to_numpy()
        return [
            [
                Cell(*(cell.partition(" ± ")[::2] if not self.words else (cell, "")), bool(mark))
                for cell, mark in zip(cells, marks, strict=True)
            ]
            for (_, cells), marks in zip(self.rows, best, strict=True)
        ]

    @property
    def slug(self) -> str:
        """The name, in characters that LaTeX takes in a label."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def rules(self) -> set[int]:
        """Rows above which a rule is drawn: wherever the first label changes."""
        first = [labels[0] for labels, _ in self.rows]
        repeated = len({*first}) < len(first)
        return {row for row in range(1, len(first)) if repeated and first[row] != first[row - 1]}

    def blocks(self, width: int = sys.maxsize) -> list[list[tuple[str, list[int]]]]:
        """Split the columns into blocks of at most ``width`` (or one group), as the paper prints Table 1.

        A block is a list of groups, each with the places of its columns.
        """
        blocks: list[list[tuple[str, list[int]]]] = [[]]
        groups = self.groups or [""] * len(self.titles)
        for group, places in groupby(range(len(groups)), key=groups.__getitem__):
            columns = [*places]
            if blocks[-1] and sum(len(others) for _, others in blocks[-1]) + len(columns) > width:
                blocks.append([])
            blocks[-1].append((group, columns))
        return blocks


def _best(cells: pd.Series) -> pd.Series:
    """Mark the highest mean of a column, and those that are nearer to it than their spreads over seeds."""
    numbers = cells.str.partition(" ± ")[[0, 2]].apply(pd.to_numeric, errors="coerce")
    means, stds = numbers[0], numbers[2].fillna(0)
    if means.isna().all():
        return means.notna()
    top = means.idxmax()
    return means[top] - means <= np.hypot(stds, stds[top])


class LineStyle(NamedTuple):
    """Colour, marker and dashes of a method, in figures and legends."""

    colour: str
    """A CSS variable of the page."""
    marker: str
    """Marker of matplotlib."""
    mark: str
    """The marker as a character, for legends."""
    dash: str = "-"


class Panel(NamedTuple):
    """One drawing."""

    label: str
    """Description for people who do not see it."""
    svg: Callable[[], str]
    """Draws it as an ``<svg>`` element; called only for a page."""


@dataclass(frozen=True, slots=True)
class FigurePanels:
    """Panels that are read together."""

    kind: ClassVar = "figure"
    name: str
    caption: str
    panels: Sequence[Panel]
    legend: Mapping[str, LineStyle] = field(default_factory=dict)
    """Meaning -> mark and colour."""
    wide: bool = False
    """Whether a panel takes the width of the page."""

    def __bool__(self) -> bool:
        return bool(self.panels)


class Picture(NamedTuple):
    """An image with a text."""

    image: Callable[[], str]
    """Reads the image as a ``data:`` URI; empty where it cannot be read."""
    title: str
    lines: tuple[str, ...] = ()
    framed: bool = False


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures with a title."""

    kind: ClassVar = "gallery"
    title: str
    pictures: Sequence[Picture]
    columns: int = 0
    """Number of pictures in each row, where rows mean something."""

    def __bool__(self) -> bool:
        return bool(self.pictures)


Part = ReportTable | FigurePanels | Gallery


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the report."""

    name: str
    title: str
    text: Sequence[str] = ()
    parts: Sequence[Part] = ()
    """In the order in which they are read; empty ones are not shown."""
    code: str = ""
    """Commands."""

    @property
    def fence(self) -> str:
        """Backticks around the commands in Markdown, more than they have themselves."""
        return "`" * (1 + max((len(run) for run in re.findall("`+", self.code)), default=2))


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is reported on a folder of runs."""

    title: str
    subtitle: str
    answer: str
    """One sentence: did MAO help here?"""
    figure: FigurePanels | None = None
    """The figure of the answer."""
    explained: str = ""
    """What the names in it are."""
    evidence: Sequence[str] = ()
    """A sentence per learner with the figures behind the answer."""
    warnings: Sequence[str] = ()
    """Sentences on what is missing or failed."""
    sections: Sequence[Section] = ()

    @property
    def tables(self) -> list[ReportTable]:
        """The tables of all sections, in order."""
        return [part for section in self.sections for part in section.parts if part and isinstance(part, ReportTable)]
