"""Inference speed of finished trials: measured after the sweep, one trial at a time."""

from collections.abc import Iterable

from maotune.recipe.schema import ClipSettings
from maotune.runs.build import build_splits
from maotune.runs.inference import Inference, measure_inference
from maotune.runs.tuned import Run, load_run
from maotune.sweep.manifest import Trial


def measure(trials: Iterable[Trial]) -> None:
    """Write ``inference.json`` into the folders of finished trials that lack it; nothing else should be running."""
    loaded: dict[ClipSettings, Run] = {}  # trials of one CLIP share it
    for trial in trials:
        if Inference.find(trial.folder) is not None:
            continue
        before = loaded.get(trial.recipe.clip)
        run = loaded[trial.recipe.clip] = load_run(trial.folder, clip=before.clip if before else None)
        splits = build_splits(run.recipe).splits
        test = [*splits.tests.values()][-1]
        measure_inference(run.clip, run.learner(test.classes), test.samples).save(trial.folder)
