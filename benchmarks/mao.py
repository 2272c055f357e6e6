"""What MAO costs on ViT-B/16 (random weights, fp32, one thread) when image features come from the bank.

    python benchmarks/mao.py classes   # a base-stage step at 50, 500, 5,000 and 50,000 classes: time and memory
    python benchmarks/mao.py memory    # a plain CoOp step over 1,000 classes: peak memory
    python benchmarks/mao.py run       # a whole run, 10 + 10 epochs, 51 + 51 classes, 16 shots: seconds and updates

Features are random: speed does not depend on them. Each size runs in a process of its own, so that peaks are its own.
Seconds are processor seconds.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor
from towers import NAMES, vit_b16

from maotune.contract import AbstractLearner, Batches
from maotune.data.batches import RandomSampler, SampleBatches, Sampler
from maotune.data.draw import UnlabelledPool
from maotune.data.sets.dataset import Sample
from maotune.learners.coop import CoOp
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.candidates import candidate_cross_entropy
from maotune.mao.methods import build_stages
from maotune.mao.neighbours import nearest_classes
from maotune.mao.sampler import HardNegativeSampler
from maotune.mao.settings import MaoSettings
from maotune.mao.stages import Task
from maotune.train.loop import FitSettings, fit

FLOWERS = [name.strip() for name in NAMES.replace("\n", "").split(";")]
WORDS = ("amber", "birch", "coral", "dusky", "elfin", "fiery", "giant", "hoary", "ivory", "jade")


@dataclass(frozen=True)
class Nothing:
    """An image that only has a name."""

    name: str


def samples(labels: Sequence[int]) -> list[Sample]:
    return [Sample(Nothing(f"{number}"), label) for number, label in enumerate(labels)]  # type: ignore[arg-type]


def names_of(count: int) -> list[str]:
    """As many names as wanted, all of three words, so that sizes differ in nothing but their number."""
    return [" ".join(WORDS[int(digit)] for digit in f"{number:03}"[-3:]) for number in range(count)]


def peak() -> float:
    """Most memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def one_size(count: int) -> None:
    """Median seconds of a base-stage step over ``count`` classes, and the memory that it adds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = vit_b16()
    learner = CoOp(clip, names_of(count), context_length=4)
    labels = torch.arange(count).repeat_interleave(2)
    table = nearest_classes(*[torch.randn(count, 16)] * 2, 32)
    sampler = HardNegativeSampler(labels, table, b=4, k=8, views=1, seed=0, fill="distinct")
    batches = SampleBatches(samples(labels.tolist()), labels, sampler, features=torch.randn(2 * count, 1, 512))
    seconds, before = [], peak()
    for batch in islice(batches.epoch(0), 8):
        begin = time.process_time()
        only, positions = batch.labels.unique(return_inverse=True)
        candidate_cross_entropy(learner(batch, only).logits, positions).backward()
        seconds.append(time.process_time() - begin)
    print(f"{count:7} classes  {statistics.median(seconds[1:]):8.3f} s a step   +{peak() - before:6.2f} GB", flush=True)


def thousand_classes() -> None:
    """Peak memory of a plain CoOp step over 1,000 classes."""
    torch.set_num_threads(1)
    learner = CoOp(vit_b16(), names_of(1000), context_length=16)
    labels = torch.arange(32)
    batches = SampleBatches(samples(range(32)), labels, RandomSampler(32, 32, 1, 0), features=torch.randn(32, 1, 512))
    (batch,) = batches.epoch(0)
    begin = time.process_time()
    F.cross_entropy(learner(batch).logits, batch.labels).backward()
    print(
        f"plain CoOp over 1,000 classes: {time.process_time() - begin:.1f} s a step, peak {peak():.2f} GB", flush=True
    )


def whole_run() -> None:
    """Seconds and updates of MAO on CoOp, Flowers' sizes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = vit_b16()
    new = [f"great {name}" for name in FLOWERS]
    labels = torch.arange(51).repeat_interleave(16)

    def make(
        of: Sequence[Sample], given: Tensor, sampler: Sampler, *, training: bool
    ) -> Callable[[AbstractLearner], Batches]:
        return lambda _: SampleBatches(of, given, sampler, features=torch.randn(len(of), 20 if training else 1, 512))

    task = Task(
        classes=tuple(FLOWERS),
        shots=samples(labels.tolist()),
        new_classes=tuple(new),
        unlabelled=UnlabelledPool(tuple(samples([-1] * len(labels))), tuple(labels.tolist()), "balanced"),
        make_batches=make,
        foundation=lambda: ZeroShot(clip, new),
        views=20,
    )
    learner = CoOp(clip, FLOWERS, context_length=4)
    begin = time.process_time()
    history = fit(learner, build_stages("mao", task, MaoSettings(fill="distinct")), FitSettings())
    for stage in history.stages:
        print(f"{stage.name:5} {stage.updates:5} updates  {stage.images:6} images  {stage.seconds:7.1f} s", flush=True)
    print(f"in all {time.process_time() - begin:.1f} processor seconds")


def main() -> None:
    tasks = {
        "classes": [(one_size, n) for n in (50, 500, 5_000, 50_000)],
        "memory": [(thousand_classes,)],
        "run": [(whole_run,)],
    }
    if sys.argv[1:2] == [] or sys.argv[1] not in tasks:
        raise SystemExit(__doc__)
    for target, *arguments in tasks[sys.argv[1]]:
        process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
