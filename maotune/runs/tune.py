"""One run, from the recipe to its result: the path that every protocol takes."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batches, Stage
from maotune.data.feature_bank import FeatureBank, default_folder
from maotune.data.batches import PixelSource, SampleBatches, Sampler, SequentialSampler
from maotune.data.sets.dataset import Sample
from maotune.data.images.views import TestView, TrainView
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.stages import ZEROSHOT, Task, plan
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.runs.provenance import environment
from maotune.runs.estimate import Estimate, estimate, uses_pool
from maotune.runs.predictions import Scoring
from maotune.protocols.splits import Splits, Test
from maotune.recipe import Recipe, build_learner, build_splits, protocol_of, templates_of, with_own_texts
from maotune.train.session import CheckpointError, restore_prompts, write_whole
from maotune.train.evaluate import Evaluation, evaluate
from maotune.train.loop import fit
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
    """By test, and what sums them up: ``base``, ``new`` and their harmonic mean ``h``; ``val`` and ``test`` in adapt;
    ``all`` in few-shot; the data sets and their ``average`` in cross-dataset."""
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
    """Of the process that finished it; those of the stages count all processes."""
    environment: dict[str, Any]
    recipe: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write ``result.json``, whole or not at all."""
        write_whole(folder / RESULT, json.dumps(asdict(self), indent=1) + "\n")

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

    recipe: Recipe
    """As it was run, with the data set's own texts in it."""
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
    recipe = with_own_texts(recipe, splits.templates[0])
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
                unlabelled=len(splits.unlabelled.samples) if splits.unlabelled and uses_pool(stages) else 0,
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
        if resume and not labelled:  # the stage that labels was finished before an interruption
            _label_again(learner, splits.classes, stages, history)
    scored: dict[str, dict[str, Evaluation]] = {}
    for record in history.stages:
        learner.bind(splits.classes)
        restore_prompts(learner, record.prompts or {})
        scored[record.name] = {name: bench.score(learner, test) for name, test in splits.tests.items()}
    zeroshot = ZeroShot(clip, splits.classes, templates=templates_of(recipe, splits.templates))
    scored[ZEROSHOT] = {}
    for name, test in splits.tests.items():
        zeroshot.templates = templates_of(recipe, test.templates or splits.templates)
        scored[ZEROSHOT][name] = bench.score(zeroshot, test)
    accuracies = {
        prompts: {name: evaluation.accuracy for name, evaluation in of_tests.items()}
        for prompts, of_tests in scored.items()
    }
    chosen = splits.choose(accuracies)
    made = labelled[-1] if labelled else None
    result = Result(
        dataset=splits.name,
        protocol=protocol_of(recipe),
        learner=recipe.title,
        method=recipe.method,
        seed=recipe.seed,
        shots=recipe.data.shots,
        scores=splits.means({name: accuracies[chosen[name]][name] for name in splits.tests}),
        scored_with=chosen,
        zeroshot=splits.means(accuracies[ZEROSHOT]),
        stages=[
            {
                "name": record.name,
                "updates": record.updates,
                "images": record.images,
                "seconds": record.seconds,
                "losses": [epoch.losses for epoch in record.epochs],
                "accuracy": splits.means(accuracies[record.name]),
            }
            for record in history.stages
        ],
        pseudo_labels=made.report(splits.unlabelled.true_labels) if made and splits.unlabelled else None,
        skipped=[{"name": image.name, "reason": image.reason} for image in skipped],
        templates=list(templates_of(recipe, splits.templates)),
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
    return Outcome(recipe, result, prompts or nothing, Scoring.of(splits, scored, made), history)


def _label_again(learner: AbstractLearner, classes: Sequence[str], stages: Sequence[Stage], history: History) -> None:
    """Make the batches of later stages as they were made, with the prompts of the stage before, so that their
    pseudo-labels are told: ``fit`` does not make those of a stage that it finds finished."""
    for before, stage in zip(history.stages, stages[1:], strict=False):
        learner.bind(classes)
        restore_prompts(learner, before.prompts or {})
        learner.bind(stage.classes)
        stage.batches(learner.eval())


def task(recipe: Recipe, bench: Bench, splits: Splits, on_pseudo_labels: Callable[[PseudoLabels], None]) -> Task:
    """The data and means of a run in MAO's terms."""
    return Task(
        classes=splits.classes,
        shots=splits.shots,
        new_classes=splits.new_classes,
        unlabelled=splits.unlabelled,
        new_stage=splits.new_stage,
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
