"""The loop against an obvious one, and what it says when something is wrong."""

import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maotune.contract import Batch, Stage
from maotune.train.averaging import GaussianAverage
from maotune.train.history import EpochDone, StageDone, StageStarted, StepDone
from maotune.train.loop import FitSettings, TrainingDiverged, fit
from tests.train.toy import CLASSES, OTHERS, Toy, ToyBatches, two_stages


def stage(batches: ToyBatches, epochs: int = 3, **settings) -> Stage:
    given = {"name": "only", "classes": CLASSES, "classify": F.cross_entropy, "lr": 0.05, **settings}
    return Stage(batches=lambda learner: batches, epochs=epochs, **given)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def close(one: nn.Module, other: nn.Module, **tolerance) -> None:
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), **tolerance)


def test_fit_is_the_obvious_loop():
    batches, tuned, plain = ToyBatches(), Toy(dropout=0), Toy(dropout=0)
    fit(tuned, [stage(batches)], FitSettings())

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch, lr in enumerate([1e-5, 0.05, 0.0375]):
        optimizer.param_groups[0]["lr"] = lr
        for batch in batches.epoch(epoch):
            optimizer.zero_grad()
            logits = plain(batch).logits
            loss = F.cross_entropy(logits, batch.labels) + 0.01 * plain.context.square().sum()
            loss.backward()
            optimizer.step()
    close(tuned, plain)


def test_soft_labels_are_refused_where_they_would_name_the_classes_to_encode():
    def soft(epoch, start=0):
        yield Batch(labels=torch.full((2, len(CLASSES)), 1 / len(CLASSES)), features=torch.randn(2, 8))

    batches = ToyBatches(updates=1)
    batches.epoch = soft  # type: ignore[method-assign]
    fit(Toy(), [stage(batches)], FitSettings())
    with pytest.raises(ValueError, match=r"stage 'only' encodes the classes of each batch alone.*\(B,\) int64"):
        fit(Toy(), [stage(batches, batch_candidates=True)], FitSettings())


def test_each_stage_restarts_optimizer_and_schedule_and_goes_on_from_the_prompts_before():
    both, apart = Toy(dropout=0), Toy(dropout=0)
    history = fit(both, two_stages(), FitSettings())
    first, second = two_stages()
    fit(apart, [first], FitSettings())
    torch.testing.assert_close(history["base"].prompts, dict(apart.state_dict()))
    fit(apart, [second], FitSettings())
    assert same(both, apart)
    assert both.classes == OTHERS
    assert [epoch.lr for epoch in history["new"].epochs] == [epoch.lr for epoch in history["base"].epochs]


