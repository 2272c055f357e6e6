"""One run, from the recipe to its result: the path that every protocol takes."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batches, Stage
from maotune.data.bank import FeatureBank, default_folder
from maotune.data.batches import PixelSource, SampleBatches, Sampler, SequentialSampler
from maotune.data.dataset import Sample
from maotune.data.transforms import TestView, TrainView
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.plan import ZEROSHOT, Task, plan
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.protocols.environment import environment
from maotune.protocols.estimate import Estimate, estimate
from maotune.protocols.scoring import Scoring
from maotune.protocols.splits import Splits, Test
from maotune.recipe import Recipe, build_learner, build_splits, protocol_of, templates_of
from maotune.train.checkpoint import CheckpointError, restore_prompts
from maotune.train.evaluate import Evaluation, evaluate, harmonic_mean
from maotune.train.fit import fit
from maotune.train.history import Event, History

log = logging.getLogger(__name__)

RESULT = "result.json"
"""The file of a run's folder that says what came out."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Images that have been looked at ahead of tuning, or scored."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Plan:
    """What a run is about to do, before it does it."""

    stages: Sequence[Stage]
    shots: int
    """Labelled images."""
    unlabelled: int
    tests: int
    views: int
    """Features an image that the bank holds or will hold; 0 where the image tower is tuned."""
    parameters: int
    estimate: Estimate

    @property
    def updates(self) -> int:
        """Of all stages."""
        return sum(stage.epochs * (stage.updates or 0) for stage in self.stages)

    def __str__(self) -> str:
        stages = ", then ".join(
            f"{stage.name}: {stage.epochs} x {stage.updates} updates over {len(stage.classes)} classes"
            for stage in self.stages
        )
        images = f"{self.shots} labelled, {self.unlabelled} unlabelled, {self.tests} test images"
        views = f"{self.views} views of each from the bank" if self.views else "the image tower in each step"
        return (
            f"plan: {stages} (epochs x updates, {self.updates:,} in all); {self.parameters:,} parameters\n"
            f"      {images}; {views}; {self.estimate.features:,} image features to compute\n"
            f"      {self.estimate}"
        )


