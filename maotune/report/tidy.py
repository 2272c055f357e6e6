"""All numbers of the runs as one tidy table: a row for each trial and measure."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from maotune.mao.methods import ZEROSHOT
from maotune.report.study import Run, Study

COLUMNS = (
    "experiment", "variant", "trial", "protocol", "dataset", "learner", "method", "seed", "shots", "prompts", "measure",
    "value", "scored_with", "updates", "images", "tuning_seconds", "seconds", "peak_memory", "parameters",
    "pseudo_label_accuracy", "recipe", "data_fingerprint", "clip_fingerprint", "commit", "changed", "maotune",
    "torch", "device",
)  # fmt: skip
"""``prompts`` is ``result`` for the accuracies that count, else the stage (or ``zeroshot``) whose prompts scored the
``value``; ``recipe`` is a hash of all settings but the seed; accuracies are in percent, memory in bytes."""


def tidy(studies: Sequence[Study]) -> str:
    """CSV with a header."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for study in studies:
        for run in study.runs:
            writer.writerows(_rows(study.name, run))
    return file.getvalue()


def _rows(experiment: str, run: Run) -> Iterator[dict[str, Any]]:
    result, trial = run.result, run.trial
    environment = result.environment
    git = environment.get("git") or {}
    same = {
        "experiment": experiment,
        "variant": trial.variant,
        "trial": trial.name,
        "protocol": result.protocol,
        "dataset": result.dataset,
        "learner": result.learner,
        "method": result.method,
        "seed": result.seed,
        "shots": result.shots,
        "updates": sum(stage["updates"] for stage in result.stages),
        "images": sum(stage["images"] for stage in result.stages),
        "tuning_seconds": round(sum(stage["seconds"] for stage in result.stages), 3),
        "seconds": round(result.seconds, 3),
        "peak_memory": result.peak_memory,
        "parameters": result.parameters,
        "pseudo_label_accuracy": (result.pseudo_labels or {}).get("accuracy", ""),
        "recipe": _hash({key: value for key, value in result.recipe.items() if key != "seed"}),
        "data_fingerprint": environment.get("data", {}).get("fingerprint", ""),
        "clip_fingerprint": environment.get("clip", {}).get("fingerprint", ""),
        "commit": git.get("commit", ""),
        "changed": git.get("changed", ""),
        "maotune": environment.get("maotune", ""),
        "torch": environment.get("torch", ""),
        "device": environment.get("device", ""),
    }
    tables = [("result", result.scores), *((stage["name"], stage["accuracy"]) for stage in result.stages)]
    for prompts, scores in [*tables, (ZEROSHOT, result.zeroshot)]:
        for measure, value in scores.items():
            by = result.scored_with.get(measure, "") if prompts == "result" else prompts
            yield same | {"prompts": prompts, "measure": measure, "value": round(value, 4), "scored_with": by}


def _hash(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
