"""The smallest real learner, and batches for it: a shared offset of frozen class features, tuned on frozen images."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from maotune.contract import AbstractLearner, Batch, Classify, Output, Stage, Support

CLASSES = ("ant", "bee", "cat", "dog", "eel")
OTHERS = ("fox", "gnu", "hen")
WIDTH = 8


def frozen(name: str) -> Tensor:
    """The frozen feature (d,) of a class name."""
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(sum(map(ord, name))))


class Toy(AbstractLearner):
    """Text feature = frozen feature of the name + a shared offset, with dropout so that random numbers are used."""

    logit_scale = 10.0

    def __init__(self, classes: Sequence[str] = CLASSES, hidden: int = 4, dropout: float = 0.25) -> None:
        super().__init__()
        self.dropout = dropout
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.context = nn.Parameter(0.1 * torch.randn(hidden))
            self.projection = nn.Linear(hidden, WIDTH)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.names = torch.stack([frozen(name) for name in classes])

    def image_features(self, batch: Batch) -> Tensor:
        assert batch.features is not None
        return batch.features

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        names = self.names if only is None else self.names[only]
        return names + self.projection(nn.functional.dropout(self.context, self.dropout, self.training))

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        return {"cross_entropy": classify(output.logits, batch.labels), "size": 0.01 * self.context.square().sum()}


class ToyBatches:
    """Noisy class features; a pure function of the seed and the epoch."""

    def __init__(self, classes: Sequence[str] = CLASSES, updates: int = 6, size: int = 4, seed: int = 0) -> None:
        self.centres = torch.stack([frozen(name) for name in classes])
        self.updates, self.size, self.seed = updates, size, seed

    def __len__(self) -> int:
        return self.updates

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, self.updates):
            random = torch.Generator().manual_seed(1_000_000 * self.seed + 1000 * index + step)
            labels = torch.randint(len(self.centres), (self.size,), generator=random)
            noise = torch.randn(self.size, WIDTH, generator=random)
            names = tuple(f"{index}-{step}-{i}.png" for i in range(self.size))
            yield Batch(labels, features=self.centres[labels] + 0.5 * noise, names=names)

    def support(self) -> Support:
        return Support(self.centres[:, None], torch.arange(len(self.centres)))


def two_stages(epochs: int = 3, updates: int = 6) -> list[Stage]:
    """A stage over the batch's classes, and one over other classes whose batches depend on the learner's prompts."""

    def second(learner: AbstractLearner) -> ToyBatches:
        offset = learner.text_features().sum()
        return ToyBatches(OTHERS, updates, seed=int(1000 * offset.abs()) % 997)

    first = ToyBatches(CLASSES, updates)
    entropy = nn.functional.cross_entropy
    return [
        Stage("base", CLASSES, lambda learner: first, entropy, epochs, lr=0.05, batch_candidates=True),
        Stage("new", OTHERS, second, entropy, epochs, lr=0.05),
    ]
