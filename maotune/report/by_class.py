"""Class by class: which classes MAO improves, which suffer, and which are confused with their hard negatives."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from maotune.mao.methods import ZEROSHOT
from maotune.recipe import Recipe
from maotune.report.content import Gallery, Picture, ReportTable, Section
from maotune.report.frame import ExperimentRuns, short_names
from maotune.report.pictures import DatasetPictures
from maotune.report.sentences import counted, signed
from maotune.runs.predictions import Scoring

PICTURES = 40
"""Largest number of pictures in a page."""
PAIRS = 12
"""Number of confusions that are listed."""
METHODS = [ZEROSHOT, "plain", "mao"]


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
            first = sorted(scoring.labels, key=lambda test: test != runs.scores.measure)
            kept = {tuple(scoring.classes[test]): test for test in reversed(first)}.values()  # each class once
            tests = [
                {
                    "test": pd.Categorical([test] * len(labels), [*scoring.labels]),
                    "label": labels,
                    ZEROSHOT: scoring.predicted[ZEROSHOT][test],
                    "plain": other.predicted[plain.result.scored_with[test]][test],
                    "mao": scoring.predicted[mao.result.scored_with[test]][test],
                }
                for test, labels in scoring.labels.items()
                if test in kept
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
    improved: list[Picture] = []
    suffered: list[Picture] = []
    rows = []
    for name, pairs in matched.items():
        changes = class_changes(pairs)
        change = changes["change"]
        improved += _pictures(short[name], pairs, changes[change > 0].head(shown))
        suffered += _pictures(short[name], pairs, changes[change < 0][::-1].head(shown))
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
    galleries = [Gallery("Improved most", improved), Gallery("Suffered most", suffered)]
    return Section(
        f"{runs.name}-by-class",
        "Class by class",
        (
            "MAO against plain tuning, over all learners and seeds. The classes shown are the extremes of many, each "
            "scored on few images: part of their change is chance.",
        ),
        [table, *galleries, confusion_table(runs, matched)],
    )


def _pictures(dataset: str, pairs: Sequence[MatchedRuns], changes: pd.DataFrame) -> Iterator[Picture]:
    """Yield a picture for each row of ``class_changes``."""
    scoring, pictures = pairs[0].scoring, DatasetPictures(pairs[0].recipe)
    for (test, label), row in changes.iterrows():
        images = (scoring.images or {}).get(test, ())
        own = [name for name, of in zip(images, scoring.labels[test], strict=False) if of == label]
        runs = counted(len(pairs), "run")
        lines = (
            f"{dataset}, {test}",
            f"{row['plain']:.0f} → {row['mao']:.0f} % ({signed(row['change'], 0)})",
            f"{counted(int(row['images']), 'image')}, {runs} each",
        )
        yield Picture(functools.partial(pictures.show, own), scoring.classes[test][label], lines)


def confusion_table(runs: ExperimentRuns, matched: Mapping[str, Sequence[MatchedRuns]]) -> ReportTable:
    """List the base classes that plain tuning confuses most with one of their hard negatives."""
    confusions: list[pd.DataFrame] = []
    for name, short in short_names(matched).items():
        scoring = next((pair.scoring for pair in matched[name] if pair.scoring.neighbours), None)
        if scoring is None or "base" not in scoring.classes:
            continue
        base = pd.concat(pair.predictions for pair in matched[name]).query("test == 'base'")
        near = [
            (own, other) for own, *others in scoring.neighbours or () for other in others if own in {*base["label"]}
        ]
        shares = base.melt("label", METHODS, "method", "predicted").groupby(["method", "label"])["predicted"]
        taken = 100 * shares.value_counts(normalize=True).unstack("method").reindex(near)[METHODS].fillna(0)
        names = np.array(scoring.classes["base"])
        own, other = (names[taken.index.get_level_values(level)] for level in ("label", "predicted"))
        confusions.append(taken.set_axis(pd.MultiIndex.from_arrays([[short] * len(taken), own, other])))
    rows: list[tuple[tuple[str, ...], Sequence[float]]] = []
    if confusions:
        every = pd.concat(confusions)
        overall = every.groupby(level=[0, 1]).sum().groupby(level=0).mean().mean()
        worst = every[every["plain"] > 0].sort_values("plain", ascending=False, kind="stable").head(PAIRS)
        rows = [
            (("all", "any class", "any of its hard negatives"), overall.to_list()),
            *zip(worst.index, worst.to_numpy(), strict=True),
        ]
    return ReportTable(
        f"{runs.name}-confusions",
        "Confusions: base classes and their hard negatives (the classes with the names nearest to theirs).",
        ("data set", "images of", "predicted as"),
        ("zero-shot", "plain", "MAO", "MAO − plain"),
        [
            (labels, (*(f"{share:.1f}" for share in shares), signed(shares[2] - shares[1], 1)))
            for labels, shares in rows
        ],
        ("First row: mean over classes and data sets. Below: the pairs that plain tuning confuses most.",),
        ["share of the images, %"] * len(METHODS) + [""],
    )
