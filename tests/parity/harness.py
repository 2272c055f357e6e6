"""One comparison with the official code for all learners: gradients, five updates, a whole loop.

The golden files hold what the official repositories computed in fp32 on a tiny random CLIP. A learner is built by a
factory, its prompts are set to the official initial values, and everything after that goes through ``fit``.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from maotune.clip import FrozenCLIP, load_clip
from maotune.contract import AbstractLearner, Batch, Classify, Stage, Support
from maotune.train.averaging import GaussianAverage
from maotune.train.history import StepDone
from maotune.train.loop import FitSettings, fit
from tests.golden import GOLDEN

Factory = Callable[[FrozenCLIP, Sequence[str]], AbstractLearner]
Names = Mapping[str, str | tuple[str, int]]
"""Official parameter name -> ours, or (ours, row) where several official parameters are the rows of one of ours."""


@cache
def tiny_clip() -> FrozenCLIP:
    return load_clip(GOLDEN / "tiny_clip.safetensors", device="cpu", dtype="fp32")


@cache
def read(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def describe(case: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))


class GoldenBatches:
    """The recorded batches, at given positions for each epoch."""

    def __init__(self, case: str, epochs: Sequence[Sequence[int]]) -> None:
        self.epochs = epochs
        if "batch0.images" in read(case):  # the case has batches of its own
            found = [(read(case)[f"batch{i}.images"], read(case)[f"batch{i}.labels"]) for i in range(5)]
            self.batches = [Batch(labels, images) for images, labels in found]
        else:
            shared = read("batches")
            triples = zip(shared["labels"], shared["images"], shared["images2"], strict=True)
            self.batches = [Batch(labels, images, second_images=second) for labels, images, second in triples]

    def __len__(self) -> int:
        return len(self.epochs[0])

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for position in self.epochs[index][start:]:
            yield self.batches[position]

    def support(self) -> Support:
        raise ValueError("the recorded batches hold pixels only")


def ours(values: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Official values under our names."""
    rows: dict[str, dict[int, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for official, value in values.items():
        match names[official]:
            case (name, row):
                rows.setdefault(name, {})[row] = value
            case str(name):
                plain[name] = value
    return plain | {name: torch.stack([found[row] for row in sorted(found)]) for name, found in rows.items()}


def section(case: str, prefix: str, names: Names) -> dict[str, Tensor]:
    """The golden values under ``prefix``, by our names."""
    found = {key.removeprefix(prefix): value for key, value in read(case).items() if key.startswith(prefix)}
    return ours(found, names)


def check(
    case: str,
    make: Factory,
    names: Names,
    *,
    classify: Classify = F.cross_entropy,
    batch_candidates: bool = False,
    logits: str = "",
    tiny: Collection[str] = (),
) -> None:
    """Compare with a golden case: scores, gradients, losses and parameters of five updates, and the recorded loop.

    Args:
        case: the golden file.
        make: builds our learner with the settings of the case; its initial prompts are replaced by the official ones.
        names: where our learner keeps each official parameter.
        classify: the cross-entropy, or MAO's over the classes of the batch.
        batch_candidates: as in ``Stage``.
        logits: ending of the recorded scores by which the tuned classes are predicted, where there are several.
        tiny: our parameters whose gradient is so small beside the others that rounding shows.
    """
    recorded = describe(case)
    official = recorded["optimizer"]
    (group,) = official["groups"]
    options = {key: group[key] for key in ("momentum", "weight_decay", "eps") if key in group}
    classes = tuple(recorded.get("classnames") or describe("coop_ctx16")["classnames"])

    def learner() -> AbstractLearner:
        made = make(tiny_clip(), classes)
        made.load_state_dict(section(case, "init.", names), strict=True)
        return made

    def run(tuned: AbstractLearner, epochs: Sequence[Sequence[int]], **settings: Any) -> list[StepDone]:
        stage = Stage(
            "golden",
            classes,
            lambda _: GoldenBatches(case, epochs),
            classify,
            len(epochs),
            group["lr"],
            batch_candidates,
        )
        steps: list[StepDone] = []
        fit(
            tuned,
            [stage],
            FitSettings(official["name"], options, **settings),
            on_event=lambda event: steps.append(event) if isinstance(event, StepDone) else None,
        )
        return steps

    fresh = learner()
    compare_scores(fresh, case, f"logits_before{logits}")
    compare_gradients(fresh, case, names, classify, tiny)

    steps = run(fresh, [range(5)], warmup_epochs=0)
    totals = [sum(step.losses.values()) for step in steps]
    torch.testing.assert_close(totals, recorded["losses"], rtol=1e-4, atol=1e-4)
    compare_parameters(fresh, case, "after5.", names)
    compare_scores(fresh, case, f"logits_after{logits}")

    if loop := recorded.get("loop"):
        average = GaussianAverage(loop["gpa_mean"], loop["gpa_std"], of_epochs=None) if loop["gpa_mean"] else None
        looped = learner()
        epochs = [[2 * (epoch % 2) + i for i in range(2)] for epoch in range(loop["epochs"])]
        steps = run(looped, epochs, average=average)
        torch.testing.assert_close([step.lr for step in steps], loop["lrs"], rtol=1e-9, atol=0)
        totals = [sum(step.losses.values()) for step in steps]
        torch.testing.assert_close(totals, loop["losses"], rtol=1e-4, atol=1e-4)
        compare_parameters(looped, case, "loop.", names)
        compare_scores(looped, case, "loop_logits")


def compare_scores(learner: AbstractLearner, case: str, key: str) -> None:
    images = read(case).get("eval_images", read("batches")["eval_images"])
    with torch.no_grad():
        logits = learner.eval()(Batch(torch.zeros(len(images), dtype=torch.int64), images)).logits
    torch.testing.assert_close(logits, read(case)[key], rtol=0, atol=1e-3)


def compare_gradients(
    learner: AbstractLearner, case: str, names: Names, classify: Classify, tiny: Collection[str] = ()
) -> None:
    (batch,) = GoldenBatches(case, [[0]]).epoch(0)
    learner.zero_grad()
    terms = learner.train().losses(learner(batch), batch, classify)
    torch.stack([*terms.values()]).sum().backward()
    golden = section(case, "grad0.", names)
    scales = {name: value.abs().max() for name, value in golden.items()}
    gradients = {name: value.grad / scales[name] for name, value in learner.named_parameters()}
    golden = {name: value / scales[name] for name, value in golden.items()}
    assert gradients.keys() == golden.keys()
    for name, value in golden.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-4 if name in tiny else 1e-5, msg=name)


def compare_parameters(learner: AbstractLearner, case: str, prefix: str, names: Names) -> None:
    torch.testing.assert_close(dict(learner.state_dict()), section(case, prefix, names), rtol=0, atol=2e-5)
