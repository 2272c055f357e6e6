"""How fast the prompts of finished trials classify: measured after the sweep, one trial at a time."""

from collections.abc import Iterable

from maotune.api import load
from maotune.clip import FrozenCLIP
from maotune.protocols.cost import Inference, measure_inference
from maotune.recipe import ClipSettings, build_splits
from maotune.sweep.manifest import Trial


def measure(trials: Iterable[Trial]) -> None:
    """Write ``inference.json`` into the folders of finished trials that have none; nothing else should be running."""
    clips: dict[ClipSettings, FrozenCLIP] = {}
    for trial in trials:
        if Inference.find(trial.folder) is not None:
            continue
        run = load(trial.folder, clip=clips.get(trial.recipe.clip))
        clips[trial.recipe.clip] = run.clip
        splits, _ = build_splits(run.recipe)
        test = [*splits.tests.values()][-1]
        measure_inference(run.clip, run.learner(test.classes), test.samples).save(trial.folder)
