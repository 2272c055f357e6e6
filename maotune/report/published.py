"""Published numbers as data.

The numbers are rows of ``maotune/published/*.csv``, as printed: all tables of the MAO paper, the settings that its text
gives, and reference results of others. Figures 3 and 4 of the paper give no numbers in print. Of Table 1 the row of
PromptSRC with MAO is there for five data sets and the average: the text that was transcribed lacks the other six.
"""

import csv
import functools
from importlib.resources import files
from typing import NamedTuple


class PublishedNumber(NamedTuple):
    """One printed number."""

    table: str
    """``1`` to ``8`` of the MAO paper, ``B`` (settings, its section 4.1 and Appendix B), ``text``, or ``reference``."""
    dataset: str
    """Name of the data set (``named_sets()``); ``mean`` for an average; empty where there is none in particular."""
    learner: str
    """Name of the learner, as ``Recipe.title``; empty for zero-shot CLIP and where there is none in particular."""
    method: str
    """Name of the method, as in ``mao.methods.METHODS``."""
    variant: str
    """Changed settings of the method; mostly empty."""
    measure: str
    """``base``, ``new``, ``h``, ``accuracy``, ``parameters``, ``memory_mb``, ``epoch_seconds``, ``fps``, ..., or the
    name of a setting."""
    value: float
    unit: str
    source: str
    note: str


@functools.cache
def read_published() -> tuple[PublishedNumber, ...]:
    """Read all published numbers, table by table."""
    folder = files("maotune") / "published"
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".csv")), key=lambda path: path.name)
    rows = [row for path in paths for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    return tuple(PublishedNumber(value=float(row.pop("value")), **row) for row in rows)


def find(**wanted: str) -> tuple[PublishedNumber, ...]:
    """Return the published numbers whose fields are as ``wanted``."""
    return tuple(row for row in read_published() if all(getattr(row, name) == wanted[name] for name in wanted))
