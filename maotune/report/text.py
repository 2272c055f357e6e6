"""A report on the terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from maotune.report.document import Cell, Report, Table

SHOWN = ("paired", "averages")
"""The tables that a terminal shows; the files have all of them."""


def terminal(report: Report) -> RenderableType:
    """The answer, what is missing, and the tables that carry it."""
    return Stack(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text(report.subtitle, style="dim")
    yield Padding(Text(report.answer, style="bold"), (1, 0))
    for sentence in report.evidence:
        yield Text(sentence)
    for warning in report.warnings:
        yield Padding(Text(warning, style="yellow"), (1, 0, 0, 0))
    for table in report.tables:
        if table.name.endswith(SHOWN):
            yield Padding(rich_table(table), (1, 0, 0, 0))


def rich_table(table: Table) -> RichTable:
    """A table, with nothing in its cells read as markup."""
    made = RichTable(
        title=Text(table.caption), title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for label in table.labels:
        made.add_column(Text(label), no_wrap=True)
    for group in table.groups:
        for column in group.columns:
            title = Text(f"{group.title} {column}".strip())
            made.add_column(title, justify="left" if table.words else "right", no_wrap=not table.words)
    for line in table.lines:
        if line.rule:
            made.add_section()
        made.add_row(*map(Text, line.labels), *map(_cell, line.cells))
    return made


def _cell(cell: Cell) -> Text:
    text = Text(cell.text, style="bold" if cell.best else "")
    return text.append(f" ± {cell.spread}", style="dim not bold") if cell.spread else text
