"""A report as Markdown, with GitHub's tables."""

import re
from collections.abc import Iterator

from maotune.report.document import Cell, Report, Section, Table


def markdown(report: Report) -> str:
    """The whole report but for its figures."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield from (f"# {escaped(report.title)}", "", escaped(report.subtitle), "", f"**{escaped(report.answer)}**", "")
    for sentence in report.evidence:
        yield f"- {escaped(sentence)}"
    yield ""
    for warning in report.warnings:
        yield from (f"> {escaped(warning)}", "")
    for section in report.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escaped(section.title)}", "")
    for paragraph in section.text:
        yield from (escaped(paragraph), "")
    for table in section.tables:
        yield from _table(table)
    for gallery in section.galleries:
        yield from (f"{escaped(gallery.title)}:", "")
        yield from (f"- **{escaped(one.title)}**: {escaped('; '.join(one.lines))}" for one in gallery.pictures)
        yield ""
    for table in section.closing:
        yield from _table(table)
    if section.code:
        fence = "`" * (1 + max((len(run) for run in re.findall("`+", section.code)), default=2))
        yield from (fence + "sh", section.code, fence, "")


def _table(table: Table) -> Iterator[str]:
    heads = [escaped(f"{group.title} {column}".strip()) for group in table.groups for column in group.columns]
    yield from (escaped(table.caption), "")
    yield _row([*map(escaped, table.labels), *heads])
    yield _row([":--"] * len(table.labels) + [":--" if table.words else "--:"] * len(heads))
    for line in table.lines:
        yield _row([*map(escaped, line.labels), *map(_cell, line.cells)])
    yield ""
    for note in table.notes:
        yield from (escaped(note), "")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    text = f"**{text}**" if cell.best else text
    return f"{text} ± {cell.spread}" if cell.spread else text


def escaped(text: str) -> str:
    """Text in which nothing is markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(text.split()))
