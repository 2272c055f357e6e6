"""How good the labels are that MAO's new stage learns from."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from maotune.report.curves import balance, confidence
from maotune.report.document import Cell, Figure, Group, Key, Line, Section, Table
from maotune.report.study import Study, short_names


def section(study: Study) -> Section | None:
    """Accuracy, confidence and balance by data set; each labelling counts once, however many learners used it."""
    reports: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    kept: dict[str, dict[tuple[int, ...], Mapping[str, Any]]] = {}
    for run in study.runs:
        report = run.result.pseudo_labels
        if not report:
            continue
        labeler: str = run.trial.recipe.mao.labeler
        of_set = reports.setdefault((run.result.dataset, labeler), [])
        if report not in of_set:
            of_set.append(report)
            scoring = run.trial.scoring()
            if scoring and scoring.pseudo_labels and labeler == "foundation":
                said = scoring.pseudo_labels
                kept.setdefault(run.result.dataset, {})[tuple(said["given"])] = said
    if not reports:
        return None
    short = short_names(dict.fromkeys(name for name, _ in reports))
    labelers = len({labeler for _, labeler in reports}) > 1
    columns = {
        "images": ("images", 1, 0), "accuracy": ("accuracy, %", 100, 1), "confidence": ("confidence, %", 100, 1),
        "balance": ("balance, %", 100, 1), "classes_without_image": ("classes without image", 1, 1),
        "off_class": ("off-class, %", 100, 1),
    }  # fmt: skip
    shown = {key: how for key, how in columns.items() if any(key in report for of in reports.values() for report in of)}
    lines = []
    for (name, labeler), of_set in reports.items():
        cells = []
        for key, (_, factor, digits) in shown.items():
            values = [report[key] for report in of_set if key in report]
            cells.append(Cell(f"{factor * fmean(values):.{digits}f}" if values else "–"))
        lines.append(Line((short[name], *([labeler] if labelers else [])), tuple(cells)))
    table = Table(
        f"{study.name}-pseudo-labels",
        "Pseudo-labels of the unlabelled images, mean over seeds.",
        ("data set", *(["labeler"] if labelers else [])),
        (Group("", tuple(title for title, _, _ in shown.values())),),
        tuple(lines),
        (
            "Accuracy: where the true label is known (it is hidden from tuning). Balance: 100 % where all classes got "
            "equally many images. Off-class: images of none of the classes. Confidence above accuracy means that the "
            "labeler is too sure of itself.",
        ),
    )
    figure = None
    if kept:
        made = {name: _collected(of_set.values()) for name, of_set in kept.items()}
        right, wrong = ([value for one in made.values() for value in one[side]] for side in ("right", "wrong"))
        panels = [confidence(right, wrong, "confidence")] if right or wrong else []
        panels.append(balance({name: one["shares"] for name, one in made.items()}, "balance"))
        figure = Figure(
            f"{study.name}-pseudo",
            "How sure the labeler is where it is right and where it is wrong (hatched), and how many images each "
            "class was "
            "given, a dot a class. A true label has to be known for the first.",
            tuple(panels),
            (Key("■", "green", "right"), Key("▨", "orange", "wrong")),
        )
    return Section(f"{study.name}-labels", "Pseudo-labels", tables=(table,), figures=tuple(filter(None, [figure])))


def _collected(of_set: Any) -> dict[str, Any]:
    """Over the seeds of a data set: confidences of right and of wrong labels, and the classes' shares of the images."""
    right: list[float] = []
    wrong: list[float] = []
    shares = []
    for made in of_set:
        given, true, sure = (np.array(made[key]) for key in ("given", "true", "confidence"))
        known = true >= 0
        right += sure[known & (given == true)].tolist()
        wrong += sure[known & (given != true)].tolist()
        counts = np.bincount(given, minlength=len(made["classes"]))
        shares.append(counts / max(1e-9, counts.mean()))
    return {"right": right, "wrong": wrong, "shares": np.mean(shares, axis=0).tolist()}
