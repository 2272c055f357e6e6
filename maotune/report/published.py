"""Published numbers as data, and how far ours are from them.

The numbers are rows of ``maotune/published/*.csv``, as printed: all tables of the MAO paper, the settings that its text
gives, and reference results of others. Figures 3 and 4 of the paper give no numbers in print. Of Table 1 the row of
PromptSRC with MAO is there for five data sets and the average: the text that was transcribed lacks the other six.
"""

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maotune.report.summary import Spread


@dataclass(frozen=True, slots=True)
class Published:
    """One printed number."""

    table: str
    """``1`` to ``8`` of the MAO paper, ``B`` (settings, its section 4.1 and Appendix B), ``text``, or ``reference``."""
    dataset: str
    """As in ``named_sets()``; ``mean`` is the average of a table; empty where it is of none in particular."""
    learner: str
    """As ``Recipe.title``; empty for zero-shot CLIP and where it is of none in particular."""
    method: str
    """As in ``mao.plan.METHODS``."""
    variant: str
    """What was changed against the method's usual settings; mostly nothing."""
    measure: str
    """``base``, ``new``, ``h``, ``accuracy``, ``parameters``, ``memory_mb``, ``epoch_seconds``, ``fps``, ..., or the
    name of a setting."""
    value: float
    unit: str
    source: str
    note: str


@functools.cache
def published() -> tuple[Published, ...]:
    """All published numbers, table after table."""
    folder = files("maotune") / "published"
    rows = []
    for path in sorted((path for path in folder.iterdir() if path.name.endswith(".csv")), key=lambda path: path.name):
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            rows.append(Published(value=float(row.pop("value")), **row))
    return tuple(rows)


def find(
    *,
    table: str | None = None,
    dataset: str | None = None,
    learner: str | None = None,
    method: str | None = None,
    variant: str | None = None,
    measure: str | None = None,
) -> tuple[Published, ...]:
    """The published numbers that agree with all that is given; none where nothing was published."""
    wanted = {"table": table, "dataset": dataset, "learner": learner}
    wanted |= {"method": method, "variant": variant, "measure": measure}
    given = {name: value for name, value in wanted.items() if value is not None}
    return tuple(row for row in published() if all(getattr(row, name) == value for name, value in given.items()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours beside a published number."""

    ours: "Spread"
    published: Published
    difference: float
    """Our mean less the published value, in its unit."""
    within_spread: bool | None
    """Whether the difference is at most our standard deviation over seeds; None where that is not known (one seed)."""


def compare(ours: "Spread", published: Published) -> Comparison:
    """How far our mean over seeds is from a published number, and whether that is more than the seeds differ."""
    difference = ours.mean - published.value
    within = None if ours.std is None else abs(difference) <= ours.std
    return Comparison(ours, published, difference, within)
