"""Quality of the pseudo-labels that MAO's new stage learns from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from maotune.report.content import FigurePanels, ReportTable, Section
from maotune.report.figures import plot_pseudo_labels
from maotune.report.frame import BALANCED, ExperimentRuns, short_names
from maotune.report.tables import HIDDEN_BALANCE

COLUMNS = {
    "images": ("images", 1, 0),
    "accuracy": ("accuracy, %", 100, 1),
    "confidence": ("confidence, %", 100, 1),
    "balance": ("balance, %", 100, 1),
    "classes_without_image": ("classes without image", 1, 1),
    "off_class": ("off-class, %", 100, 1),
    "kept": ("kept, %", 100, 1),
    "kept_accuracy": ("accuracy of those kept, %", 100, 1),
}
"""Key of a run's report -> title, factor and digits."""
Labelling = Mapping[str, Any]
"""``Scoring.pseudo_labels``."""


def pseudo_label_section(runs: ExperimentRuns) -> Section | None:
    """Report accuracy, confidence and balance by data set; a labelling counts once, however many learners used it."""
    reports: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    labellings: dict[str, dict[tuple[int, ...], Labelling]] = {}
    for run in runs.finished:
        report, mao = run.result.pseudo_labels, run.trial.recipe.mao
        labeler = mao.labeler if mao.unlabelled == "balanced" else f"{mao.labeler}, {mao.unlabelled}"
        labeler += BALANCED * run.variant.endswith(BALANCED)
        of_set = reports.setdefault((run.result.dataset, labeler), []) if report else []
        if report and report not in of_set:
            of_set.append(report)
            scoring = run.trial.scoring()
            if scoring and scoring.pseudo_labels and mao.labeler == "foundation":
                labels = scoring.pseudo_labels
                labellings.setdefault(run.result.dataset, {})[tuple(labels["given"])] = labels
    if not reports:
        return None
    short = short_names(dict.fromkeys(name for name, _ in reports))
    means = pd.DataFrame({key: pd.DataFrame(of_set).mean() for key, of_set in reports.items()}).T
    several = len({labeler for _, labeler in reports}) > 1
    shown = {key: column for key, column in COLUMNS.items() if key in means}
    rows = []
    for (name, labeler), row in means.iterrows():
        cells = [
            f"{factor * row[key]:.{digits}f}" if pd.notna(row[key]) else "–"
            for key, (_, factor, digits) in shown.items()
        ]
        rows.append(((short[name], labeler) if several else (short[name],), cells))
    table = ReportTable(
        f"{runs.name}-pseudo-labels",
        "Pseudo-labels of the unlabelled images, mean over seeds.",
        ("data set", "labeler") if several else ("data set",),
        [title for title, _, _ in shown.values()],
        rows,
        (
            "Accuracy: where the true label is known (it is hidden from tuning). Balance: 100 % where all classes got "
            "equally many images. Off-class: images of none of the classes. Confidence above accuracy means that the "
            "labeler is too sure of itself.",
            HIDDEN_BALANCE if any(labeler.endswith(BALANCED) for _, labeler in reports) else "",
        ),
    )
    figures = [_figure(runs.name, labellings)] if labellings else []
    return Section(f"{runs.name}-labels", "Pseudo-labels", parts=[table, *figures])


def _figure(name: str, labellings: Mapping[str, Mapping[Any, Labelling]]) -> FigurePanels:
    every = [labels for of_set in labellings.values() for labels in of_set.values()]
    images = pd.concat(pd.DataFrame({key: labels[key] for key in ("given", "true", "confidence")}) for labels in every)
    known = images[images["true"] >= 0]
    right = known["given"] == known["true"]
    shares = {dataset: _shares([*of_set.values()]) for dataset, of_set in labellings.items()}
    sure, unsure = (known["confidence"][side].tolist() for side in (right, ~right))
    return plot_pseudo_labels(f"{name}-pseudo", sure, unsure, shares)


def _shares(labellings: list[Labelling]) -> list[float]:
    """Return the images given to each class, 1 being an equal share, as means over seeds."""
    counts = [np.bincount(labels["given"], minlength=len(labels["classes"])) for labels in labellings]
    shares: list[float] = np.mean([count / max(1e-9, count.mean()) for count in counts], axis=0).tolist()
    return shares
