"""A report in every format: one HTML page, Markdown, LaTeX tables, CSV, and text for the terminal."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from maotune.files import write_atomic
from maotune.printable import escape_controls, printable_cell
from maotune.report.content import Report, ReportTable
from maotune.report.frame import ExperimentRuns, tidy_frame

ON_TERMINAL = ("paired", "results")
"""Tables for the terminal; the files have all of them."""
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$", "→": r"$\rightarrow$", "–": "--",
    "×": r"$\times$", "…": r"\dots{}",
}  # fmt: skip
"""Characters with a meaning in LaTeX, or without a glyph."""


def escape_markdown(text: str) -> str:
    """Return text in which nothing is markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Return text in which nothing is a command."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _from_template(report: Report, name: str, escape: Callable[[str], str]) -> str:
    """Fill a template in; everything that is not marked ``safe`` in it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(text: str) -> str:
        return escape(escape_controls(text, keep="\n"))

    environment = Environment(
        loader=PackageLoader("maotune.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=True, finalize=lambda value: value if isinstance(value, Markup) else Markup(shown(str(value))),
    )  # fmt: skip
    environment.filters["zip"] = zip
    return environment.get_template(name).render(report=report).rstrip() + "\n"


def html(report: Report) -> str:
    """Return one self-contained page."""
    from markupsafe import escape

    return _from_template(report, "page.html", escape)


def markdown(report: Report) -> str:
    """Return the whole report except for its figures."""
    return _from_template(report, "report.md", escape_markdown)


def latex(report: Report) -> str:
    """Return every table of figures as a ``table`` environment in the style of ``booktabs``."""
    return _from_template(report, "tables.tex", escape_latex)


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
    """Return the first columns of a table for the terminal, with nothing in its cells read as markup."""
    title = Text(table.caption)
    shown = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for label in table.labels:
        shown.add_column(Text(label), no_wrap=True)
    columns = slice(table.lead or None)
    for heading in table.titles[columns]:
        shown.add_column(Text(heading), justify="right", no_wrap=True)
    for row, ((labels, _), cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        if row in table.rules:
            shown.add_section()
        texts = [
            Text.assemble((mean, "bold" if best else ""), (f" ± {std}" if std else "", "dim"))
            for mean, std, best in cells[columns]
        ]
        shown.add_row(*map(Text, labels), *texts)
    return shown


def csv(experiments: Sequence[ExperimentRuns]) -> str:
    """Return a line per run, prompts and measure, with nothing that a spreadsheet would run."""
    tidy = tidy_frame(
        (run.result, {"experiment": runs.name, "variant": run.trial.variant, "trial": run.trial.name})
        for runs in experiments
        for run in runs.finished
    )
    rounded = tidy.round({"value": 4, "tuning_seconds": 3, "seconds": 3})
    return str(rounded.map(printable_cell).to_csv(index=False, lineterminator="\n"))


FORMATS: Mapping[str, tuple[str, Callable[[Report, Sequence[ExperimentRuns]], str]]] = {
    "html": ("index.html", lambda report, _: html(report)),
    "markdown": ("report.md", lambda report, _: markdown(report)),
    "latex": ("tables.tex", lambda report, _: latex(report)),
    "csv": ("results.csv", lambda _, experiments: csv(experiments)),
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
