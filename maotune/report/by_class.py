"""Class by class: which classes MAO improves, which suffer, and which are confused with their hard negatives."""

import base64
import functools
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.dataset import Sample, UnreadableImage
from maotune.mao.methods import ZEROSHOT
from maotune.recipe import Recipe
from maotune.report.content import ClassPicture, ReportTable, Section, make_table
from maotune.report.frame import ExperimentRuns, FinishedTrial, short_names
from maotune.report.sentences import signed
from maotune.runs.predictions import Scoring

PICTURES = 40
"""Largest number of pictures in a page."""
SIDE = 96
"""Longer side of a picture in pixels."""
PAIRS = 12
"""Number of confusions that are listed."""
METHODS = (ZEROSHOT, "plain", "mao")

log = logging.getLogger(__name__)

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MatchedRuns:
    """Predictions of a run with MAO and of the plain one with the same data set, learner, variant and seed."""

    mao: FinishedTrial
    plain: FinishedTrial
    mao_scoring: Scoring
    plain_scoring: Scoring

    def predictions(self, method: str, test: str) -> Integers:
        """Return the predictions of the prompts that score a test."""
        if method == ZEROSHOT:
            return np.array(self.mao_scoring.predicted[ZEROSHOT][test])
        run, scoring = (self.mao, self.mao_scoring) if method == "mao" else (self.plain, self.plain_scoring)
        return np.array(scoring.predicted[run.result.scored_with[test]][test])


@dataclass(frozen=True, slots=True)
class ClassChange:
    """Accuracy of a class in percent, plain and with MAO, over all matched runs."""

    dataset: str
    test: str
    name: str
    plain: float
    mao: float
    images: int
    """Scored images in one run."""
    names: tuple[str, ...]
    """Names of these images, where the run has recorded them."""


def match_runs(runs: ExperimentRuns) -> dict[str, list[MatchedRuns]]:
    """Return the matched runs of each data set that have kept their predictions of the same images."""
    by_key = {
        (run.result.dataset, run.result.learner, run.trial.variant, run.result.seed, run.result.method): run
        for run in runs.finished
    }
    matched: dict[str, list[MatchedRuns]] = {}
    for (*key, method), run in by_key.items():
        plain = by_key.get((*key, "plain"))  # type: ignore[arg-type]
        if method == "mao" and plain is not None:
            scoring, plain_scoring = run.trial.scoring(), plain.trial.scoring()
            if scoring and plain_scoring and scoring.labels == plain_scoring.labels:
                matched.setdefault(run.result.dataset, []).append(MatchedRuns(run, plain, scoring, plain_scoring))
    return {name: matched[name] for name in runs.scores.datasets if name in matched}


def class_changes(matched: Sequence[MatchedRuns]) -> list[ClassChange]:
    """Return the accuracy of every scored class, all matched runs together, the most improved first."""
    changes = []
    for test, names in matched[0].mao_scoring.classes.items():
        total = np.zeros(len(names))
        correct = {"plain": np.zeros(len(names)), "mao": np.zeros(len(names))}
        for pair in matched:
            labels = np.array(pair.mao_scoring.labels[test])
            total += np.bincount(labels, minlength=len(names))
            for method in correct:
                correct[method] += np.bincount(labels[pair.predictions(method, test) == labels], minlength=len(names))
        first = matched[0].mao_scoring
        images = np.array((first.images or {}).get(test, []))
        for label in np.flatnonzero(total):
            own = images[np.array(first.labels[test]) == label] if len(images) else images
            plain, mao = (float(100 * counts[label] / total[label]) for counts in correct.values())
            count = round(total[label] / len(matched))
            changes.append(
                ClassChange(first_dataset(matched), test, names[label], plain, mao, count, tuple(own.tolist()))
            )
    return sorted(changes, key=lambda change: change.plain - change.mao)


def first_dataset(matched: Sequence[MatchedRuns]) -> str:
    """Return the data set of matched runs."""
    return matched[0].mao.result.dataset


