"""Ours beside published numbers."""

from maotune.mao.methods import ZEROSHOT
from maotune.recipe.suites import SUITES
from maotune.report.document import Cell, Group, Line, Table
from maotune.report.published import Comparison, Published, compare, find
from maotune.report.study import Study
from maotune.report.summary import Series, Spread
from maotune.report.tables import HEADINGS, NOTHING, label_of, labels_of
from maotune.report.verdict import signed

TABLES = {
    "cross-dataset": ("2",),
    "cost": ("3",),
    "ablations": ("4", "8"),
    "pseudo-labelers": ("5",),
    "baselines": ("7",),
}
"""Where an experiment's counterpart is printed; Table 1 for all others."""
MEAN = "mean"


def beside(study: Study) -> Table | None:
    """Ours with the difference, for all data sets that numbers are published for; else the paper's averages alone."""
    compared = [
        (one, name, test, compare(score, found))
        for one in study.series
        for name, test, score in _scores(study, one)
        if (found := _printed(study, one, name, test))
    ]
    return _compared(study, compared) if compared else _orientation(study)


def _scores(study: Study, one: Series) -> list[tuple[str, str, Spread]]:
    """Data set, test and accuracy; last the averages, where they are over the data sets of the paper."""
    found = [(name, test, score) for name, row in one.rows.items() for test, score in row.scores.items()]
    if one in study.averaged and set(study.cells) == set(SUITES["coop-11"].sets):
        found += [(MEAN, test, score) for test, score in one.average(study.cells).items()]
    return found


def _printed(study: Study, one: Series, name: str, test: str) -> Published | None:
    if study.measure == "average":  # one source, many targets: a test is called by its data set
        name, test = MEAN if test == "average" else test, "accuracy"
        if study.datasets != ["imagenet"]:
            return None
    return _find(study, one, name, test)


def _find(study: Study, one: Series, name: str, measure: str) -> Published | None:
    tables = ("reference",) if one.method == ZEROSHOT else TABLES.get(study.name, ("1",))
    given = {"dataset": name, "learner": one.learner, "method": one.method, "variant": one.variant, "measure": measure}
    return next((found for table in tables for found in find(table=table, **given)), None)


def _compared(study: Study, compared: list[tuple[Series, str, str, Comparison]]) -> Table:
    lines = [
        Line(
            (name, *label_of(study, one), HEADINGS.get(test, test)),
            (
                Cell(f"{found.ours.mean:.2f}", "" if found.ours.std is None else f"{found.ours.std:.2f}"),
                Cell(f"{found.published.value:.2f}"),
                Cell(signed(found.difference)),
                Cell({True: "yes", False: "no", None: "unknown"}[found.within_spread]),
            ),
        )
        for one, name, test, found in compared
    ]
    sources = dict.fromkeys(found.published.source for *_, found in compared)
    return Table(
        f"{study.name}-published",
        "Ours beside published numbers, in percent.",
        ("data set", *labels_of(study), "measure"),
        (Group("", ("ours", "published", "difference", "within our spread")),),
        tuple(lines),
        (
            f"Published: {'; '.join(sources)}. Within our spread: the difference is at most one standard "
            f"deviation over "
            "our seeds.",
        ),
    )


def _orientation(study: Study) -> Table | None:
    """The paper's average row beside ours, where models and data differ: nothing to be close to."""
    tests = ["average"] if study.measure == "average" else ["base", "new", "h"] if study.measure == "h" else []
    lines = []
    for one in study.averaged:
        printed = [_find(study, one, MEAN, "accuracy" if test == "average" else test) for test in tests]
        if any(printed):
            ours = one.average(study.cells)
            cells = [Cell(f"{ours[test].mean:.2f}") for test in tests]
            cells += [Cell(f"{found.value:.2f}" if found else NOTHING) for found in printed]
            lines.append(Line(label_of(study, one), tuple(cells)))
    if all(line.labels[1] == ZEROSHOT for line in lines):
        return None
    columns = tuple(HEADINGS[test] for test in tests)
    return Table(
        f"{study.name}-orientation",
        "The paper's averages, for orientation only: other model (CLIP ViT-B/16) and other data.",
        labels_of(study),
        (Group("here", columns), Group("published", columns)),
        tuple(lines),
        ("No number is published for the data sets of this table; what can be compared is the sign of the changes.",),
    )
