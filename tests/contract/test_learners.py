"""One table over all learners x {bare, DePT} x {plain, MAO base, MAO new}: what the contract promises."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import AbstractLearner
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.mao.candidates import candidate_cross_entropy
from maotune.train.loop import FitSettings, fit
from maotune.train.session import load_prompts, restore_prompts, save_prompts
from tests.contract.members import (
    BUILD,
    CLASSES,
    CLOSED_FORMS,
    OTHERS,
    SETTINGS,
    TABLE,
    UNLABELLED,
    batch,
    make,
    stages,
    toy_clip,
)


@pytest.mark.parametrize("method", ["plain", "mao"])
def test_a_run_moves_the_prompts_and_nothing_else(learner: AbstractLearner, method: str) -> None:
    weights = {name: value.clone() for name, value in toy_clip().model.state_dict().items()}
    before = copy.deepcopy(learner.state_dict())
    fit(learner, stages(method, learner.closed_form), FitSettings(warmup_epochs=0))
    assert any(not torch.equal(before[name], value) for name, value in learner.state_dict().items())
    for name, value in toy_clip().model.state_dict().items():
        assert torch.equal(value, weights[name]), name
        assert not value.requires_grad
    assert all(parameter.requires_grad is not learner.closed_form for parameter in learner.parameters())


@pytest.mark.parametrize(("name", "dept"), [row for row in TABLE if row[0] not in CLOSED_FORMS])
def test_a_step_gives_all_prompts_a_gradient(name: str, dept: bool) -> None:
    learner = make(name, dept).eval()
    terms = learner.losses(learner(batch()), batch(), F.cross_entropy)
    torch.autograd.backward(torch.stack([*terms.values()]).sum())
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(("name", "dept"), [row for row in TABLE if row[0] not in UNLABELLED])
def test_the_cross_entropy_is_the_one_handed_in(name: str, dept: bool) -> None:
    learner, calls = make(name, dept).eval(), []

    def classify(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(logits.shape)
        return 0 * logits.sum()

    output = learner(batch())
    given, swapped = learner.losses(output, batch(), F.cross_entropy), learner.losses(output, batch(), classify)
    assert calls
    assert given.keys() == swapped.keys()
    moved = {term for term in given if not torch.equal(given[term], swapped[term])}
    assert moved
    assert all(swapped[term] == 0 for term in moved), "a term holds more than the cross-entropy"


def test_saved_prompts_give_the_same_scores_elsewhere(learner: AbstractLearner, tmp_path: Path) -> None:
    fit(learner, stages("plain", learner.closed_form), FitSettings(warmup_epochs=0))
    expected = learner.eval()(batch()).logits
    save_prompts(tmp_path / "prompts.safetensors", learner.state_dict(), {})
    name = next(n for n, build in BUILD.items() if isinstance(getattr(learner, "inner", learner), build))
    fresh = make(name, isinstance(learner, DePT)).eval()
    restore_prompts(fresh, load_prompts(tmp_path / "prompts.safetensors")[0])
    torch.testing.assert_close(fresh(batch()).logits, expected, rtol=0, atol=1e-5)
    for each in (learner, fresh):
        each.bind(OTHERS)
    torch.testing.assert_close(fresh(batch()).logits, learner(batch()).logits, rtol=0, atol=1e-5)


def test_permuting_the_classes_permutes_the_scores(learner: AbstractLearner) -> None:
    logits = learner(batch()).logits
    order = torch.randperm(len(CLASSES), generator=torch.Generator().manual_seed(1))
    learner.bind([CLASSES[index] for index in order])
    torch.testing.assert_close(learner(batch()).logits, logits[:, order], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "dept"), [row for row in TABLE if not BUILD[row[0]].scores_all_classes])
def test_candidates_alone_score_as_among_all(name: str, dept: bool) -> None:
    learner = make(name, dept).eval()
    only = torch.tensor([5, 0, 2])
    full, part = learner(batch()).logits, learner(batch(), only).logits
    torch.testing.assert_close(part, full[:, only], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "dept"), TABLE)
def test_mao_with_all_classes_in_the_batch_is_plain(name: str, dept: bool) -> None:
    learner = make(name, dept).eval()
    everything = replace(batch(size=len(CLASSES)), labels=torch.arange(len(CLASSES)))
    output = learner(everything)
    plain = learner.losses(output, everything, F.cross_entropy)
    over_candidates = learner.losses(output, everything, candidate_cross_entropy)
    for term, value in plain.items():
        torch.testing.assert_close(over_candidates[term], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CLOSED_FORMS))
def test_dept_refuses_what_is_computed_in_closed_form(name: str) -> None:
    with pytest.raises(ValueError, match=f"{BUILD[name].__name__} is computed in closed form: run it without DePT"):
        make(name, dept=True)


@pytest.mark.parametrize("name", sorted(CLOSED_FORMS))
def test_a_closed_form_has_no_epochs(name: str) -> None:
    with pytest.raises(ValueError, match=r"stage 'plain' has 1 epochs, and .* in closed form: give 0"):
        fit(make(name), stages("plain"), FitSettings())
    history = fit(make(name), stages("mao", closed_form=True), FitSettings())
    assert [(stage.name, stage.updates, stage.epochs) for stage in history.stages] == [("base", 0, []), ("new", 0, [])]
    assert all(stage.seconds > 0 for stage in history.stages)


def test_prompts_of_every_stage_are_restored_by_a_fresh_learner(learner: AbstractLearner) -> None:
    """Parameters of single classes have other shapes in each stage; a fresh learner is bound to the first classes."""
    history = fit(learner, stages("mao", learner.closed_form), FitSettings(warmup_epochs=0))
    name = next(n for n, build in BUILD.items() if isinstance(getattr(learner, "inner", learner), build))
    fresh = make(name, isinstance(learner, DePT)).eval()
    for record, classes in zip(history.stages, (CLASSES, OTHERS), strict=True):
        for each in (fresh, learner):
            restore_prompts(each, record.prompts or {}, classes)
        for bound in (CLASSES, OTHERS):
            fresh.bind(bound)
            learner.bind(bound)
            torch.testing.assert_close(fresh(batch()).logits, learner(batch()).logits, rtol=0, atol=1e-5)
    for key, value in learner.state_dict().items():
        assert history["new"].prompts is not None
        assert torch.equal(value, history["new"].prompts[key]), key


@pytest.mark.parametrize("name", LEARNERS)
def test_classes_are_bound_when_all_else_is_there(name: str) -> None:
    """A learner that overrides ``bind`` finds all its fields, parameters and modules at the first call."""
    seen: list[set[str]] = []

    class Watching(LEARNERS[name]):  # type: ignore[misc, valid-type]
        def bind(self, classes: Sequence[str]) -> None:
            super().bind(classes)
            seen.append({*vars(self), *self.state_dict(), *dict(self.named_buffers())})

    learner = Watching(toy_clip(), CLASSES, **SETTINGS.get(name, {}))
    assert seen == [{*vars(learner), *learner.state_dict(), *dict(learner.named_buffers())}]
    assert learner.classes == CLASSES


def test_too_long_and_too_few_names_are_refused(learner: AbstractLearner) -> None:
    with pytest.raises(ValueError, match="very"):
        learner.bind(["fox", "very " * 40 + "long"])
    with pytest.raises(ValueError, match="class"):
        learner.bind([])


def test_binding_holds_no_embeddings() -> None:
    """50,000 classes must not cost 50,000 embedded names: a context keeps token ids, and nothing else."""
    learner = make("coop")
    many = [f"thing {number}" for number in range(5000)]
    learner.bind(many)
    held = sum(buffer.numel() * buffer.element_size() for buffer in learner.buffers())
    assert held < len(many) * 20 * 8 * 2
