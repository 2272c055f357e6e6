"""Quality of the pseudo-labels that MAO's new stage learns from."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from maotune.report.content import FigurePanels, LegendEntry, Section, make_table
from maotune.report.figures import plot_balance, plot_confidence
from maotune.report.frame import ExperimentRuns, short_names

COLUMNS = {
    "images": ("images", 1, 0),
    "accuracy": ("accuracy, %", 100, 1),
    "confidence": ("confidence, %", 100, 1),
    "balance": ("balance, %", 100, 1),
    "classes_without_image": ("classes without image", 1, 1),
    "off_class": ("off-class, %", 100, 1),
}
"""Key of a run's report -> title, factor and digits."""


def pseudo_label_section(runs: ExperimentRuns) -> Section | None:
    """Report accuracy, confidence and balance by data set; a labelling counts once, however many learners used it."""
    reports: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    labels: dict[str, dict[tuple[int, ...], Mapping[str, Any]]] = {}
    for run in runs.finished:
        report, labeler = run.result.pseudo_labels, run.trial.recipe.mao.labeler
        of_set = reports.setdefault((run.result.dataset, labeler), []) if report else []
        if report and report not in of_set:
            of_set.append(report)
            scoring = run.trial.scoring()
            if scoring and scoring.pseudo_labels and labeler == "foundation":
                labels.setdefault(run.result.dataset, {})[tuple(scoring.pseudo_labels["given"])] = scoring.pseudo_labels
    if not reports:
        return None
    short = short_names(dict.fromkeys(name for name, _ in reports))
    means = pd.DataFrame({key: pd.DataFrame(of_set).mean() for key, of_set in reports.items()}).T
    shown = {key: column for key, column in COLUMNS.items() if key in means}
    several = len({labeler for _, labeler in reports}) > 1
    rows = [
        (
            (short[name], labeler) if several else (short[name],),
            [
                f"{factor * row[key]:.{digits}f}" if row[key] == row[key] else "–"
                for key, (_, factor, digits) in shown.items()
            ],
        )
        for (name, labeler), row in means.iterrows()
    ]
    table = make_table(
        f"{runs.name}-pseudo-labels",
        "Pseudo-labels of the unlabelled images, mean over seeds.",
        ("data set", "labeler") if several else ("data set",),
        [("", title) for title, _, _ in shown.values()],
        rows,
        (
            "Accuracy: where the true label is known (it is hidden from tuning). Balance: 100 % where all classes got "
            "equally many images. Off-class: images of none of the classes. Confidence above accuracy means that the "
            "labeler is too sure of itself.",
        ),
    )
    figures = (_figure(runs, labels),) if labels else ()
    return Section(f"{runs.name}-labels", "Pseudo-labels", tables=(table,), figures=figures)


def _figure(runs: ExperimentRuns, labels: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> FigurePanels:
    confidences = {name: _confidences(of_set.values()) for name, of_set in labels.items()}
    right, wrong = ([value for sides in confidences.values() for value in sides[side]] for side in (0, 1))
    panels = [plot_confidence(right, wrong, "confidence")] if right or wrong else []
    panels.append(plot_balance({name: _shares(of_set.values()) for name, of_set in labels.items()}, "balance"))
    return FigurePanels(
        f"{runs.name}-pseudo",
        "Confidence of the labeler where it is right and where it is wrong (hatched), and how many images each class "
        "was given, a dot per class. A true label has to be known for the first.",
        tuple(panels),
        (LegendEntry("■", "green", "right"), LegendEntry("▨", "orange", "wrong")),
    )


def _confidences(labellings: Iterable[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Return the confidences of right and of wrong labels."""
    right, wrong = [], []
    for labels in labellings:
        given, true, confidence = (np.array(labels[key]) for key in ("given", "true", "confidence"))
        right += confidence[(true >= 0) & (given == true)].tolist()
        wrong += confidence[(true >= 0) & (given != true)].tolist()
    return right, wrong


def _shares(labellings: Iterable[Mapping[str, Any]]) -> list[float]:
    """Return the images given to each class, 1 being an equal share, as means over seeds."""
    counts = [np.bincount(labels["given"], minlength=len(labels["classes"])) for labels in labellings]
    shares: list[float] = np.mean([count / max(1e-9, count.mean()) for count in counts], axis=0).tolist()
    return shares
