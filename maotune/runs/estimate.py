"""Estimates of time and memory of a run, measured before it begins on a few images and a step of each stage."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from maotune.clip.towers import KEPT_BYTES
from maotune.contract import AbstractLearner, Batch, Stage
from maotune.data.batches import PICTURE_MEMORY, picture_bytes
from maotune.data.images.threads import map_in_threads
from maotune.data.images.views import View
from maotune.data.sets.dataset import Sample
from maotune.protocols.protocol import Splits
from maotune.runs.clip_choice import images_to_check
from maotune.runs.events import CostEstimate
from maotune.runs.pipeline import Pipeline
from maotune.train.device import peak_memory

FEW = 8
"""Largest number of classes, and of images, that are measured."""
SLOW = 5.0
"""A step that takes more seconds than this is measured once."""

T = TypeVar("T")
R = TypeVar("R")


class CountMissing(Protocol):
    """Counts the features of images under a view that would have to be computed, as ``FeatureBank.missing``."""

    def __call__(self, samples: Sequence[Sample], view: View, views: int = 1, *, projected: bool = True) -> int:
        """Return their number."""
        ...


class ImageCost(NamedTuple):
    """Seconds per image, and the bytes of a decoded picture."""

    read: float = 0.0
    """To read and decode it."""
    train: float = 0.0
    """To prepare an augmented view of the decoded picture."""
    test: float = 0.0
    encode: float = 0.0
    bytes: float = 0.0

    @property
    def whole(self) -> float:
        """Seconds from the file to the feature of the test view."""
        return self.read + self.test + self.encode


class StepCost(NamedTuple):
    """Cost of an update."""

    seconds: float
    kept: float
    """Bytes kept for the backward pass."""


class CostMeter:
    """Estimates the costs of runs with one model; what runs have in common is measured once.

    Images are measured on the first data set that is asked for, updates on the first run of each kind, over a few of
    its classes; both are taken for the others too.
    """

    def __init__(self) -> None:
        self._image: ImageCost | None = None
        self._lines: dict[str, tuple[StepCost, StepCost]] = {}  # cost over FEW classes, and of each further class

    def estimate(
        self,
        pipeline: Pipeline,
        learner: AbstractLearner,
        stages: Sequence[Stage],
        splits: Splits,
        count_missing: CountMissing | None = None,
    ) -> CostEstimate:
        """Estimate the cost of a run; the learner is not changed.

        Args:
            pipeline: of the run.
            learner: its learner, or an equal one bound to other classes.
            stages: its stages.
            splits: its images.
            count_missing: default: those that the feature bank does not have.
        """
        count, per_update = count_missing or pipeline.bank.missing, learner.tunes_image_tower and bool(stages)
        tests = [sample for test in splits.tests.values() for sample in test.samples]
        pool = splits.unlabelled.samples if splits.unlabelled and uses_pool(stages) else ()
        learned = [*splits.shots, *pool] if stages else []
        uses_bank, projected = learner.uses_frozen_features, not learner.uses_unprojected_features
        views = pipeline.views if uses_bank or not projected else 0
        # Zero-shot CLIP scores the tests, labels the pool and is tried on own images, whatever the learner is.
        seen = [*tests, *pool, *images_to_check(pipeline.recipe, splits)]
        upright = count(seen, pipeline.test_view, projected=projected)
        augmented = count(learned, pipeline.train_view, views, projected=projected)
        image = ImageCost()
        if upright or augmented or per_update:
            image = self._image_cost(pipeline, splits.shots)
        steps = [self._step(pipeline, learner, stage) for stage in stages]
        updates = [stage.epochs * (stage.updates or 0) for stage in stages]
        tuning = sum(number * step.seconds for number, step in zip(updates, steps, strict=True))
        pictures, scoring = 0.0, 0.0
        if per_update:  # pixels are prepared for each update, from decoded pictures as far as these fit into memory
            drawn = learner.views * sum(n * (stage.batch_size or 1) for n, stage in zip(updates, stages, strict=True))
            pictures = min(PICTURE_MEMORY, image.bytes * len(learned))
            tuning += drawn * image.train + (drawn if pictures == PICTURE_MEMORY else len(learned)) * image.read
            scoring = image.whole * len(tests) * len(stages)
        if stages and learner.text_depends_on_image:  # a forward pass over all images, about a third of a step
            a_step = max(stage.batch_size or 1 for stage in stages)
            scoring += max(step.seconds for step in steps) / 3 * len(tests) / a_step * len(stages)
        features = (len(learned) * views + len(tests)) * pipeline.clip.joint_width * 4  # float32
        kept = max((step.kept for step in steps), default=0.0)
        kept = min(kept, KEPT_BYTES)  # beyond, the text pass is cut into chunks
        return CostEstimate(
            features=upright + augmented,
            encoding=upright * image.whole + augmented * (image.train + image.encode + image.read / max(1, views)),
            tuning=tuning,
            scoring=scoring,
            memory=int(peak_memory(pipeline.clip.device) + features + pictures + kept),
        )

    def _image_cost(self, pipeline: Pipeline, samples: Sequence[Sample]) -> ImageCost:
        """Measure a few images as they are prepared and encoded in a run."""
        if self._image is None:
            few = list(samples[:FEW])
            few[0].image.read()  # one-time set-up
            read, pictures = _timed(lambda sample: sample.image.read(), few)
            train, pixels = _timed(lambda number: pipeline.train_view(pictures[number % len(few)], number), range(32))
            test, _ = _timed(lambda picture: pipeline.test_view(picture, 0), pictures)
            batch = torch.stack(pixels[: max(1, pipeline.bank.batch_size // 4)]).to(pipeline.clip.device)
            with torch.no_grad():
                pipeline.clip.encode_image(batch[:1])  # one-time set-up
                start = time.perf_counter()
                pipeline.clip.encode_image(batch).cpu()
            encode = (time.perf_counter() - start) / len(batch)
            self._image = ImageCost(read, train, test, encode, sum(map(picture_bytes, pictures)) / len(few))
        return self._image

    def _step(self, pipeline: Pipeline, learner: AbstractLearner, stage: Stage) -> StepCost:
        """Estimate the cost of an update: measured over few classes, extrapolated linearly to those of the stage."""
        if learner.closed_form:
            return StepCost(0.0, 0.0)
        classes = len(stage.classes)
        if stage.batch_candidates and not learner.scores_all_classes:
            classes = min(classes, stage.batch_size or classes)
        most = min(classes, len(learner.classes), FEW)
        recipe = pipeline.recipe
        key = json.dumps([recipe.learner, recipe.dept, most, stage.name, stage.batch_size, stage.batch_candidates])
        if key not in self._lines:
            slope = StepCost(0.0, 0.0)
            large = _measure(pipeline, learner, stage, most)
            if most > 1:
                small = _measure(pipeline, learner, stage, most // 2)
                slope = StepCost(*(_slope(a, b, most // 2, most) for a, b in zip(small, large, strict=True)))
            self._lines[key] = large, slope
        large, slope = self._lines[key]
        return StepCost(*(cost + each * (classes - most) for cost, each in zip(large, slope, strict=True)))


def _slope(small: float, large: float, few: int, more: int) -> float:
    """Return the cost of a further class, at most its part of ``large``: small differences of times are noisy."""
    return min(max(0.0, large - small) / (more - few), large / more)


def uses_pool(stages: Sequence[Stage]) -> bool:
    """Whether a stage uses the unlabelled images."""
    return any(stage.name in ("new", "distill") for stage in stages)


def _timed(function: Callable[[T], R], items: Sequence[T]) -> tuple[float, list[R]]:
    """Return the seconds per item that ``function`` takes in threads, and its results."""
    start = time.perf_counter()
    results = list(map_in_threads(function, items))
    return (time.perf_counter() - start) / len(items), results


def _measure(pipeline: Pipeline, learner: AbstractLearner, stage: Stage, classes: int) -> StepCost:
    """Measure an update on noise over ``classes`` of the bound classes, with a copy of the learner."""
    device = pipeline.clip.device
    probe = copy.deepcopy(learner).train()
    probe.bind(learner.classes[:classes])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        labels = torch.arange(stage.batch_size or 1, device=device) % classes
        pixels = (len(labels), 3, pipeline.clip.preprocess.size, pipeline.clip.preprocess.size)
        features = (len(labels), pipeline.clip.joint_width)
        unprojected = (len(labels), pipeline.clip.vision_width)
        batch = Batch(
            labels=labels,
            images=torch.randn(pixels, device=device) if learner.tunes_image_tower else None,
            features=torch.randn(features, device=device) if learner.uses_frozen_features else None,
            unprojected=torch.randn(unprojected, device=device) if learner.uses_unprojected_features else None,
            second_images=torch.randn(pixels, device=device) if learner.views == 2 else None,
        )
        durations: list[float] = []
        kept = 0.0
        while len(durations) < 2 and sum(durations) < SLOW:  # the first includes one-time set-up
            seen: dict[int, int] = {}

            def note(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            start = time.perf_counter()
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                terms = probe.losses(probe(batch), batch, stage.classify)
            loss = torch.stack([*terms.values()]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()  # waits for the device
            durations.append(time.perf_counter() - start)
            kept = float(sum(seen.values()))
    return StepCost(min(durations), kept)
