"""The contents of a report: sections of text, tables, figures and pictures of classes.

Text is never markup: class names come from users, and each format escapes for itself (``render``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class ReportTable:
    """A table of formatted cells: numbers as ``mean`` or ``mean ± std``, or words."""

    name: str
    """Unique in the report: anchors and LaTeX labels are made of it."""
    caption: str
    data: pd.DataFrame
    """Cells as text. The index levels are labels of rows; the columns have two levels, group and column."""
    notes: tuple[str, ...] = ()
    words: bool = False
    """Whether cells are words: left-aligned and wrapped."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Places (row, column) of the best cells of their columns."""

    @property
    def rules(self) -> set[int]:
        """Rows above which a rule is drawn: wherever the first label changes."""
        first = [str(label) for label in self.data.index.get_level_values(0)]
        return (
            {row for row in range(1, len(first)) if first[row] != first[row - 1]}
            if len({*first}) < len(first)
            else set()
        )

    def blocks(self, width: int) -> list[range]:
        """Split the columns into blocks of at most ``width`` (or one group), as the paper prints Table 1."""
        groups = list(dict.fromkeys(self.data.columns.get_level_values(0)))
        sizes = [int((self.data.columns.get_level_values(0) == group).sum()) for group in groups]
        blocks = [range(0)]
        for size in sizes:
            last = blocks[-1]
            if len(last) and len(last) + size > width:
                blocks.append(range(last.stop, last.stop + size))
            else:
                blocks[-1] = range(last.start, last.stop + size)
        return blocks


def make_table(
    name: str,
    caption: str,
    labels: Sequence[str],
    columns: Sequence[tuple[str, str]],
    rows: Sequence[tuple[Sequence[str], Sequence[str]]],
    notes: Sequence[str] = (),
    *,
    words: bool = False,
    mark_best: int = 0,
) -> ReportTable:
    """Make a table.

    Args:
        name: see ``ReportTable``.
        caption: see ``ReportTable``.
        labels: headings of the label columns.
        columns: group and title of each column.
        rows: labels and cells.
        notes: sentences below the table.
        words: whether cells are words.
        mark_best: the highest numbers of so many first columns are marked, in tables of several rows.
    """
    index = pd.MultiIndex.from_tuples([tuple(row) for row, _ in rows], names=list(labels))
    data = pd.DataFrame(
        [list(cells) for _, cells in rows], index, pd.MultiIndex.from_tuples(list(columns)), dtype=object
    )
    best: set[tuple[int, int]] = set()
    for place in range(mark_best if len(rows) > 1 else 0):
        means = pd.to_numeric(data.iloc[:, place].str.split(" ").str[0], errors="coerce")
        best |= {(row, place) for row, mean in enumerate(means) if mean == means.max()}
    return ReportTable(name, caption, data, tuple(notes), words, frozenset(best))


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing."""

    label: str
    """Description for people who do not see it."""
    svg: Callable[[], str]
    """Draws it as an ``<svg>`` element; called only for a page."""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A mark of a legend, its colour, and its meaning."""

    mark: str
    colour: str
    label: str


@dataclass(frozen=True, slots=True)
class FigurePanels:
    """Panels that are read together."""

    name: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassPicture:
    """A class with one of its images."""

    image: Callable[[], str]
    """Reads the image as a ``data:`` URI; empty where it cannot be read."""
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the report."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[FigurePanels, ...] = ()
    galleries: tuple[tuple[str, tuple[ClassPicture, ...]], ...] = ()
    """Title and pictures of each gallery."""
    closing: tuple[ReportTable, ...] = ()
    """Tables below figures and pictures."""
    code: str = ""
    """Commands."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is reported on a folder of runs."""

    title: str
    subtitle: str
    answer: str
    """One sentence: did MAO help here?"""
    evidence: tuple[str, ...] = ()
    """A sentence per learner with the figures behind the answer."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is missing or failed."""
    sections: tuple[Section, ...] = field(default=())

    @property
    def tables(self) -> list[ReportTable]:
        """The tables of all sections, in order."""
        return [table for section in self.sections for table in (*section.tables, *section.closing)]
