"""The made-up world of features that the official code ran on, and comparisons with what it computed there."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from maotune.contract import AbstractLearner, Batch, Stage, Support
from maotune.train.history import StepDone
from maotune.train.loop import FitSettings, fit
from tests.golden import FEATURES

BASE = tuple(f"base {number}" for number in range(10))
NEW = tuple(f"new {number}" for number in range(10))


@cache
def golden(case: str) -> dict[str, Tensor]:
    return load_file(FEATURES / f"{case}.safetensors")


@cache
def described(case: str) -> dict[str, Any]:
    return json.loads((FEATURES / f"{case}.json").read_text(encoding="utf-8"))


def close(case: str, key: str, actual: Any) -> None:
    """Compare with a golden tensor, or with ``json.KEY``, within its own tolerance."""
    allowed = json.loads((FEATURES / "tolerances.json").read_text(encoding="utf-8"))[case][key]
    expected = described(case)[key.removeprefix("json.")] if key.startswith("json.") else golden(case)[key]
    torch.testing.assert_close(
        torch.as_tensor(actual).detach().float(), torch.as_tensor(expected).float(), rtol=0, atol=allowed
    )


class World:
    """What learners in feature space use of a CLIP: texts, the scale of the scores, the projection of images."""

    name, device, dtype = "world", torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        world = golden("world")
        self.texts = dict(zip((*BASE, *NEW), world["text_raw"], strict=True))
        self.joint_width, self.logit_scale = world["text"].shape[1], float(world["logit_scale"])
        self.image_projection = world["proj"].T.contiguous()

    def __deepcopy__(self, memo: object) -> "World":
        return self

    def zeroshot_text(self, classes: Sequence[str], templates: Sequence[str], *, normalise: bool = True) -> Tensor:
        text = torch.stack([self.texts[name] for name in classes])
        return F.normalize(text, dim=-1) if normalise else text


class Rows:
    """Batches of given (view, rows) of the shots, epoch by epoch; their support is all views, or some."""

    def __init__(self, epochs: Sequence[Sequence[tuple[int, Tensor]]], kind: str = "raw", views: int = 10) -> None:
        self.epochs, self.labels = epochs, golden("world")["train_labels"]
        self.kind, self.views = kind, golden("world")[f"train_views_{kind}"][:views]

    def __len__(self) -> int:
        return len(self.epochs[0])

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for view, rows in self.epochs[index][start:]:
            features = self.views[view][rows]
            if self.kind == "raw":
                yield Batch(self.labels[rows], features=features)
            else:
                yield Batch(self.labels[rows], unprojected=features)

    def support(self) -> Support:
        return Support(self.views.transpose(0, 1), self.labels)


def slices(epochs: int, size: int) -> list[list[tuple[int, Tensor]]]:
    """Epoch e: view e mod 10, the rows ``perms[e]`` in slices."""
    perms = golden("world")["perms"].long()
    return [[(epoch % 10, rows) for rows in perms[epoch].split(size)] for epoch in range(epochs)]


def tune(learner: AbstractLearner, batches: Rows, lr: float, settings: FitSettings | None = None) -> list[StepDone]:
    """Tune on the base classes, and return the steps."""
    steps: list[StepDone] = []
    epochs = 0 if learner.closed_form else len(batches.epochs)
    stage = Stage("golden", BASE, lambda _: batches, F.cross_entropy, epochs, lr)
    fit(
        learner,
        [stage],
        settings or FitSettings(),
        on_event=lambda event: steps.append(event) if isinstance(event, StepDone) else None,
    )
    return steps


def scores(learner: AbstractLearner, key: str = "test_raw", only: Tensor | None = None) -> Tensor:
    """Scores of images of the world among the bound classes."""
    features = golden("world")[key]
    labels = torch.zeros(len(features), dtype=torch.int64)
    batch = Batch(labels, unprojected=features) if key.endswith("_pre") else Batch(labels, features=features)
    with torch.no_grad():
        output = learner.eval()(batch, only)
    logits: Tensor = output.logits
    return logits


def check_training(
    case: str, make: Any, batches: Rows, settings: FitSettings, lr: float, names: dict[str, str]
) -> AbstractLearner:
    """Compare gradients, parameters after one, five and all updates, rates and losses with those of a golden case.

    Args:
        case: the golden file.
        make: builds the learner, bound to ``BASE``.
        batches: those that the official code used.
        settings: of the loop.
        lr: the base learning rate.
        names: official parameter -> ours.
    """
    learner = make()
    for official, own in names.items():
        close(case, f"init.{official}", learner.state_dict()[own])
    (first,) = (batch for batch in [next(iter(batches.epoch(0)))])
    learner.prepare(batches)
    output = learner(first)
    close(case, "logits0", output.logits)
    terms = learner.losses(output, first, F.cross_entropy)
    torch.stack([*terms.values()]).sum().backward()
    for official, own in names.items():
        close(case, f"grad0.{official}", dict(learner.named_parameters())[own].grad)
    seen: dict[int, dict[str, Tensor]] = {}
    learner, steps = make(), []
    stage = Stage("golden", BASE, lambda _: batches, F.cross_entropy, len(batches.epochs), lr)

    def listen(event: object) -> None:
        if isinstance(event, StepDone):
            steps.append(event)
            seen[len(steps)] = {name: value.clone() for name, value in learner.state_dict().items()}

    fit(learner, [stage], settings, on_event=listen)
    for step in (1, 5):
        for official, own in names.items():
            close(case, f"after{step}.{official}", seen[step][own])
    for official, own in names.items():
        close(case, f"final.{official}", learner.state_dict()[own])
    losses = [step.losses["cross_entropy"] for step in steps]
    close(case, "json.losses" if "losses" in described(case) else "json.ce", losses)
    if "lrs" in described(case):
        close(case, "json.lrs", [step.lr for step in steps])
    return learner
