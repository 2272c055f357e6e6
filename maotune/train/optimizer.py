"""Build any optimizer of ``torch.optim`` by name, over a learner's parameters."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from maotune.contract import AbstractLearner

DEFAULTS: Mapping[str, Mapping[str, Any]] = {"SGD": {"momentum": 0.9, "weight_decay": 5e-4}}
"""The options of CoOp and its successors; other optimizers keep torch's defaults."""

_UNSUPPORTED = {"Optimizer", "LBFGS", "SparseAdam"}  # abstract; calls the loss itself; sparse gradients only
OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    name: member
    for name, member in sorted(vars(torch.optim).items())
    if inspect.isclass(member) and issubclass(member, Optimizer) and name not in _UNSUPPORTED
}


def check_optimizer(name: str, options: Mapping[str, Any]) -> None:
    """Check before a run that ``torch.optim`` has ``name`` and that it accepts ``options``.

    Raises:
        ValueError: it does not; the message says what is allowed.
    """
    if name not in OPTIMIZERS:
        known = {key.lower(): key for key in OPTIMIZERS}
        nearest = [known[key] for key in difflib.get_close_matches(name.lower(), known, n=2)]
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else "."
        raise ValueError(f"unknown optimizer {name!r}{hint} Allowed: {', '.join(OPTIMIZERS)}")
    allowed = [key for key in inspect.signature(OPTIMIZERS[name]).parameters if key not in ("params", "lr")]
    if unknown := [key for key in options if key not in allowed]:
        why = "the learning rate is the stage's" if unknown[0] == "lr" else f"{name} takes {', '.join(allowed)}"
        raise ValueError(f"optimizer option {unknown[0]!r} cannot be set: {why}")
    try:
        OPTIMIZERS[name]([nn.Parameter(torch.zeros(1, 1))], lr=0.1, **{**DEFAULTS.get(name, {}), **options})
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer {name} does not accept {dict(options)}: {error}") from error


def build_optimizer(learner: AbstractLearner, name: str, options: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer of the learner's parameters, with one group per factor of the learning rate.

    Each group has an ``lr_factor``; its ``lr`` is set at the start of an epoch.

    Raises:
        ValueError: the learner has no parameter, or no parameter's name begins with a prefix of its ``lr_factors``.
    """
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in ("", *learner.lr_factors)}
    for parameter_name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            prefixes = [prefix for prefix in groups if parameter_name.startswith(prefix)]
            groups[max(prefixes, key=len)].append(parameter)
    if not any(groups.values()):
        raise ValueError(f"{type(learner).__name__} has no parameter to tune: it can be evaluated as it is")
    if unused := [prefix for prefix, parameters in groups.items() if prefix and not parameters]:
        raise ValueError(f"{type(learner).__name__}.lr_factors names {unused[0]!r}, but no parameter's name begins so")
    return OPTIMIZERS[name](
        [
            {"params": parameters, "lr_factor": learner.lr_factors.get(prefix, 1.0)}
            for prefix, parameters in groups.items()
            if parameters
        ],
        lr=0.0,
        **{**DEFAULTS.get(name, {}), **options},
    )
