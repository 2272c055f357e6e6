"""Classes one by one: what MAO improved, what suffered, and what is taken for what among hard negatives."""

import base64
import functools
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from maotune.data.feature_bank import default_folder
from maotune.data.sets.dataset import UnreadableImage
from maotune.mao.methods import ZEROSHOT
from maotune.mao.neighbours import hard_negatives
from maotune.mao.sampler import table_width
from maotune.mao.settings import default_b_k
from maotune.protocols.protocol import Splits
from maotune.report.document import Cell, Gallery, Group, Line, Picture, Section, Table
from maotune.report.study import Run, Study, short_names
from maotune.report.verdict import signed
from maotune.runs.build import build_splits
from maotune.runs.predictions import Scoring

PICTURES = 40
"""In a page, at most."""
SIDE = 96
"""Pixels of a picture's longer side."""
PAIRS = 12
"""Confusions that are listed."""

log = logging.getLogger(__name__)

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pair:
    """A run with MAO and the plain one of the same data set, learner, variant and seed, with what they said."""

    mao: Run
    plain: Run
    mao_scoring: Scoring
    plain_scoring: Scoring


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a class, over all pairs of runs."""

    dataset: str
    test: str
    label: int
    name: str
    plain: float
    """Accuracy in percent."""
    mao: float
    images: int
    """Scored in one run."""

    @property
    def points(self) -> float:
        """MAO minus plain."""
        return self.mao - self.plain


def pairs(study: Study, dataset: str) -> Iterator[Pair]:
    """The pairs of a data set that kept what they said."""
    runs = {
        (run.result.learner, run.trial.variant, run.result.seed, run.result.method): run
        for run in study.runs
        if run.result.dataset == dataset
    }
    for (*key, method), run in runs.items():
        plain = runs.get((*key, "plain"))  # type: ignore[arg-type]
        if method == "mao" and plain is not None:
            said, before = run.trial.scoring(), plain.trial.scoring()
            if said is not None and before is not None and said.labels == before.labels:
                yield Pair(run, plain, said, before)


def chosen(run: Run, scoring: Scoring, test: str) -> Integers:
    """What the prompts that score a test took its images for."""
    return np.array(scoring.predicted[run.result.scored_with[test]][test])


def changes(of_set: Sequence[Pair]) -> list[Change]:
    """Of every class that is scored, the pairs counted together."""
    found = []
    dataset = of_set[0].mao.result.dataset
    for test, names in of_set[0].mao_scoring.classes.items():
        count = len(names)
        right = np.zeros((2, count))
        total = np.zeros(count)
        for pair in of_set:
            labels = np.array(pair.mao_scoring.labels[test])
            total += np.bincount(labels, minlength=count)
            for row, (run, said) in enumerate(((pair.plain, pair.plain_scoring), (pair.mao, pair.mao_scoring))):
                right[row] += np.bincount(labels[chosen(run, said, test) == labels], minlength=count)
        for label in np.flatnonzero(total):
            plain, mao = (100 * right[:, label] / total[label]).tolist()
            found.append(Change(dataset, test, int(label), names[label], plain, mao, round(total[label] / len(of_set))))
    return found


def section(study: Study) -> Section | None:
    """The classes of a study's data sets; None where no run with MAO and its plain counterpart say what they said."""
    every = {name: list(pairs(study, name)) for name in study.datasets}
    every = {name: of_set for name, of_set in every.items() if of_set}
    if not every:
        return None
    short = short_names(every)
    side = max(1, min(3, PICTURES // (2 * len(every))))
    better: list[Picture] = []
    worse: list[Picture] = []
    lines = []
    for name, of_set in every.items():
        found = sorted(changes(of_set), key=lambda change: -change.points)
        splits = functools.cache(functools.partial(_splits, of_set[0]))
        better += [_picture(one, short[name], len(of_set), splits) for one in found[:side] if one.points > 0]
        worse += [_picture(one, short[name], len(of_set), splits) for one in found[::-1][:side] if one.points < 0]
        moved = np.array([one.points for one in found])
        cells = (
            str(len(found)), str(int((moved > 0).sum())), str(int((moved == 0).sum())), str(int((moved < 0).sum())),
            signed(float(moved.mean()), 1), str(len(of_set)),
        )  # fmt: skip
        lines.append(Line((short[name],), tuple(map(Cell, cells))))
    table = Table(
        f"{study.name}-classes",
        "Classes that MAO improves and that suffer, against plain tuning.",
        ("data set",),
        (Group("", ("classes", "improved", "same", "suffered", "mean change", "pairs of runs")),),
        tuple(lines),
        ("Base and new classes, each scored by the prompts that the tables score them with. A class counts once, "
         "over all learners and seeds of which a plain run and one with MAO are finished.",),
    )  # fmt: skip
    galleries = [
        Gallery(title, tuple(pictures))
        for title, pictures in (("Improved most", better), ("Suffered most", worse))
        if pictures
    ]
    return Section(
        f"{study.name}-by-class",
        "Class by class",
        (
            "MAO against plain tuning, over all learners and seeds. The classes shown are the extremes of many, "
            "each scored "
            "on few images: part of their change is chance.",
        ),
        tables=(table,),
        galleries=tuple(galleries),
        closing=tuple(filter(None, [confusions(study, every)])),
    )  # fmt: skip


def _picture(one: Change, dataset: str, runs: int, splits: Callable[[], Splits | None]) -> Picture:
    images = f"{one.images} image{'s' * (one.images != 1)}, {runs} run{'s' * (runs != 1)} each"
    return Picture(
        functools.partial(_image, one, splits),
        one.name,
        (f"{dataset}, {one.test}", f"{one.plain:.0f} → {one.mao:.0f} % ({signed(one.points, 0)})", images),
    )


def _splits(pair: Pair) -> Splits | None:
    """The images of a run; None where they are not to be had here."""
    try:
        splits, _ = build_splits(pair.mao.trial.recipe)
    except (ValueError, OSError) as error:
        log.warning("no pictures of %s: %s", pair.mao.result.dataset, error)
        return None
    labels = {name: [sample.label for sample in test.samples] for name, test in splits.tests.items()}
    if labels != pair.mao_scoring.labels:
        log.warning("no pictures of %s: its images are not those that were scored any more", pair.mao.result.dataset)
        return None
    return splits


def _image(one: Change, load: Callable[[], Splits | None]) -> str:
    """A test image of the class, as a ``data:`` URI; empty without one."""
    splits = load()
    for sample in splits.tests[one.test].samples if splits else ():
        if sample.label == one.label:
            try:
                picture = sample.image.read()
            except UnreadableImage:
                continue
            picture.thumbnail((SIDE, SIDE))
            file = io.BytesIO()
            picture.save(file, "webp", quality=80)
            return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return ""


@functools.cache
def _negatives(names: tuple[str, ...], b: int, k: int, fill: bool, underscores: str) -> Integers:
    """(C, K) the hard negatives of each class, itself first; from the table that the runs made, where it is kept."""
    width = table_width(len(names), b, k, fill)
    table = hard_negatives(names, width, underscores=underscores, cache=default_folder())  # type: ignore[arg-type]
    found: Integers = table[:, :k].numpy()
    return found


@dataclass(frozen=True, slots=True)
class Confusion:
    """Shares of the images of a base class, in percent, that were taken for one of its hard negatives."""

    dataset: str
    right: str
    taken_for: str
    shares: dict[str, float]
    """By method."""


def confusions(study: Study, every: dict[str, list[Pair]]) -> Table | None:
    """The base classes that plain tuning mixes up most, among those that MAO sets against each other."""
    short = short_names(every)
    worst: list[Confusion] = []
    overall: dict[str, list[float]] = {}
    for name, of_set in every.items():
        if "base" not in of_set[0].mao_scoring.classes:
            continue
        recipe, names = of_set[0].mao.trial.recipe.mao, tuple(of_set[0].mao_scoring.classes["base"])
        b, k = default_b_k(len(names))
        near = _negatives(names, recipe.b or b, recipe.k or k, recipe.fill, recipe.underscores)
        shares = _confused(of_set, len(names))
        for method, table in shares.items():
            own = np.arange(len(names))[:, None]
            overall.setdefault(method, []).append(float(np.nanmean(table[own, near[:, 1:]].sum(axis=1))))
        worst += [
            Confusion(
                short[name], names[row], names[column], {m: float(table[row, column]) for m, table in shares.items()}
            )
            for row in range(len(names))
            for column in near[row, 1:].tolist()
            if shares["plain"][row, column] > 0
        ]
    if not overall:
        return None
    worst.sort(key=lambda one: -one.shares["plain"])
    methods = (ZEROSHOT, "plain", "mao")
    lines = [Line(("all", "any class", "any of its hard negatives"), _shares({m: fmean(overall[m]) for m in methods}))]
    lines += [
        Line((one.dataset, one.right, one.taken_for), _shares(one.shares), not number)
        for number, one in enumerate(worst[:PAIRS])
    ]
    return Table(
        f"{study.name}-confusions",
        "What is taken for what: base classes and their hard negatives (the classes with the names closest to theirs).",
        ("data set", "images of", "taken for"),
        (Group("share of the images, %", ("zero-shot", "plain", "MAO")), Group("", ("MAO − plain",))),
        tuple(lines),
        ("First row: mean over classes and data sets. Below: the pairs that plain tuning mixes up most.",),
    )


def _confused(of_set: Sequence[Pair], count: int) -> dict[str, NDArray[np.float64]]:
    """(C, C) by method: images of the row's class taken for the column's, in percent of the row; NaN without images."""
    sums = {method: np.zeros((count, count)) for method in (ZEROSHOT, "plain", "mao")}
    for pair in of_set:
        labels = np.array(pair.mao_scoring.labels["base"])
        said = {
            ZEROSHOT: np.array(pair.mao_scoring.predicted[ZEROSHOT]["base"]),
            "plain": chosen(pair.plain, pair.plain_scoring, "base"),
            "mao": chosen(pair.mao, pair.mao_scoring, "base"),
        }
        for method, predictions in said.items():
            sums[method] += np.bincount(labels * count + predictions, minlength=count * count).reshape(count, count)
    with np.errstate(invalid="ignore"):
        return {method: 100 * table / table.sum(axis=1, keepdims=True) for method, table in sums.items()}


def _shares(shares: dict[str, float]) -> tuple[Cell, ...]:
    figures = tuple(Cell(f"{shares[method]:.1f}") for method in (ZEROSHOT, "plain", "mao"))
    return (*figures, Cell(signed(shares["mao"] - shares["plain"], 1)))
