"""Gaussian-weighted averaging of the prompts over the epochs (PromptSRC, Khattak et al., ICCV 2023, Eq. 9)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GaussianAverage:
    """Weights of the epochs in the average: a normalised Gaussian over the epochs, counted from 1."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    mean: float = 15.0
    """Epoch of the highest weight."""
    std: float = 1.0
    """Width of the Gaussian, in epochs."""
    of_epochs: int | None = 20
    """Number of epochs that ``mean`` and ``std`` refer to; they are scaled to the stage's epochs. None: not scaled, as
    in the released code (at 10 epochs, mean 15 puts 99.6 % of the weight on the last one)."""

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise ValueError(f"average.std is {self.std}: a width above 0 (in epochs) is needed")
        if self.of_epochs is not None and self.of_epochs < 1:
            raise ValueError(f"average.of_epochs is {self.of_epochs}: give 1 or more, or none for no scaling")

    def weights(self, epochs: int) -> list[float]:
        """Return the weight of each of ``epochs`` epochs; they sum to 1."""
        scale = 1.0 if self.of_epochs is None else epochs / self.of_epochs
        mean, std = self.mean * scale, self.std * scale
        exponents = [-0.5 * ((epoch - mean) / std) ** 2 for epoch in range(1, epochs + 1)]
        # Normalised before the exponential: a Gaussian far from all epochs would be 0 / 0.
        highest = max(exponents)
        densities = [math.exp(exponent - highest) for exponent in exponents]
        total = sum(densities)
        return [density / total for density in densities]


class RunningAverage:
    """Weighted sum of the learnable parameters over the epochs so far."""

    def __init__(self, module: nn.Module, weights: Sequence[float]) -> None:
        self.module = module
        self.weights = weights
        self.sums = {name: torch.zeros_like(value) for name, value in module.named_parameters()}

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Add the current parameters, those at the end of ``epoch`` (from 0)."""
        for name, value in self.module.named_parameters():
            self.sums[name].add_(value, alpha=self.weights[epoch])

    @torch.no_grad()
    def apply(self) -> None:
        """Set the parameters to their average."""
        for name, value in self.module.named_parameters():
            value.copy_(self.sums[name])

    def restore(self, sums: dict[str, Tensor]) -> None:
        """Continue from saved ``sums``."""
        for name, value in self.sums.items():
            value.copy_(sums[name])
