"""Estimates of time and memory of a run, measured before it begins on a few images and a step of each stage."""

import copy
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maotune.clip.towers import KEPT_BYTES
from maotune.contract import AbstractLearner, Batch, Stage
from maotune.data.feature_bank import FeatureBank
from maotune.data.sets.dataset import Sample
from maotune.protocols.protocol import Splits
from maotune.runs.events import CostEstimate
from maotune.runs.pipeline import Pipeline
from maotune.train.device import peak_memory

FEW = 8
"""Largest number of classes that a step is measured over."""
SLOW = 5.0
"""A step that takes more seconds than this is measured once."""


def uses_pool(stages: Sequence[Stage]) -> bool:
    """Whether a stage uses the unlabelled images."""
    return any(stage.name in ("new", "distill") for stage in stages)


def estimate(pipeline: Pipeline, learner: AbstractLearner, stages: Sequence[Stage], splits: Splits) -> CostEstimate:
    """Estimate the cost of a run from a few images and steps over a few classes; the learner is not changed."""
    tests = [sample for test in splits.tests.values() for sample in test.samples]
    pool = splits.unlabelled.samples if splits.unlabelled and uses_pool(stages) else ()
    learned = [*splits.shots, *pool]
    uses_bank = learner.uses_frozen_features or learner.uses_unprojected_features
    views = pipeline.views if uses_bank else 0
    # Zero-shot CLIP scores the tests and labels the pool, whatever the learner is.
    projected = not learner.uses_unprojected_features
    missing = pipeline.bank.missing([*tests, *pool], pipeline.test_view, projected=projected)
    missing += pipeline.bank.missing(learned, pipeline.train_view, views, projected=projected)
    image = _image_seconds(pipeline, splits.shots) if missing or learner.tunes_image_tower else 0.0
    steps = [_step(pipeline, learner, stage) for stage in stages]
    scoring = image * len(tests) * len(stages) if learner.tunes_image_tower else 0.0
    if learner.text_depends_on_image:  # a forward pass over all images, about a third of a step
        a_step = max(stage.batch_size or 1 for stage in stages)
        scoring += max(step.seconds for step in steps) / 3 * len(tests) / a_step * len(stages)
    held = (len(learned) * views + len(tests)) * pipeline.clip.joint_width * 4  # float32
    kept = min(max(step.kept for step in steps), KEPT_BYTES)  # beyond, the text pass is cut into chunks
    return CostEstimate(
        features=missing,
        encoding=missing * image,
        tuning=sum(
            stage.epochs * (stage.updates or 0) * step.seconds for stage, step in zip(stages, steps, strict=True)
        ),
        scoring=scoring,
        memory=int(peak_memory(pipeline.clip.device) + held + kept),
    )


def _image_seconds(pipeline: Pipeline, samples: Sequence[Sample]) -> float:
    """Return the seconds to read, augment and encode an image."""
    bank = FeatureBank(pipeline.clip, None, pipeline.bank.batch_size)
    few = samples[: max(1, bank.batch_size // 4)]
    bank.features(few[:1], pipeline.test_view)  # one-time set-up
    start = time.perf_counter()
    bank.features(few, pipeline.train_view)
    return (time.perf_counter() - start) / len(few)


class _Step(NamedTuple):
    """Cost of an update."""

    seconds: float
    kept: float
    """Bytes kept for the backward pass."""


def _step(pipeline: Pipeline, learner: AbstractLearner, stage: Stage) -> _Step:
    """Measure the cost of an update over few classes, and extrapolate it linearly to those of the stage."""
    if learner.closed_form:
        return _Step(0.0, 0.0)
    classes = len(stage.classes)
    if stage.batch_candidates and not learner.scores_all_classes:
        classes = min(classes, stage.batch_size or classes)
    most = min(classes, len(learner.classes), FEW)
    large = _measure(pipeline, learner, stage, most)
    if most in (classes, 1):
        return large
    small = _measure(pipeline, learner, stage, most // 2)
    slopes = (max(0.0, b - a) / (most - most // 2) for a, b in zip(small, large, strict=True))
    return _Step(*(cost + slope * (classes - most) for cost, slope in zip(large, slopes, strict=True)))


def _measure(pipeline: Pipeline, learner: AbstractLearner, stage: Stage, classes: int) -> _Step:
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
    return _Step(min(durations), kept)
