"""A report in every format: one HTML page, Markdown, LaTeX tables, CSV, and text for the terminal."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from maotune.files import write_atomic
from maotune.report.content import Report, ReportTable, Section
from maotune.report.frame import ExperimentRuns, tidy_frame

PAGE_WIDTH, LATEX_WIDTH = 18, 12
"""Columns of figures across a screen (six data sets of three, as the paper prints Table 1) and across paper."""
ON_TERMINAL = ("paired", "averages")
"""Tables for the terminal; the files have all of them."""
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$", "→": r"$\rightarrow$", "–": "--",
    "×": r"$\times$", "…": r"\dots{}",
}  # fmt: skip
"""Characters with a meaning in LaTeX, or without a glyph."""


def html(report: Report) -> str:
    """Return one self-contained page; the template engine escapes every text, only drawings are markup."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("maotune.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawing"] = Markup
    environment.globals["blocks"] = lambda table: [_Block(table, columns) for columns in table.blocks(PAGE_WIDTH)]
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template.render(report=report, css=Markup((folder / "page.css").read_text(encoding="utf-8")))


class _Block:
    """Some columns of a table, as the templates of pages and LaTeX need them."""

    def __init__(self, table: ReportTable, columns: range) -> None:
        self.table, self.columns = table, columns
        data = table.data.iloc[:, columns.start : columns.stop]
        self.label_titles = [str(name) for name in data.index.names]
        self.titles = [str(title) for title in data.columns.get_level_values(1)]
        groups = [str(group) for group in data.columns.get_level_values(0)]
        self.starts = [place for place, group in enumerate(groups) if not place or groups[place - 1] != group]
        self.groups = [
            (groups[start], end - start)
            for start, end in zip(self.starts, [*self.starts[1:], len(groups)], strict=True)
        ]
        self.rows = [
            ([str(label) for label in labels], [self._cell(row, place, cell) for place, cell in enumerate(cells)])
            for row, (labels, cells) in enumerate(zip(data.index, data.to_numpy().tolist(), strict=True))
        ]

    def _cell(self, row: int, place: int, cell: str) -> tuple[str, str, bool]:
        """Return the mean (or word), the standard deviation, and whether it is the best of its column."""
        mean, _, std = (cell, "", "") if self.table.words else cell.partition(" ± ")
        return mean, std, (row, place + self.columns.start) in self.table.best


def _whole(table: ReportTable) -> _Block:
    return _Block(table, range(table.data.shape[1]))


def markdown(report: Report) -> str:
    """Return the whole report except for its figures."""
    lines = [f"# {escape_markdown(report.title)}", "", escape_markdown(report.subtitle), ""]
    lines += [
        f"**{escape_markdown(report.answer)}**",
        "",
        *(f"- {escape_markdown(each)}" for each in report.evidence),
        "",
    ]
    for warning in report.warnings:
        lines += [f"> {escape_markdown(warning)}", ""]
    for section in report.sections:
        lines += _markdown_section(section)
    return "\n".join(lines).rstrip() + "\n"


def _markdown_section(section: Section) -> Iterator[str]:
    yield from (f"## {escape_markdown(section.title)}", "")
    for paragraph in section.text:
        yield from (escape_markdown(paragraph), "")
    for table in section.tables:
        yield from _markdown_table(table)
    for title, pictures in section.galleries:
        yield from (f"{escape_markdown(title)}:", "")
        yield from (f"- **{escape_markdown(one.title)}**: {escape_markdown('; '.join(one.lines))}" for one in pictures)
        yield ""
    for table in section.closing:
        yield from _markdown_table(table)
    if section.code:
        fence = "`" * (1 + max((len(run) for run in re.findall("`+", section.code)), default=2))
        yield from (fence + "sh", section.code, fence, "")


def _markdown_table(table: ReportTable) -> Iterator[str]:
    block = _whole(table)
    groups = [group for group, size in block.groups for _ in range(size)]
    titles = [f"{group} {title}".strip() for group, title in zip(groups, block.titles, strict=True)]
    yield from (escape_markdown(table.caption), "")
    yield _markdown_row(map(escape_markdown, [*block.label_titles, *titles]))
    yield _markdown_row([*[":--"] * len(block.label_titles), *[":--" if table.words else "--:"] * len(titles)])
    for labels, cells in block.rows:
        texts = [f"**{escape_markdown(mean)}**" if best else escape_markdown(mean) for mean, _, best in cells]
        stds = [f" ± {std}" if std else "" for _, std, _ in cells]
        yield _markdown_row([*map(escape_markdown, labels), *map("".join, zip(texts, stds, strict=True))])
    yield ""
    for note in table.notes:
        yield from (escape_markdown(note), "")


