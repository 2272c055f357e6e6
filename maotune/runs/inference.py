"""Inference speed of tuned prompts (paper, Table 3): images per second, beside the frozen image tower alone."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Support
from maotune.data.images.views import TestView
from maotune.data.sets.dataset import Sample
from maotune.files import read_json, write_json
from maotune.runs.record import read_record
from maotune.train.evaluate import evaluate

INFERENCE = "inference.json"
"""File of a run's folder that holds the inference speed of its prompts."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Inference speed from pixels in memory to a class; class texts are encoded once, beforehand, where they can be."""

    images_per_second: float
    tower_images_per_second: float
    """Speed of the frozen image tower alone on the same pixels, measured in turn: the upper bound."""
    batch_size: int
    classes: int
    device: str
    threads: int

    def save(self, folder: Path) -> None:
        """Write ``inference.json`` atomically."""
        write_json(folder / INFERENCE, asdict(self))

    @classmethod
    def find(cls, folder: Path) -> "Inference | None":
        """Read ``inference.json`` of ``folder``; None where nothing was measured, or the file cannot be used."""
        try:
            return read_record(cls, read_json(folder / INFERENCE))
        except (FileNotFoundError, ValueError):  # it is measured again
            return None


def measure_inference(
    clip: FrozenCLIP, learner: AbstractLearner, samples: Sequence[Sample], *, batch_size: int = 32, rounds: int = 7
) -> Inference:
    """Time the classification of a batch by the code that scores tests and, in turn, the image tower alone.

    Args:
        clip: the frozen model.
        learner: bound to the classes to predict among.
        samples: images; the first ``batch_size`` are used.
        batch_size: images a batch.
        rounds: timed batches, of which the median counts; one more is a warm-up.

    Raises:
        ValueError: there is no image.
    """
    if not samples:
        raise ValueError("there is no image to measure with: give at least one")
    view = TestView(clip.preprocess)
    pixels = torch.stack([view(sample.image.read()) for sample in samples[:batch_size]]).to(clip.device)
    batches = _TimedBatches(clip, pixels, 1 + rounds)
    durations: list[float] = []
    evaluate(learner, batches, lambda images: durations.append(_now(clip) - batches.begun))
    seconds, alone = (statistics.median(each[1:]) for each in (durations, batches.alone))
    return Inference(
        images_per_second=len(pixels) / seconds,
        tower_images_per_second=len(pixels) / alone,
        batch_size=len(pixels),
        classes=len(learner.classes),
        device=str(clip.device),
        threads=torch.get_num_threads(),
    )


class _TimedBatches:
    """The same batch repeatedly; the image tower alone is timed before each."""

    def __init__(self, clip: FrozenCLIP, pixels: Tensor, times: int) -> None:
        self.clip, self.pixels, self.times = clip, pixels, times
        self.alone: list[float] = []
        self.begun = 0.0

    def __len__(self) -> int:
        return self.times

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """See ``Batches``."""
        labels = torch.zeros(len(self.pixels), dtype=torch.int64)  # not used
        for _ in range(start, self.times):
            begun = _now(self.clip)
            self.clip.encode_image(self.pixels)
            self.begun = _now(self.clip)
            self.alone.append(self.begun - begun)
            yield Batch(labels, images=self.pixels)

    def support(self) -> Support:
        """See ``Batches``."""
        raise ValueError("images that are timed are not learned from")


def _now(clip: FrozenCLIP) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if clip.device.type == "cuda":
        torch.cuda.synchronize(clip.device)
    return time.perf_counter()
