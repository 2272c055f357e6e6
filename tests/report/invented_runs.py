"""Sweeps whose trials are finished without tuning: real recipes and images, predictions drawn at random."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from maotune.contract import Predictors
from maotune.experiments.catalog import PlannedRun
from maotune.mao.methods import ZEROSHOT
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.protocols.protocol import Splits, Test
from maotune.recipe import Recipe
from maotune.runs.build import build_splits
from maotune.runs.predictions import Scoring
from maotune.runs.result import Result
from maotune.sweep.manifest import Sweep, Trial
from maotune.train.evaluate import Evaluation

STAGES = {
    ZEROSHOT: (),
    "mao": ("base", "new"),
    "base-only": ("base",),
    "new-only": ("plain", "new"),
    "new-full": ("base", "new"),
    "distill": ("distill",),
}
Quality = Callable[[Recipe, str, str], float]
"""How often the prompts of a stage are right on a test, of 1."""


def sweep(folder: Path, experiment: str, planned: Sequence[PlannedRun], quality: Quality, unfinished: int = 0) -> Sweep:
    """A sweep in ``folder`` with all but the last trials finished."""
    trials = [Trial(folder / one.recipe.slug, experiment, one.variant, one.recipe) for one in planned]
    made = Sweep(folder, trials, (f"maotune run {experiment}",))
    made.save()
    for trial in trials[: len(trials) - unfinished]:
        finish(trial, quality)
    return made


def finish(trial: Trial, quality: Quality) -> None:
    """Write what a run would have written."""
    recipe = trial.recipe
    splits = build_splits(recipe).splits
    # Not by the recipe, whose hash changes with its folder and with every new setting.
    place = (splits.name, trial.variant, recipe.title, recipe.method, recipe.seed)
    random = np.random.default_rng(zlib.crc32(repr(place).encode()))
    names = STAGES.get(recipe.method, (recipe.method,))
    names = names if splits.new_stage else names[:1]
    scored = {
        stage: {name: _evaluation(splits.tests, name, quality(recipe, stage, name), random) for name in splits.tests}
        for stage in names
    }
    known = np.random.default_rng(0)  # zero-shot CLIP knows no seed
    scored[ZEROSHOT] = {
        name: _evaluation(splits.tests, name, quality(recipe, ZEROSHOT, name), known) for name in splits.tests
    }
    accuracies = {stage: {name: one.accuracy for name, one in of.items()} for stage, of in scored.items()}
    ends = names or (ZEROSHOT,)
    predictors = recipe.protocol_in_use.choose(Predictors(ends[0], ends[-1]), accuracies)
    chosen = {name: predictors.of(test.classes, splits.classes) for name, test in splits.tests.items()}
    made = _pseudo_labels(splits, random) if "new" in names else None
    trial.folder.mkdir(exist_ok=True)
    Result(
        dataset=splits.name,
        protocol=recipe.protocol_in_use.name,
        learner=recipe.title,
        method=recipe.method,
        seed=recipe.seed,
        shots=recipe.data.shots,
        scores=recipe.protocol_in_use.means(splits, {name: accuracies[chosen[name]][name] for name in splits.tests}),
        scored_with=chosen,
        zeroshot=recipe.protocol_in_use.means(splits, accuracies[ZEROSHOT]),
        stages=[
            {
                "name": stage,
                "updates": 10,
                "images": 320,
                "seconds": 2.0,
                "losses": [{"ce": 2.0 - 0.1 * epoch} for epoch in range(3)],
                "accuracy": recipe.protocol_in_use.means(splits, accuracies[stage]),
            }
            for stage in names
        ],
        pseudo_labels=made.report(splits.unlabelled.true_labels) if made and splits.unlabelled else None,
        skipped=[],
        templates=["a photo of a {}."],
        parameters=2048,
        peak_memory=10**8,
        seconds=5.0,
        environment={
            "maotune": "0", "git": {"commit": "0123456789abcdef", "changed": False}, "torch": "2", "transformers": "5",
            "python": "3", "machine": "x86_64", "device": "cpu", "threads": 1,
            "clip": {"name": "toy", "fingerprint": "feedc0de", "dtype": "float32"},
            "data": {"base_classes": len(splits.classes), "new_classes": len(splits.new_classes), "fingerprint": "ab"},
        },
        recipe=recipe.model_dump(mode="json"),
    ).save(trial.folder)  # fmt: skip
    count = len(splits.classes)
    neighbours = (torch.arange(count)[:, None] + torch.arange(min(count, 8))) % count  # each class, then the next ones
    Scoring.of(splits, scored, made, neighbours).save(trial.folder)


def _evaluation(tests: Mapping[str, Test], name: str, right: float, random: np.random.Generator) -> Evaluation:
    """Predictions that are right by chance, and scores: high among the list of a right prediction."""
    classes = tests[name].classes
    labels = np.array([sample.label for sample in tests[name].samples])
    guesses = random.integers(len(classes), size=len(labels))
    told = np.where(random.random(len(labels)) < right, labels, guesses)
    highest = 20 + 5 * random.random(len(labels)) + (told == labels)
    rivals = {other: torch.from_numpy(20 + 5 * random.random(len(labels))) for other in tests if other != name}
    return Evaluation(classes, torch.from_numpy(labels), torch.from_numpy(told), torch.from_numpy(highest), rivals)


def _pseudo_labels(splits: Splits, random: np.random.Generator) -> PseudoLabels | None:
    if splits.unlabelled is None:
        return None
    count = len(splits.unlabelled.samples)
    labels = torch.from_numpy(random.integers(len(splits.new_classes), size=count))
    return PseudoLabels(
        labels,
        torch.from_numpy(random.random(count)),
        splits.new_classes,
        tuple(sample.image.name for sample in splits.unlabelled.samples),
    )
