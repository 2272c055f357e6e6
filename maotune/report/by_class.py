"""Class by class: which classes MAO improves, which suffer, and which are confused with their hard negatives."""

import base64
import functools
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.dataset import Sample, UnreadableImage
from maotune.mao.methods import ZEROSHOT
from maotune.recipe import Recipe
from maotune.report.content import ClassPicture, ReportTable, Section
from maotune.report.frame import ExperimentRuns, short_names
from maotune.report.sentences import signed
from maotune.runs.predictions import Scoring

PICTURES = 40
"""Largest number of pictures in a page."""
SIDE = 96
"""Longer side of a picture in pixels."""
PAIRS = 12
"""Number of confusions that are listed."""
METHODS = [ZEROSHOT, "plain", "mao"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MatchedRuns:
    """Predictions of a run with MAO and of the plain one with the same data set, learner, variant and seed."""

    recipe: Recipe
    scoring: Scoring
    """Of the run with MAO."""
    predictions: pd.DataFrame
    """A row per scored image: its ``test`` and ``label``, and the predictions of ``METHODS``."""


def match_runs(runs: ExperimentRuns) -> dict[str, list[MatchedRuns]]:
    """Return the matched runs of each data set that have kept their predictions of the same images."""
    by_key = {(*run.key, run.result.dataset, run.result.seed): run for run in runs.finished}
    matched: dict[str, list[MatchedRuns]] = {name: [] for name in runs.scores.datasets}
    for (learner, method, *rest), mao in by_key.items():
        plain = by_key.get((learner, "plain", *rest))  # type: ignore[arg-type]
        if method != "mao" or plain is None:
            continue
        scoring, other = mao.trial.scoring(), plain.trial.scoring()
        if scoring and other and scoring.labels == other.labels:
            tests = [
                {
                    "test": pd.Categorical([test] * len(labels), [*scoring.labels]),
                    "label": labels,
                    ZEROSHOT: scoring.predicted[ZEROSHOT][test],
                    "plain": other.predicted[plain.result.scored_with[test]][test],
                    "mao": scoring.predicted[mao.result.scored_with[test]][test],
                }
                for test, labels in scoring.labels.items()
            ]
            predictions = pd.concat(map(pd.DataFrame, tests))
            matched[mao.result.dataset].append(MatchedRuns(mao.trial.recipe, scoring, predictions))
    return {name: pairs for name, pairs in matched.items() if pairs}


def class_changes(matched: Sequence[MatchedRuns]) -> pd.DataFrame:
    """Return the accuracy of every scored class over all matched runs, in percent, the most improved first.

    The index is ``test`` and ``label``, the columns ``plain``, ``mao``, ``change`` and ``images`` of one run.
    """
    every = pd.concat(pair.predictions for pair in matched)
    right = every[["plain", "mao"]].eq(every["label"], axis=0).groupby([every["test"], every["label"]], observed=True)
    changes = (100 * right.sum()).div(right.size(), axis=0)
    changes["change"] = changes["mao"] - changes["plain"]
    changes["images"] = (right.size() / len(matched)).round().astype(int)
    return changes.sort_values("change", ascending=False, kind="stable")


def class_section(runs: ExperimentRuns) -> Section | None:
    """Report on the classes of an experiment; None where no run with MAO has a plain counterpart with predictions."""
    matched = match_runs(runs)
    if not matched:
        return None
    short = short_names(matched)
    shown = max(1, min(3, PICTURES // (2 * len(matched))))
    improved: list[ClassPicture] = []
    suffered: list[ClassPicture] = []
    rows = []
    for name, pairs in matched.items():
        changes = class_changes(pairs)
        change = changes["change"]
        pictures = _Pictures(short[name], pairs)
        improved += map(pictures.show, changes[change > 0].head(shown).itertuples())
        suffered += map(pictures.show, changes[change < 0][::-1].head(shown).itertuples())
        counts = (len(changes), (change > 0).sum(), (change == 0).sum(), (change < 0).sum())
        rows.append(((short[name],), (*map(str, counts), signed(change.mean(), 1), str(len(pairs)))))
    table = ReportTable(
        f"{runs.name}-classes",
        "Classes that MAO improves and that suffer, against plain tuning.",
        ("data set",),
        ("classes", "improved", "same", "suffered", "mean change", "pairs of runs"),
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
        tables=[table],
        galleries={title: of for title, of in {"Improved most": improved, "Suffered most": suffered}.items() if of},
        closing=[confusions] if confusions else [],
    )


class _Pictures:
    """Pictures of the classes of a data set, which is read when the first one is shown."""

    def __init__(self, dataset: str, pairs: Sequence[MatchedRuns]) -> None:
        self.dataset, self.runs = dataset, len(pairs)
        self.recipe, self.scoring = pairs[0].recipe, pairs[0].scoring

    def show(self, row: Any) -> ClassPicture:
        """Return the picture of a row of ``class_changes``."""
        (test, label), images, runs = row.Index, row.images, self.runs
        names = np.array((self.scoring.images or {}).get(test, []))
        own = names[np.array(self.scoring.labels[test]) == label] if len(names) else names
        lines = (
            f"{self.dataset}, {test}",
            f"{row.plain:.0f} → {row.mao:.0f} % ({signed(row.change, 0)})",
            f"{images} image{'s' * (images != 1)}, {runs} run{'s' * (runs != 1)} each",
        )
        return ClassPicture(functools.partial(self._image, own.tolist()), self.scoring.classes[test][label], lines)

    @functools.cached_property
    def _samples(self) -> Mapping[str, Sample]:
        """The images of the data set by name; none where the data set is not here."""
        data = self.recipe.data
        try:
            dataset = load_dataset(data.source, data.root, data.classes, as_words=data.as_words)
        except (ValueError, OSError) as error:
            log.warning("no pictures of %s: %s", data.source, error)
            return {}
        return {sample.image.name: sample for split in (dataset.test, dataset.val, dataset.train) for sample in split}

    def _image(self, names: Sequence[str]) -> str:
        """Read the first readable image as a ``data:`` URI; empty without one."""
        for name in names:
            try:
                picture = self._samples[name].image.read()
            except (KeyError, UnreadableImage):
                continue
            picture.thumbnail((SIDE, SIDE))
            file = io.BytesIO()
            picture.save(file, "webp", quality=80)
            return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
        return ""


def confusion_table(runs: ExperimentRuns, matched: Mapping[str, Sequence[MatchedRuns]]) -> ReportTable:
    """List the base classes that plain tuning confuses most with one of their hard negatives."""
    short = short_names(matched)
    worst: list[tuple[tuple[str, str, str], list[float]]] = []
    overall: list[list[float]] = []
    for name, pairs in matched.items():
        neighbours = next((pair.scoring.neighbours for pair in pairs if pair.scoring.neighbours), None)
        if "base" not in pairs[0].scoring.classes or neighbours is None:
            continue
        names, near = pairs[0].scoring.classes["base"], np.array(neighbours)[:, 1:]
        base = pd.concat(pair.predictions[pair.predictions["test"] == "base"] for pair in pairs)
        counts = np.zeros((len(METHODS), len(names), len(names)))  # of images of the row's class, by predicted class
        for count, method in zip(counts, METHODS, strict=True):
            np.add.at(count, (base["label"], base[method]), 1)
        with np.errstate(invalid="ignore"):
            shares = 100 * counts / counts.sum(axis=2, keepdims=True)
        chosen = np.take_along_axis(shares, near[None], axis=2)  # (methods, C, K - 1)
        overall.append(np.nanmean(chosen.sum(axis=2), axis=1).tolist())
        for row, place in np.argwhere(chosen[1] > 0):
            pair_names = (short[name], names[row], names[near[row, place]])
            worst.append((pair_names, chosen[:, row, place].tolist()))
    worst.sort(key=lambda entry: -entry[1][1])
    if overall:
        worst.insert(0, (("all", "any class", "any of its hard negatives"), np.mean(overall, axis=0).tolist()))
    return ReportTable(
        f"{runs.name}-confusions",
        "Confusions: base classes and their hard negatives (the classes with the names nearest to theirs).",
        ("data set", "images of", "predicted as"),
        ("zero-shot", "plain", "MAO", "MAO − plain"),
        [
            (labels, (*(f"{value:.1f}" for value in values), signed(values[2] - values[1], 1)))
            for labels, values in worst[: PAIRS + 1]
        ],
        ("First row: mean over classes and data sets. Below: the pairs that plain tuning confuses most.",),
        ["share of the images, %"] * len(METHODS) + [""],
    )
