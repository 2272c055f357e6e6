r"""The tables of a report for LaTeX, in the manner of ``booktabs``; a document needs no other package."""

import re
from collections.abc import Iterator

from maotune.report.document import Cell, Report, Table

WIDTH = 12
"""Columns of figures across a page."""

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$", "→": r"$\rightarrow$", "–": "--",
    "×": r"$\times$", "…": r"\dots{}",
}  # fmt: skip


def latex(report: Report) -> str:
    """Every table of figures as a ``table`` environment."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield r"% Needs \usepackage{booktabs}; other alphabets in class names need a font that has them."
    for section in report.sections:
        for table in (*section.tables, *section.closing):
            if not table.words:
                yield from ("", *_table(table, f"{section.title}. {table.caption}"))


def _table(table: Table, caption: str) -> Iterator[str]:
    yield from (
        r"\begin{table}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escaped(caption)}}}",
    )
    yield rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}}}"
    for number, block in enumerate(table.split(WIDTH)):
        if number:
            yield r"\par\medskip"
        yield rf"\begin{{tabular}}{{{'l' * len(block.labels)}{'r' * len(block.columns)}}}"
        yield r"\toprule"
        if any(group.title for group in block.groups):
            yield from _groups(block)
        yield _row([*map(escaped, block.labels), *map(escaped, block.columns)])
        yield r"\midrule"
        for place, line in enumerate(block.lines):
            if line.rule and place:
                yield r"\addlinespace"
            yield _row([*map(escaped, line.labels), *map(_cell, line.cells)])
        yield from (r"\bottomrule", r"\end{tabular}")
    if table.notes:
        yield rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {escaped(' '.join(table.notes))}}}"
    yield r"\end{table}"


def _groups(table: Table) -> Iterator[str]:
    heads, rules, column = [""] * len(table.labels), [], len(table.labels) + 1
    for group in table.groups:
        heads.append(rf"\multicolumn{{{len(group.columns)}}}{{c}}{{{escaped(group.title)}}}")
        if group.title:
            rules.append(rf"\cmidrule(lr){{{column}-{column + len(group.columns) - 1}}}")
        column += len(group.columns)
    yield _row(heads)
    yield "".join(rules)


def _row(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return rf"{text}{{\tiny$\pm${cell.spread}}}" if cell.spread else text


def escaped(text: str) -> str:
    """Text in which nothing is a command."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(text.split()))
