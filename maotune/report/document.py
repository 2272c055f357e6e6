"""What a report says, before it is known how it is written: tables, figures and paragraphs of plain text.

The builders of this package make these; the writers (page, markdown, latex, text) turn them into files. Text is never
markup: class names come from users, and each writer escapes for its own format.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Cell:
    """One number or word of a table."""

    text: str = ""
    spread: str = ""
    """Standard deviation over seeds, without a sign in front."""
    best: bool = False
    """Whether it is the best of its column."""


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring columns under one heading, as a data set's base, new and H."""

    title: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A row: what it is, in one or several label columns, and its cells."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    rule: bool = False
    """Whether a thin line stands above it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; ``cells`` of a row are as many as the columns of all groups together."""

    name: str
    """A short id, unique in the report: anchors and LaTeX labels are made of it."""
    caption: str
    labels: tuple[str, ...]
    """Headings of the label columns."""
    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    words: bool = False
    """Whether the cells are words and not numbers: written from the left, free to wrap."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of all groups."""
        return tuple(column for group in self.groups for column in group.columns)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first column of each group."""
        ends = accumulate(len(group.columns) for group in self.groups)
        return (0, *ends)[: len(self.groups)]

    def split(self, width: int) -> "list[Table]":
        """As tables of at most ``width`` columns (or one group), one below the other, as the paper prints Table 1."""
        blocks: list[list[int]] = [[]]
        for number, group in enumerate(self.groups):
            held = sum(len(self.groups[other].columns) for other in blocks[-1])
            if blocks[-1] and held + len(group.columns) > width:
                blocks.append([])
            blocks[-1].append(number)
        starts = (*self.starts, len(self.columns))
        return [
            replace(
                self,
                groups=tuple(self.groups[number] for number in block),
                lines=tuple(
                    replace(line, cells=line.cells[starts[block[0]] : starts[block[-1] + 1]]) for line in self.lines
                ),
            )
            for block in blocks
        ]


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing."""

    label: str
    """What it shows in words, for those who do not see it."""
    svg: Callable[[], str]
    """Draws it, as an ``<svg>`` element; only a page asks for that."""


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a mark, the name of its colour, and what it stands for."""

    mark: str
    colour: str
    label: str


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that are read together."""

    name: str
    caption: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A class with one of its images and what became of it."""

    image: Callable[[], str]
    """Reads it, as a ``data:`` URI; empty where no image can be read."""
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures under a heading."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    closing: tuple[Table, ...] = ()
    """Tables that stand below the figures and pictures."""
    code: str = ""
    """A command, written as such."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing but a title."""
        return not (self.text or self.tables or self.figures or self.galleries or self.closing or self.code)


@dataclass(frozen=True, slots=True)
class Report:
    """All that is said of a folder of runs."""

    title: str
    subtitle: str
    answer: str
    """In a sentence: did MAO help here?"""
    evidence: tuple[str, ...] = ()
    """A sentence for each comparison that the answer rests on."""
    warnings: tuple[str, ...] = ()
    """What is missing or failed."""
    sections: tuple[Section, ...] = field(default=())

    @property
    def tables(self) -> Sequence[Table]:
        """Of all sections, in order."""
        return [table for section in self.sections for table in (*section.tables, *section.closing)]
