"""A report as files, in every format that is asked for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from maotune.files import write_atomic
from maotune.report.document import Report
from maotune.report.latex import latex
from maotune.report.markdown import markdown
from maotune.report.page import page
from maotune.report.study import Study
from maotune.report.tidy import tidy


class Format(NamedTuple):
    """A file that a report is written as."""

    file: str
    write: Callable[[Report, Sequence[Study]], str]


FORMATS: Mapping[str, Format] = {
    "html": Format("index.html", lambda report, studies: page(report)),
    "markdown": Format("report.md", lambda report, studies: markdown(report)),
    "latex": Format("tables.tex", lambda report, studies: latex(report)),
    "csv": Format("results.csv", lambda report, studies: tidy(studies)),
}
"""By the name that the command line knows."""


def write(
    report: Report, studies: Sequence[Study], folder: Path, formats: Sequence[str] = tuple(FORMATS)
) -> list[Path]:
    """Write the files of the formats into ``folder``, each atomically; gives their paths.

    Raises:
        KeyError: a format that is none of ``FORMATS``.
    """
    written = []
    for name in formats:
        path = folder / FORMATS[name].file
        write_atomic(path, FORMATS[name].write(report, studies))
        written.append(path)
    return written