def _markdown_row(cells: "Iterator[str] | Sequence[str] | map[str]") -> str:
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """Return text in which nothing is markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(text.split()))


def latex(report: Report) -> str:
    """Return every table of figures as a ``table`` environment in the style of ``booktabs``."""
    lines = [r"% Needs \usepackage{booktabs}; other alphabets in class names need a font that has them."]
    for section in report.sections:
        for table in (*section.tables, *section.closing):
            if not table.words:
                lines += ["", *_latex_table(table, f"{section.title}. {table.caption}")]
    return "\n".join(lines) + "\n"


def _latex_table(table: ReportTable, caption: str) -> Iterator[str]:
    yield from (r"\begin{table}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}")
    yield rf"\caption{{{escape_latex(caption)}}}"
    yield rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}}}"
    for number, columns in enumerate(table.blocks(LATEX_WIDTH)):
        block = _Block(table, columns)
        labels = len(block.label_titles)
        yield from ([r"\par\medskip"] if number else [])
        yield from (rf"\begin{{tabular}}{{{'l' * labels}{'r' * len(block.titles)}}}", r"\toprule")
        if any(group for group, _ in block.groups):
            yield _latex_row(
                [""] * labels + [rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(group)}}}" for group, n in block.groups]
            )
            ends = [
                (start + labels + 1, start + labels + n)
                for start, (_, n) in zip(block.starts, block.groups, strict=True)
            ]
            named = [place for place, (group, _) in zip(ends, block.groups, strict=True) if group]
            yield "".join(rf"\cmidrule(lr){{{first}-{last}}}" for first, last in named)
        yield _latex_row(map(escape_latex, [*block.label_titles, *block.titles]))
        yield r"\midrule"
        for row, (row_labels, cells) in enumerate(block.rows):
            yield from ([r"\addlinespace"] if row in table.rules else [])
            yield _latex_row([*map(escape_latex, row_labels), *map(_latex_cell, cells)])
        yield from (r"\bottomrule", r"\end{tabular}")
    if table.notes:
        yield rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {escape_latex(' '.join(table.notes))}}}"
    yield r"\end{table}"


def _latex_row(cells: "Iterator[str] | Sequence[str] | map[str]") -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: tuple[str, str, bool]) -> str:
    mean, std, best = cell
    text = rf"\textbf{{{escape_latex(mean)}}}" if best else escape_latex(mean)
    return rf"{text}{{\tiny$\pm${std}}}" if std else text


def escape_latex(text: str) -> str:
    """Return text in which nothing is a command."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def terminal(report: Report) -> RenderableType:
    """Return the answer, what is missing, and the tables that carry the answer."""
    parts: list[RenderableType] = [
        Text(report.subtitle, style="dim"),
        Padding(Text(report.answer, style="bold"), (1, 0)),
    ]
    parts += map(Text, report.evidence)
    parts += [Padding(Text(warning, style="yellow"), (1, 0, 0, 0)) for warning in report.warnings]
    parts += [Padding(_rich_table(table), (1, 0, 0, 0)) for table in report.tables if table.name.endswith(ON_TERMINAL)]
    return Group(*parts)


def _rich_table(table: ReportTable) -> Table:
    """Return a table for the terminal, with nothing in its cells read as markup."""
    title = Text(table.caption)
    shown = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    block = _whole(table)
    for label in block.label_titles:
        shown.add_column(Text(label), no_wrap=True)
    for column in block.titles:
        shown.add_column(Text(column), justify="right", no_wrap=True)
    for row, (labels, cells) in enumerate(block.rows):
        if row in table.rules:
            shown.add_section()
        texts = [Text(mean, style="bold" if best else "") for mean, _, best in cells]
        for text, (_, std, _) in zip(texts, cells, strict=True):
            text.append(f" ± {std}" if std else "", style="dim not bold")
        shown.add_row(*map(Text, labels), *texts)
    return shown


FORMATS: Mapping[str, tuple[str, Callable[[Report, Sequence[ExperimentRuns]], str]]] = {
    "html": ("index.html", lambda report, experiments: html(report)),
    "markdown": ("report.md", lambda report, experiments: markdown(report)),
    "latex": ("tables.tex", lambda report, experiments: latex(report)),
    "csv": (
        "results.csv",
        lambda report, experiments: tidy_frame(experiments).to_csv(index=False, lineterminator="\n"),
    ),
}
"""Format -> file name and writer."""


def write_report(
    report: Report, experiments: Sequence[ExperimentRuns], folder: Path, formats: Sequence[str] = tuple(FORMATS)
) -> list[Path]:
    """Write the files of the formats into ``folder``, each atomically; return their paths.

    Raises:
        KeyError: an unknown format.
    """
    paths = []
    for name in formats:
        file, write = FORMATS[name]
        write_atomic(folder / file, write(report, experiments))
        paths.append(folder / file)
    return paths