def class_section(runs: ExperimentRuns) -> Section | None:
    """Report on the classes of an experiment; None where no run with MAO has a plain counterpart with predictions."""
    matched = match_runs(runs)
    if not matched:
        return None
    short = short_names(matched)
    shown = max(1, min(3, PICTURES // (2 * len(matched))))
    galleries: dict[str, list[ClassPicture]] = {"Improved most": [], "Suffered most": []}
    rows = []
    for name, pairs in matched.items():
        changes = class_changes(pairs)
        moved = np.array([change.mao - change.plain for change in changes])
        samples = functools.cache(functools.partial(_samples_by_name, pairs[0].mao.trial.recipe))
        for title, extreme in (("Improved most", changes[:shown]), ("Suffered most", changes[::-1][:shown])):
            sign = 1 if title == "Improved most" else -1
            galleries[title] += [
                _picture(change, short[name], len(pairs), samples)
                for change in extreme
                if sign * (change.mao - change.plain) > 0
            ]
        counts = (len(changes), (moved > 0).sum(), (moved == 0).sum(), (moved < 0).sum())
        rows.append(((short[name],), (*map(str, counts), signed(float(moved.mean()), 1), str(len(pairs)))))
    table = make_table(
        f"{runs.name}-classes",
        "Classes that MAO improves and that suffer, against plain tuning.",
        ("data set",),
        [("", title) for title in ("classes", "improved", "same", "suffered", "mean change", "pairs of runs")],
        rows,
        (
            "Base and new classes, each scored by the prompts that the tables score them with. A class counts once, "
            "over all learners and seeds of which a plain run and one with MAO are finished.",
        ),
    )
    confusions = confusion_table(runs, matched)
    return Section(
        f"{runs.name}-by-class",
        "Class by class",
        (
            "MAO against plain tuning, over all learners and seeds. The classes shown are the extremes of many, each "
            "scored on few images: part of their change is chance.",
        ),
        tables=(table,),
        galleries=tuple((title, tuple(pictures)) for title, pictures in galleries.items() if pictures),
        closing=(confusions,) if confusions else (),
    )


def _picture(
    change: ClassChange, dataset: str, runs: int, samples: "functools._lru_cache_wrapper[Mapping[str, Sample]]"
) -> ClassPicture:
    images = f"{change.images} image{'s' * (change.images != 1)}, {runs} run{'s' * (runs != 1)} each"
    gain = f"{change.plain:.0f} → {change.mao:.0f} % ({signed(change.mao - change.plain, 0)})"
    image = functools.partial(_image, change.names, samples)
    return ClassPicture(image, change.name, (f"{dataset}, {change.test}", gain, images))


def _samples_by_name(recipe: Recipe) -> Mapping[str, Sample]:
    """Return the images of a run's data set by name; none where the data set is not here."""
    data = recipe.data
    try:
        dataset = load_dataset(data.source, data.root, data.classes)
    except (ValueError, OSError) as error:
        log.warning("no pictures of %s: %s", data.source, error)
        return {}
    return {sample.image.name: sample for split in (dataset.test, dataset.val, dataset.train) for sample in split}


def _image(names: Sequence[str], samples: "functools._lru_cache_wrapper[Mapping[str, Sample]]") -> str:
    """Read the first readable image as a ``data:`` URI; empty without one."""
    for name in names:
        try:
            picture = samples()[name].image.read()
        except (KeyError, UnreadableImage):
            continue
        picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "webp", quality=80)
        return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return ""


def confusion_table(runs: ExperimentRuns, matched: Mapping[str, Sequence[MatchedRuns]]) -> ReportTable | None:
    """List the base classes that plain tuning confuses most with one of their hard negatives."""
    short = short_names(matched)
    worst: list[tuple[tuple[str, str, str], list[float]]] = []
    overall: list[list[float]] = []
    for name, pairs in matched.items():
        neighbours = next((pair.mao_scoring.neighbours for pair in pairs if pair.mao_scoring.neighbours), None)
        if "base" not in pairs[0].mao_scoring.classes or neighbours is None:
            continue
        names, near = pairs[0].mao_scoring.classes["base"], np.array(neighbours)[:, 1:]
        shares = np.stack([_confused(pairs, method, len(names)) for method in METHODS])
        chosen = np.take_along_axis(shares, near[None], axis=2)  # (methods, C, K - 1)
        overall.append(np.nanmean(chosen.sum(axis=2), axis=1).tolist())
        for row, place in np.argwhere(chosen[1] > 0):
            pair_names = (short[name], names[row], names[near[row, place]])
            worst.append((pair_names, chosen[:, row, place].tolist()))
    if not overall:
        return None
    worst.sort(key=lambda entry: -entry[1][1])
    every = [(("all", "any class", "any of its hard negatives"), np.mean(overall, axis=0).tolist()), *worst[:PAIRS]]
    group = "share of the images, %"
    return make_table(
        f"{runs.name}-confusions",
        "Confusions: base classes and their hard negatives (the classes with the names nearest to theirs).",
        ("data set", "images of", "predicted as"),
        [(group, "zero-shot"), (group, "plain"), (group, "MAO"), ("", "MAO − plain")],
        [
            (labels, (*(f"{value:.1f}" for value in values), signed(values[2] - values[1], 1)))
            for labels, values in every
        ],
        ("First row: mean over classes and data sets. Below: the pairs that plain tuning confuses most.",),
    )


def _confused(pairs: Sequence[MatchedRuns], method: str, count: int) -> NDArray[np.float64]:
    """Return (C, C): images of the row's class predicted as the column's, in percent of the row; NaN without images."""
    sums = np.zeros((count, count))
    for pair in pairs:
        codes = np.array(pair.mao_scoring.labels["base"]) * count + pair.predictions(method, "base")
        sums += np.bincount(codes, minlength=count * count).reshape(count, count)
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = 100 * sums / sums.sum(axis=1, keepdims=True)
    return shares
