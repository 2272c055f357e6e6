"""What a run will cost in time and memory, measured on a few images and a step of each stage before it begins."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from maotune.clip.towers import KEPT_BYTES
from maotune.contract import AbstractLearner, Batch, Stage
from maotune.data.feature_bank import FeatureBank
from maotune.data.sets.dataset import Sample
from maotune.protocols.splits import Splits
from maotune.train.device import peak_memory

if TYPE_CHECKING:
    from maotune.runs.tune import Bench

FEW = 8
"""Classes that a step is measured over, at most."""
SLOW = 5.0
"""Seconds: a step that takes longer is not measured twice."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds by what they are spent on, and bytes."""

    features: int
    """Image features that are not in the bank yet."""
    encoding: float
    """Seconds to compute these."""
    tuning: float
    scoring: float
    """Seconds of what is scored beyond features of the bank."""
    memory: int
    """The most at a time: on the CUDA device, else of the process."""

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.encoding + self.tuning + self.scoring

    def __str__(self) -> str:
        parts = {"image features": self.encoding, "tuning": self.tuning, "scoring": self.scoring}
        spent = ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items() if seconds > 0)
        return f"estimated {duration(self.seconds)} ({spent}) and {self.memory / 1e9:.1f} GB of memory"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"


def uses_pool(stages: Sequence[Stage]) -> bool:
    """Whether a stage looks at the unlabelled images."""
    return any(stage.name in ("new", "distill") for stage in stages)


def estimate(bench: "Bench", learner: AbstractLearner, stages: Sequence[Stage], splits: Splits) -> Estimate:
    """Measure a few images, and steps over a few classes; the learner is left as it is."""
    tests = [sample for test in splits.tests.values() for sample in test.samples]
    pool = splits.unlabelled.samples if splits.unlabelled and uses_pool(stages) else ()
    learned = [*splits.shots, *pool]
    views = bench.views if learner.uses_frozen_features else 0
    # Zero-shot CLIP scores the tests and labels the pool, whatever the learner is.
    missing = bench.bank.missing([*tests, *pool], bench.test_view)
    missing += bench.bank.missing(learned, bench.train_view, views)
    image = _image_seconds(bench, splits.shots) if missing or learner.tunes_image_tower else 0.0
    steps = [_step(bench, learner, stage) for stage in stages]
    scoring = image * len(tests) * len(stages) if learner.tunes_image_tower else 0.0
    if learner.text_depends_on_image:  # a forward pass over all images, about a third of a step
        a_step = max(stage.batch_size or 1 for stage in stages)
        scoring += max(step.seconds for step in steps) / 3 * len(tests) / a_step * len(stages)
    held = (len(learned) * views + len(tests)) * bench.clip.joint_width * 4  # float32
    kept = min(max(step.kept for step in steps), KEPT_BYTES)  # beyond, the text pass is cut into chunks
    return Estimate(
        features=missing,
        encoding=missing * image,
        tuning=sum(
            stage.epochs * (stage.updates or 0) * step.seconds for stage, step in zip(stages, steps, strict=True)
        ),
        scoring=scoring,
        memory=int(peak_memory(bench.clip.device) + held + kept),
    )


def _image_seconds(bench: "Bench", samples: Sequence[Sample]) -> float:
    """Seconds to read, augment and encode an image."""
    bank = FeatureBank(bench.clip, None, bench.bank.batch_size)
    few = samples[: max(1, bank.batch_size // 4)]
    bank.features(few[:1], bench.test_view)  # sets up once
    start = time.perf_counter()
    bank.features(few, bench.train_view)
    return (time.perf_counter() - start) / len(few)


class _Step(NamedTuple):
    """What an update costs."""

    seconds: float
    kept: float
    """Bytes kept for the backward."""


def _step(bench: "Bench", learner: AbstractLearner, stage: Stage) -> _Step:
    """Of ``stage``: measured over few classes, from there in a straight line to as many as the stage encodes."""
    classes = len(stage.classes)
    if stage.batch_candidates and not learner.scores_all_classes:
        classes = min(classes, stage.batch_size or classes)
    most = min(classes, len(learner.classes), FEW)
    large = _measure(bench, learner, stage, most)
    if most in (classes, 1):
        return large
    small = _measure(bench, learner, stage, most // 2)
    slopes = (max(0.0, b - a) / (most - most // 2) for a, b in zip(small, large, strict=True))
    return _Step(*(cost + slope * (classes - most) for cost, slope in zip(large, slopes, strict=True)))


def _measure(bench: "Bench", learner: AbstractLearner, stage: Stage, classes: int) -> _Step:
    """An update on noise over ``classes`` of the bound classes, by a copy of the learner."""
    device = bench.clip.device
    probe = copy.deepcopy(learner).train()
    probe.bind(learner.classes[:classes])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        labels = torch.arange(stage.batch_size or 1, device=device) % classes
        pixels = (len(labels), 3, bench.clip.preprocess.size, bench.clip.preprocess.size)
        features = (len(labels), bench.clip.joint_width)
        batch = Batch(
            labels=labels,
            images=torch.randn(pixels, device=device) if learner.tunes_image_tower else None,
            features=torch.randn(features, device=device) if learner.uses_frozen_features else None,
            second_images=torch.randn(pixels, device=device) if learner.views == 2 else None,
        )
        taken: list[float] = []
        kept = 0.0
        while len(taken) < 2 and sum(taken) < SLOW:  # the first step pays for what is set up once
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
            taken.append(time.perf_counter() - start)
            kept = float(sum(seen.values()))
    return _Step(min(taken), kept)
