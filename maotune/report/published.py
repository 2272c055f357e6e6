"""Published numbers as data.

The numbers are rows of ``maotune/published/*.csv``, as printed: all tables of the MAO paper, the settings that its text
gives, and reference results of others. Figures 3 and 4 of the paper give no numbers in print. Of Table 1 the row of
PromptSRC with MAO is there for five data sets and the average: the text that was transcribed lacks the other six.
"""

import csv
import functools
from importlib.resources import files
from typing import NamedTuple

from maotune.mao.methods import ZEROSHOT
from maotune.report.frame import CLIP, Key
from maotune.report.names import TWO_PROMPTS
from maotune.train.evaluate import harmonic_mean

TABLES = {
    "cross-dataset": ("2",),
    "cost": ("3",),
    "ablations": ("4", "8"),
    "pseudo-labelers": ("5",),
    "baselines": ("7",),
}
"""Tables of the paper with the counterpart of an experiment; Table 1 for all others."""


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


def look_up(experiment: str, key: Key, name: str, measure: str) -> PublishedNumber | None:
    """Return the published counterpart of a row of an experiment.

    Args:
        experiment: its name.
        key: the row; of two prompts without MAO the number follows from those of plain tuning and of zero-shot CLIP.
        name: of the data set, or ``mean``.
        measure: see ``PublishedNumber``.
    """
    learner, method, variant = key
    if method == TWO_PROMPTS:
        base, new = (
            look_up(experiment, half, name, test)
            for half, test in (((learner, "plain", variant), "base"), (CLIP, "new"))
        )
        if measure in ("base", "new") or not (base and new):
            return base if measure == "base" else new
        source = " with ".join(dict.fromkeys((base.source, new.source)))
        return base._replace(measure=measure, value=harmonic_mean(base.value, new.value), source=source)
    tables = ("reference",) if method == ZEROSHOT else TABLES.get(experiment, ("1",))
    wanted = {"dataset": name, "learner": learner, "method": method, "variant": variant, "measure": measure}
    return next((number for table in tables for number in find(table=table, **wanted)), None)