Listener = Callable[[Event | Progress | Plan], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a run, in numbers that JSON can hold. Accuracies in percent."""

    dataset: str
    protocol: str
    learner: str
    method: str
    seed: int
    shots: int
    scores: dict[str, float]
    """``base``, ``new`` and their harmonic mean ``h``; or ``val`` and ``test``."""
    scored_with: dict[str, str]
    """Which stage's prompts gave each of them."""
    zeroshot: dict[str, float]
    """The same tests by zero-shot CLIP."""
    stages: list[dict[str, Any]]
    """Per stage: updates, images, seconds, the losses of each epoch, the accuracy of its prompts on every test."""
    pseudo_labels: dict[str, float] | None
    """Their quality, where there are any."""
    skipped: list[dict[str, str]]
    """Images that could not be read."""
    templates: list[str]
    """Of zero-shot CLIP."""
    parameters: int
    """Learnable numbers."""
    peak_memory: int
    """Bytes."""
    seconds: float
    environment: dict[str, Any]
    recipe: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write ``result.json``, whole or not at all."""
        temporary = folder / f"{RESULT}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / RESULT)

    @classmethod
    def find(cls, folder: Path) -> "Result | None":
        """What ``save`` wrote into ``folder``; None where no run has been finished there."""
        path = folder / RESULT
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} was not written by this version of maotune ({error}): choose another folder, or delete it"
            ) from error


@dataclass(frozen=True, slots=True)
class Prompts:
    """What one stage tuned."""

    classes: tuple[str, ...]
    """That it was tuned on."""
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """All that a run leaves."""

    result: Result
    prompts: Mapping[str, Prompts]
    """By stage; for zero-shot CLIP, of which there is none, without tensors under its name."""
    scoring: Scoring
    history: History


@dataclass
class Bench:
    """What runs share: the frozen model, the feature bank, and how images become batches."""

    clip: FrozenCLIP
    recipe: Recipe
    listen: Listener = lambda event: None
    keep: bool = True
    """Whether the bank may keep features on disk (where the recipe says so)."""
    bank: FeatureBank = field(init=False)

    def __post_init__(self) -> None:
        data = self.recipe.data
        self.bank = FeatureBank(self.clip, default_folder() if data.bank and self.keep else None)
        self.test_view = TestView(self.clip.preprocess)
        self.train_view = TrainView(self.clip.preprocess, data.crop_scale, data.flip)
        self.views = data.views or self.recipe.epochs

    def make_batches(
        self, samples: Sequence[Sample], labels: Tensor, sampler: Sampler, *, training: bool
    ) -> Callable[[AbstractLearner], Batches]:
        """Batches of what the learner looks at: features from the bank, pixels, or both."""
        view = self.train_view if training else self.test_view

        def batches(learner: AbstractLearner) -> Batches:
            features = None
            if learner.uses_frozen_features:
                features = self.bank.features(samples, view, self.views if training else 1, self._progress("features"))
            pixels = PixelSource(samples, view) if learner.tunes_image_tower else None
            return SampleBatches(samples, labels, sampler, features=features, pixels=pixels, pairs=learner.views == 2)

        return batches

    def test_batches(self, learner: AbstractLearner, samples: Sequence[Sample]) -> Batches:
        """The images upright and whole, in order."""
        sampler = SequentialSampler(len(samples), 64 if learner.tunes_image_tower else 256)
        labels = torch.tensor([sample.label for sample in samples])
        return self.make_batches(samples, labels, sampler, training=False)(learner)

    def score(self, learner: AbstractLearner, test: Test) -> Evaluation:
        """Classify the images of ``test``; the learner is left bound to its classes."""
        learner.bind(test.classes)
        batches = self.test_batches(learner, test.samples)
        progress = self._progress("scoring")
        return evaluate(learner, batches, lambda done: progress(done, len(test.samples)))

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listen(Progress(what, done, total))


def run(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    clip: FrozenCLIP,
    resume: bool = False,
    listen: Listener | None = None,
    estimates: bool = True,
) -> Outcome:
    """Tune as ``recipe`` says and score.

    Args:
        recipe: all that decides the result.
        folder: for prompts, checkpoints and ``result.json``; None: nothing is written.
        clip: the frozen model that ``recipe.clip`` names.
        resume: go on with what is in the folder.
        listen: hears of the plan, of stages, steps and progress.
        estimates: measure what the run will cost before it begins, and tell the listener the plan.

    Raises:
        ValueError: data, recipe and folder do not fit together; the message says how.
        TrainingDiverged: the loss became infinite.
    """
    start = time.monotonic()
    bench = Bench(clip, recipe, listen or (lambda event: None))
    splits, skipped = build_splits(recipe)
    torch.manual_seed(recipe.seed)
    learner = build_learner(recipe, clip, splits.classes)
    labelled: list[PseudoLabels] = []
    stages = plan(recipe.method, task(recipe, bench, splits, labelled.append), recipe.mao)
    uses_bank = learner.uses_frozen_features and not learner.tunes_image_tower
    if listen and stages and estimates:
        listen(
            Plan(
                stages=stages,
                shots=len(splits.shots),
                unlabelled=len(splits.unlabelled.samples) if splits.unlabelled and len(stages) > 1 else 0,
                tests=sum(len(test.samples) for test in splits.tests.values()),
                views=bench.views if uses_bank else 0,
                parameters=sum(parameter.numel() for parameter in learner.parameters()),
                estimate=estimate(bench, learner, stages, splits),
            )
        )
    history = History()
    if stages:
        history = fit(
            learner,
            stages,
            recipe.train,
            folder=folder,
            resume=resume,
            seed=recipe.seed,
            scale_loss=clip.dtype == torch.float16,
            metadata={"recipe": recipe.model_dump(mode="json"), "clip": clip.fingerprint},
            on_event=bench.listen,
        )
    scored: dict[str, dict[str, Evaluation]] = {}
    for record in history.stages:
        learner.bind(splits.classes)
        restore_prompts(learner, record.prompts or {})
        scored[record.name] = {name: bench.score(learner, test) for name, test in splits.tests.items()}
    zeroshot = ZeroShot(clip, splits.classes, templates=templates_of(recipe, splits.templates))
    scored[ZEROSHOT] = {name: bench.score(zeroshot, test) for name, test in splits.tests.items()}
    accuracies = {
        prompts: {name: evaluation.accuracy for name, evaluation in of_tests.items()}
        for prompts, of_tests in scored.items()
    }
    made = labelled[-1] if labelled else None
    result = Result(
        dataset=splits.name,
        protocol=protocol_of(recipe),
        learner=recipe.title,
        method=recipe.method,
        seed=recipe.seed,
        shots=recipe.data.shots,
        **_choose(accuracies),
        zeroshot=with_mean(accuracies[ZEROSHOT]),
        stages=[
            {
                "name": record.name,
                "updates": record.updates,
                "images": record.images,
                "seconds": record.seconds,
                "losses": [epoch.losses for epoch in record.epochs],
                "accuracy": with_mean(accuracies[record.name]),
            }
            for record in history.stages
        ],
        pseudo_labels=made.report(splits.unlabelled.true_labels) if made and splits.unlabelled else None,
        skipped=[{"name": image.name, "reason": image.reason} for image in skipped],
        templates=list(zeroshot.templates),
        parameters=sum(parameter.numel() for parameter in learner.parameters()) if stages else 0,
        peak_memory=history.peak_memory,
        seconds=time.monotonic() - start,
        environment=environment(clip, splits),
        recipe=recipe.model_dump(mode="json"),
    )
    prompts = {
        stage.name: Prompts(stage.classes, record.prompts or {})
        for stage, record in zip(stages, history.stages, strict=True)
    }
    known = splits.new_classes or splits.classes if protocol_of(recipe) == "adapt" else splits.classes
    nothing = {ZEROSHOT: Prompts(known, {})}
    return Outcome(result, prompts or nothing, Scoring.of(splits, scored, made), history)


def task(recipe: Recipe, bench: Bench, splits: Splits, on_pseudo_labels: Callable[[PseudoLabels], None]) -> Task:
    """The data and means of a run in MAO's terms."""
    return Task(
        classes=splits.classes,
        shots=splits.shots,
        new_classes=splits.new_classes,
        unlabelled=splits.unlabelled,
        train=splits.train,
        make_batches=bench.make_batches,
        foundation=lambda: ZeroShot(bench.clip, splits.new_classes, templates=templates_of(recipe, splits.templates)),
        epochs=recipe.epochs,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        views=bench.views,
        seed=recipe.seed,
        cache=bench.bank.folder,
        on_pseudo_labels=on_pseudo_labels,
    )


def with_mean(accuracy: Mapping[str, float]) -> dict[str, float]:
    """The accuracies, with ``h`` where there are ``base`` and ``new``."""
    if {"base", "new"} <= accuracy.keys():
        return {**accuracy, "h": harmonic_mean(accuracy["base"], accuracy["new"])}
    return dict(accuracy)


def _choose(accuracies: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Which prompts score what.

    Base-to-new: base classes by the prompts of the first stage, new classes by those of the last (the paper's Tables 4
    and 8). Adapt: all by those that are best on the validation images, zero-shot CLIP's among them, so that tuning
    never makes it worse there; without validation images, by the last.
    """
    *stages, zeroshot = accuracies  # in their order
    stages = stages or [zeroshot]
    if "base" in accuracies[zeroshot]:
        first, last = stages[0], stages[-1]
        scores = with_mean({"base": accuracies[first]["base"], "new": accuracies[last]["new"]})
        return {"scores": scores, "scored_with": {"base": first, "new": last}}
    validated = "val" in accuracies[zeroshot]
    if not validated:
        log.warning("no validation images: the tuned prompts are used without knowing whether zero-shot CLIP is better")
    best = max(reversed([*accuracies]), key=lambda name: accuracies[name]["val"]) if validated else stages[-1]
    return {"scores": dict(accuracies[best]), "scored_with": dict.fromkeys(accuracies[zeroshot] or ("any",), best)}
