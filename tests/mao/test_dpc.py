"""DPC: its settings, batches, loss, stages, and whose prompts predict."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maotune.contract import Predictors, mixture_weights, name_mixture
from maotune.mao.candidates import per_image_cross_entropy, symmetric_cross_entropy
from maotune.mao.methods import build_stages, predictors_of
from maotune.mao.sampler import RankedNegativeSampler
from maotune.mao.settings import DpcSettings, MaoSettings
from maotune.mao.stages import StageBuilder
from maotune.train.loop import FitSettings, fit
from tests.mao.test_stages import BASE, NEW, Names, run, samples, task, vector


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"plain": 1 - 0.2, "parallel": 0.2}, "0.8 plain + 0.2 parallel"),
        ({"plain": 1 - 0.9, "parallel": 0.9}, "0.1 plain + 0.9 parallel"),
        ({"plain": 1.0, "parallel": 0.0}, "plain"),
        ({"plain": 0.0, "parallel": 1.0}, "parallel"),
        ({"a": 1 / 3, "b-2": 1 / 3, "c": 1 / 3}, "0.333333 a + 0.333333 b-2 + 0.333333 c"),
    ],
)
def test_a_mixture_has_a_name_that_says_its_weights(weights: dict[str, float], text: str) -> None:
    assert name_mixture(weights) == text
    assert mixture_weights(text) == pytest.approx(
        {name: weight for name, weight in weights.items() if weight}, abs=1e-6
    )


@pytest.mark.parametrize(
    "text",
    ["", "0.8 plain", "0.8 plain + parallel", "0.8 plain + 0.3 parallel", "1.5 plain + -0.5 new", "x plain + 1 new",
     "0.5 plain + 0.5 plain", "nan plain + nan new", "0.8 plain +0.2 parallel", "plain parallel"],
)  # fmt: skip
def test_what_is_no_mixture_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"give the name of one stage, or weights that sum to 1"):
        mixture_weights(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"weight": 0}, "weight above 0"), ({"weight": 1.1}, "weight above 0"), ({"new_weight": -0.1}, "from 0 to 1"),
     ({"lr": 0.0}, "learning rate above 0"), ({"b": 0}, "give 1 or more"), ({"epochs": 0}, "give 1 or more")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DpcSettings(**settings)


@pytest.mark.parametrize(
    ("dpc", "base", "new"),
    [
        (DpcSettings(), "0.8 plain + 0.2 parallel", "plain"),
        (DpcSettings(weight=0.5, new_weight=0.1), "0.5 plain + 0.5 parallel", "0.9 plain + 0.1 parallel"),
        (DpcSettings(weight=1), "parallel", "plain"),
        (DpcSettings(reading="released"), "parallel", "plain"),
    ],
)
def test_whose_prompts_predict(dpc: DpcSettings, base: str, new: str) -> None:
    assert predictors_of("dpc", task(dpc=dpc), MaoSettings()) == Predictors(base, new)
    assert predictors_of("dpc-mao", task(dpc=dpc), MaoSettings()) == Predictors(base, "new")
    without = task(dpc=dpc, new_stage=False, new_classes=(), unlabelled=None)
    assert predictors_of("dpc-mao", without, MaoSettings()) == Predictors(base, new)


@pytest.mark.parametrize(
    ("dpc", "lr"),
    [(DpcSettings(), 0.002), (DpcSettings(lr=0.01), 0.01), (DpcSettings(reading="released"), 0.01)],
)
def test_the_released_weight_only_divides_the_learning_rate(dpc: DpcSettings, lr: float) -> None:
    _, parallel = build_stages("dpc", task(dpc=dpc), MaoSettings())
    assert parallel.lr == pytest.approx(lr)


def test_symmetric_cross_entropy_is_over_classes_and_over_images() -> None:
    logits, labels = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([5, 0, 3, 1])
    scores = logits[:, labels]
    own = torch.arange(4)
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    torch.testing.assert_close(symmetric_cross_entropy(logits, labels), expected)
    assert symmetric_cross_entropy(logits, labels) != per_image_cross_entropy(logits, labels)
    twice = torch.tensor([5, 5])
    sure = torch.full((2, 6), -50.0).index_fill(1, torch.tensor([5]), 50.0)
    assert symmetric_cross_entropy(sure, twice).item() == pytest.approx(math.log(2)), "each is the other's negative"


def sampler(at_least: int = 0, **changes: object) -> RankedNegativeSampler:
    labels = torch.arange(8).repeat_interleave(2)
    ranked = torch.stack([torch.tensor([0, 1, 2]), torch.tensor([5, 6, 7])]).expand(16, 2, 3)
    settings = {"b": 2, "views": 2, "seed": 1, "at_least": at_least, **changes}
    return RankedNegativeSampler(labels, 8, ranked, **settings)


@pytest.mark.parametrize("at_least", [0, 2])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_queries_have_the_classes_beside_them_that_they_are_taken_for(at_least: int, epoch: int) -> None:
    made = sampler(at_least)
    batches, near = made.epoch(epoch), ({0, 1, 2} if epoch % 2 == 0 else {5, 6, 7})
    assert batches == sampler(at_least).epoch(epoch), "a function of the seed"
    assert sorted(image for batch in batches for image, _ in batch[:2]) == list(range(16)), "each a query once"
    for batch in batches:
        assert [view for _, view in batch[:2]] == [epoch % 2] * 2
        queries, others = ({image // 2 for image, _ in part} for part in (batch[:2], batch[2:]))
        assert len(others) == len(batch) - 2
        assert near - queries <= others
        assert not others & queries
        assert others == near - queries if not at_least else len(others) >= 4


def test_a_batch_of_queries_alone_where_all_are_taken_for_what_is_there() -> None:
    ranked = torch.zeros(4, 1, 1, dtype=torch.int64)
    made = RankedNegativeSampler(torch.tensor([0, 0, 0, 0, 1]), 2, ranked, b=2, views=1, seed=1)
    assert all(len(batch) == 2 for batch in made.epoch(0))


def test_the_learner_as_plain_left_it_ranks_and_is_not_asked_again() -> None:
    stages, (_, drawn) = run("dpc", learner=Names(BASE))
    again = run("dpc", learner=Names(BASE))[1][1]
    moved = run("dpc", learner=Names(BASE, turn=1.0))[1][1]
    assert [batch.names for batch in drawn] == [batch.names for batch in again]
    assert [batch.names for batch in drawn] != [batch.names for batch in moved]
    assert stages[1].updates == 48 // 2, "b is 2, as there are 12 classes"
    assert all(len(batch) <= 2 * (5 + 1) for batch in drawn)


def test_images_of_hard_negatives_are_of_the_training_split_where_mao_pool_says_so() -> None:
    few, many = (
        {name for batch in run("dpc", MaoSettings(pool=pool))[1][1] for name in batch.names}
        for pool in ("few-shot", "train")
    )
    assert few <= {sample.image.name for sample in samples(BASE, 4)}
    assert many > few
    assert all(name.split("/")[0] in BASE for name in many)


@pytest.mark.parametrize("shots", [1, 3, 4])
@pytest.mark.parametrize("epochs", [3, 6])
def test_dpc_and_mao_together_have_as_many_updates_as_mao(epochs: int, shots: int) -> None:
    given = task(epochs=epochs, shots=samples(BASE, shots))
    stages = build_stages("dpc-mao", given, MaoSettings())
    updates = sum(stage.epochs * (stage.updates or 0) for stage in stages)
    assert updates == StageBuilder(given, MaoSettings()).updates()
    assert [stage.starts_from for stage in stages] == [None, None, "plain"]


def test_the_new_stage_begins_where_plain_ended() -> None:
    starts: dict[str, float] = {}

    class Falling(Names):
        def text_features(self, only=None, image=None):
            text = torch.stack([vector(name) for name in self.classes])
            return text if only is None else text[only]

        def losses(self, output, batch, classify):
            starts.setdefault(f"{classify.__name__} {len(self.classes)}", self.turn.item())
            return {"cross_entropy": classify(output.logits, batch.labels) + self.turn}

    history = fit(Falling(BASE), build_stages("dpc-mao", task(), MaoSettings()), FitSettings(warmup_epochs=0))
    plain, parallel, _ = ((record.prompts or {})["turn"].item() for record in history.stages)
    assert [*starts.values()] == [0.0, plain, plain]
    assert parallel < plain < 0


def test_new_classes_are_those_of_the_new_stage() -> None:
    stages, (_, _, new) = run("dpc-mao")
    assert stages[2].classes == NEW
    assert all(np.isin([name.split("/")[0] for name in batch.names], NEW).all() for batch in new)
