"""Draws of each protocol, with what a test varies as arguments."""

from collections.abc import Sequence

from maotune.data.draw import PoolMode
from maotune.data.sets.dataset import Dataset
from maotune.protocols import PROTOCOLS
from maotune.protocols.protocol import DrawSettings, Split, Splits


def base_to_new(
    dataset: Dataset,
    shots: int,
    seed: int,
    pool: PoolMode,
    split: Split = "test",
    unlabelled_shots: int | None = None,
) -> Splits:
    settings = DrawSettings(shots=shots, seed=seed, split=split, pool=pool, pool_shots=unlabelled_shots)
    return PROTOCOLS["base-to-new"].draw([dataset], settings)


def adapt(dataset: Dataset, shots: int, seed: int) -> Splits:
    return PROTOCOLS["adapt"].draw([dataset], DrawSettings(shots=shots, seed=seed))


def few_shot(dataset: Dataset, shots: int, seed: int, split: Split = "test") -> Splits:
    return PROTOCOLS["few-shot"].draw([dataset], DrawSettings(shots=shots, seed=seed, split=split))


def cross_dataset(source: Dataset, targets: Sequence[Dataset], shots: int, seed: int, split: Split = "test") -> Splits:
    settings = DrawSettings(shots=shots, seed=seed, split=split)
    return PROTOCOLS["cross-dataset"].draw([source, *targets], settings)
