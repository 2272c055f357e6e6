"""Tuned prompts at work: those of a stage, or a mixture of the prompts of several."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maotune.contract import AbstractLearner, mixture_weights
from maotune.learners.mixture import Mixture
from maotune.train.session import restore_prompts


@dataclass(frozen=True, slots=True)
class StagePrompts:
    """The prompts that a stage tuned."""

    classes: tuple[str, ...]
    """Classes that they were tuned on."""
    tensors: Mapping[str, Tensor]


def with_prompts(learner: AbstractLearner, prompts: str, stages: Mapping[str, StagePrompts]) -> AbstractLearner:
    """Return ``learner`` with the prompts of a stage, or with a mixture of the prompts of several.

    Where prompts are parameters, these are mixed; else it is a ``Mixture`` of copies of the learner.

    Args:
        learner: with the settings and CLIP of the prompts; it may be changed.
        prompts: a stage, or a mixture (``0.8 plain + 0.2 parallel``).
        stages: by name.

    Raises:
        CheckpointError: the prompts do not fit the learner.
        ValueError: ``prompts`` cannot be read.
    """
    weights = mixture_weights(prompts)
    parts = []
    for name in weights:
        part = learner if len(weights) == 1 else copy.deepcopy(learner)
        restore_prompts(part, stages[name].tensors, stages[name].classes)
        parts.append(part)
    if len(parts) == 1:
        return learner
    if not learner.prompts_are_parameters:
        return Mixture(parts, [*weights.values()])
    states = [part.state_dict() for part in parts]
    shares = [*weights.values()]
    mixed = {
        name: torch.stack([share * state[name] for share, state in zip(shares, states, strict=True)]).sum(0)
        for name in states[0]
    }
    restore_prompts(parts[0], mixed)
    return parts[0]