class Recording(Toy):
    """Notes which classes were encoded."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.asked: list[int] = []

    def text_features(self, only=None, image=None):
        self.asked.append(len(self.classes) if only is None else len(only))
        return super().text_features(only, image)


class Everywhere(Recording):
    scores_all_classes = True


def over_batch_classes(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    columns, among = labels.unique(return_inverse=True)
    return F.cross_entropy(logits[:, columns], among)


def test_only_the_candidates_are_encoded_where_that_is_enough_and_nothing_else_changes():
    batches = ToyBatches(size=3)
    settings = {"classify": over_batch_classes, "batch_candidates": True}
    few, all_of_them = Recording(dropout=0), Everywhere(dropout=0)
    fit(few, [stage(batches, **settings)], FitSettings())
    fit(all_of_them, [stage(batches, **settings)], FitSettings())
    expected = [len(set(batch.labels.tolist())) for epoch in range(3) for batch in batches.epoch(epoch)]
    assert few.asked == expected
    assert all_of_them.asked == [len(CLASSES)] * len(expected)
    close(few, all_of_them)


def test_accumulated_gradients_are_those_of_the_larger_batch():
    class Halves(ToyBatches):
        """Each batch in two; the last one stands alone."""

        def __len__(self) -> int:
            return 2 * self.updates + 1

        def epoch(self, index, start=0):
            whole = [*super().epoch(index)]
            half = self.size // 2
            parts = [
                Batch(batch.labels[rows], features=batch.features[rows])
                for batch in whole
                for rows in (slice(half), slice(half, None))
            ]
            yield from [*parts, whole[0]][start:]

    class WithLast(ToyBatches):
        def __len__(self) -> int:
            return self.updates + 1

        def epoch(self, index, start=0):
            whole = [*super().epoch(index)]
            yield from [*whole, whole[0]][start:]

    small, large = Toy(dropout=0), Toy(dropout=0)
    record = fit(small, [stage(Halves())], FitSettings(accumulate=2))["only"]
    fit(large, [stage(WithLast())], FitSettings())
    close(small, large)
    assert (record.batches, record.updates, record.images) == (3 * 13, 3 * 7, 3 * 28)


def test_parameters_may_have_their_own_multiple_of_the_learning_rate():
    class Faster(Toy):
        lr_factors = {"projection": 3.0}  # noqa: RUF012

    settings = FitSettings("SGD", {"momentum": 0, "weight_decay": 0}, warmup_epochs=0)
    learners = [Toy(dropout=0), Faster(dropout=0)]
    for learner in learners:
        fit(learner, [stage(ToyBatches(updates=1), epochs=1)], settings)
    start, (plain, faster) = Toy(dropout=0), learners
    torch.testing.assert_close(faster.context, plain.context)
    moved = plain.projection.weight - start.projection.weight
    torch.testing.assert_close(faster.projection.weight - start.projection.weight, 3 * moved)

    class Typing(Toy):
        lr_factors = {"projektion": 3.0}  # noqa: RUF012

    with pytest.raises(ValueError, match="no parameter's name begins"):
        fit(Typing(), [stage(ToyBatches())], settings)


def test_prompts_are_averaged_over_the_epochs():
    average = GaussianAverage(mean=2, std=1, of_epochs=3)
    ends: list[dict[str, torch.Tensor]] = []
    plain = Toy()

    def keep(event):
        if isinstance(event, EpochDone):
            ends.append({name: value.clone() for name, value in plain.state_dict().items()})

    fit(plain, [stage(ToyBatches())], FitSettings(), on_event=keep)
    averaged = Toy()
    fit(averaged, [stage(ToyBatches())], FitSettings(average=average))
    expected = {name: sum(w * end[name] for w, end in zip(average.weights(3), ends, strict=True)) for name in ends[0]}
    torch.testing.assert_close(dict(averaged.state_dict()), expected)


def test_a_scaled_loss_gives_the_same_prompts():
    plain, scaled = Toy(dropout=0), Toy(dropout=0)
    fit(plain, [stage(ToyBatches())], FitSettings())
    fit(scaled, [stage(ToyBatches())], FitSettings(), scale_loss=True)
    close(plain, scaled, rtol=1e-4, atol=1e-5)


def test_events_tell_everything_in_order():
    events = []
    history = fit(Toy(), two_stages(epochs=2, updates=3), FitSettings(), on_event=events.append)
    kinds = [StageStarted, *[StepDone] * 3, EpochDone, *[StepDone] * 3, EpochDone, StageDone]
    assert [type(event) for event in events] == kinds * 2
    assert events[0] == StageStarted("base", len(CLASSES), epochs=2, batches=3, done=0)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [step.step for step in steps[:3]] == [1, 2, 3]
    record = history["base"].epochs[0]
    assert record.losses["cross_entropy"] == pytest.approx(sum(s.losses["cross_entropy"] for s in steps[:3]) / 3)
    assert (history["base"].updates, history["base"].images) == (6, 24)
    assert history.peak_memory > 2**20
    assert history["base"].seconds > 0
    with pytest.raises(KeyError, match="base, new"):
        history["old"]


def test_random_numbers_outside_are_left_alone_and_those_inside_come_from_the_seed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = Toy(), Toy(), Toy()
    fit(first, [stage(ToyBatches())], FitSettings(), seed=1)
    assert torch.equal(torch.rand(3), expected)
    fit(again, [stage(ToyBatches())], FitSettings(), seed=1)
    fit(other, [stage(ToyBatches())], FitSettings(), seed=2)
    assert same(first, again)
    assert not same(first, other)


class Poisoned(ToyBatches):
    """One image of the second epoch is not a number."""

    def epoch(self, index, start=0):
        for step, batch in enumerate(super().epoch(index, start), start):
            if (index, step) == (1, 2):
                batch.features[1] = float("nan")
            yield batch


def test_a_loss_that_is_not_finite_stops_with_the_names_of_the_images_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged) as caught:
        fit(Toy(), [stage(Poisoned())], FitSettings(), folder=tmp_path)
    error = caught.value
    assert (error.stage, error.epoch, error.step) == ("only", 1, 3)
    assert error.names == tuple(f"1-2-{i}.png" for i in range(4))
    assert "1-2-1.png" in str(error)
    assert "cross_entropy nan" in str(error)
    healed, whole = Toy(), Toy()
    fit(healed, [stage(ToyBatches())], FitSettings(), folder=tmp_path, resume=True)
    fit(whole, [stage(ToyBatches())], FitSettings())
    assert same(healed, whole)


@pytest.mark.parametrize("scale_loss", [False, True])
def test_a_gradient_that_is_not_finite_stops_before_the_prompts_are_spoilt(scale_loss):
    class Root(Toy):
        def losses(self, output, batch, classify):
            return {"root": (self.context - self.context.detach()).square().sum().sqrt()}  # 0, with slope 0/0

    learner = Root()
    with pytest.raises(TrainingDiverged, match="the gradient is not finite"):
        fit(learner, [stage(ToyBatches(updates=30))], FitSettings(), scale_loss=scale_loss)
    assert same(learner, Toy())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer": "adamw"}, "did you mean AdamW"),
        ({"optimizer": "LBFGS"}, "unknown optimizer"),
        ({"optimizer_options": {"lr": 1}}, "the stage's"),
        ({"optimizer_options": {"betas": 1}}, "SGD takes momentum"),
        ({"optimizer_options": {"momentum": -1.0}}, "Invalid momentum"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"warmup_epochs": -1}, "0 or more"),
    ],
)
def test_wrong_settings_are_answered_before_anything_runs(settings, says):
    with pytest.raises(ValueError, match=says):
        FitSettings(**settings)


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"of_epochs": 0}])
def test_wrong_averages_are_answered(wrong):
    with pytest.raises(ValueError, match="average"):
        GaussianAverage(**wrong)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([stage(ToyBatches(), epochs=0)], "0 epochs"),
        ([stage(ToyBatches(updates=0))], "no batches"),
        ([stage(ToyBatches())] * 2, "different names"),
        ([stage(ToyBatches(), name="a/b")], "cannot name a file"),
        ([stage(ToyBatches(), name="checkpoint")], "cannot name a file"),
    ],
)
def test_stages_that_cannot_run_are_answered(stages, says):
    with pytest.raises(ValueError, match=says):
        fit(Toy(), stages, FitSettings())


def test_a_learner_without_parameters_is_answered():
    learner = Toy()
    for parameter in learner.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to tune"):
        fit(learner, [stage(ToyBatches())], FitSettings())


def test_epochs_that_are_all_warm_up_are_pointed_out(caplog):
    with caplog.at_level(logging.WARNING):
        fit(Toy(), [stage(ToyBatches(), epochs=1)], FitSettings())
    assert "warm-up" in caplog.text
    caplog.clear()
    fit(Toy(), [stage(ToyBatches(), epochs=1)], replace(FitSettings(), warmup_epochs=0))
    assert not caplog.text
