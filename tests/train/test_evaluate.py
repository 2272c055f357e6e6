"""Accuracy, predictions and their arithmetic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maotune.contract import Batch
from maotune.train.evaluate import evaluate, harmonic_mean, score_images
from tests.train.toy import CLASSES, OTHERS, WIDTH, Toy, ToyBatches, frozen


class Fixed:
    """Given batches."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, index, start=0):
        yield from self.batches[start:]


def images_of(shown, labels, **settings) -> Batch:
    return Batch(torch.tensor(labels), features=torch.stack([frozen(name) for name in shown]), **settings)


@pytest.fixture
def learner() -> Toy:
    """A learner whose prompts do nothing: an image of a class has that class's very features."""
    toy = Toy()
    for parameter in toy.parameters():
        parameter.data.zero_()
    return toy


def test_accuracy_counts_images_not_classes(learner):
    result = evaluate(learner, Fixed(images_of(["ant", "ant", "ant"], [0, 0, 0]), images_of(["bee", "cat"], [1, 3])))
    assert len(result) == 5
    assert result.accuracy == pytest.approx(80.0)
    assert result.predictions.tolist() == [0, 0, 0, 1, 2]
    per_class = result.per_class
    assert (per_class["ant"], per_class["bee"], per_class["dog"]) == (100, 100, 0)
    assert math.isnan(per_class["eel"])
    seen = [value for value in per_class.values() if not math.isnan(value)]
    assert result.mean_per_class == pytest.approx(sum(seen) / len(seen)) != result.accuracy
    assert result.confusion.sum() == 5
    assert result.confusion[3, 2] == 1
    assert result.confusion.shape == (5, 5)


def test_scores_of_images_need_no_labels(learner):
    batch = images_of(["dog", "ant"], [-1, -1], names=("1.png", "2.png"))
    scores = score_images(learner, Fixed(batch))
    assert [CLASSES[i] for i in scores.argmax(dim=1)] == ["dog", "ant"]
    torch.testing.assert_close(scores, learner.eval()(batch).logits.detach())


class ByImage(Toy):
    """Texts that depend on the image."""

    text_depends_on_image = True

    def text_features(self, only=None, image=None):
        return super().text_features(only) + 0.1 * image[:, None]


@pytest.mark.parametrize("kind", [Toy, ByImage])
def test_texts_in_pieces_score_as_in_one(kind, monkeypatch):
    learner, batches = kind(), ToyBatches()
    whole = score_images(learner, batches)
    monkeypatch.setattr("maotune.train.evaluate.TEXTS_AT_ONCE", 8 if kind is ByImage else 2)
    torch.testing.assert_close(whole, score_images(learner, batches))


def test_texts_are_encoded_once_and_without_dropout_or_gradients():
    class Counting(Toy):
        calls = 0

        def text_features(self, only=None, image=None):
            self.calls += 1
            assert not self.training
            assert not torch.is_grad_enabled()
            return super().text_features(only, image)

    learner = Counting().train()
    heard = []
    evaluate(learner, ToyBatches(updates=5), on_batch=heard.append)
    assert learner.calls == 1
    assert heard == [4, 8, 12, 16, 20]
    assert learner.training
    assert torch.is_grad_enabled()


def test_other_classes_may_be_bound(learner):
    learner.bind(OTHERS)
    assert evaluate(learner, Fixed(images_of(OTHERS, [0, 1, 2]))).accuracy == 100.0


def test_what_cannot_be_scored_is_answered(learner):
    with pytest.raises(ValueError, match="bound to 5 classes"):
        evaluate(learner, Fixed(images_of(["ant"], [5])))
    with pytest.raises(ValueError, match="from -1 to -1"):
        evaluate(learner, Fixed(images_of(["ant"], [-1])))
    with pytest.raises(ValueError, match="soft labels have no accuracy"):
        evaluate(learner, Fixed(Batch(torch.full((1, 5), 0.2), features=torch.zeros(1, WIDTH))))
    for empty in (Fixed(), Fixed(Batch(torch.zeros(0, dtype=torch.int64), features=torch.zeros(0, WIDTH)))):
        with pytest.raises(ValueError, match="no image"):
            evaluate(learner, empty)
        with pytest.raises(ValueError, match="no image"):
            score_images(learner, empty)
    bad = Batch(torch.tensor([0]), features=torch.full((1, WIDTH), float("inf")), names=("broken.png",))
    with pytest.raises(ArithmeticError, match=r"broken\.png"):
        evaluate(learner, Fixed(bad))
    assert learner.training


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_harmonic_mean_lies_between_and_is_symmetric(base, new):
    mean = harmonic_mean(base, new)
    assert mean == harmonic_mean(new, base)
    assert min(base, new) - 1e-9 <= mean <= max(base, new) + 1e-9


def test_the_harmonic_mean_is_that_of_the_paper():
    assert harmonic_mean(69.34, 74.22) == pytest.approx(71.70, abs=0.005)
    assert harmonic_mean(0, 50) == harmonic_mean(0, 0) == 0


@pytest.mark.parametrize("kind", [Toy, ByImage])
def test_the_highest_score_among_other_classes_is_that_of_a_learner_bound_to_them(kind):
    learner, batches = kind(), ToyBatches()
    alone = evaluate(learner, batches)
    beside = evaluate(learner, batches, rivals={"others": OTHERS})
    assert learner.classes == beside.classes == CLASSES, "bound as before"
    assert torch.equal(alone.predictions, beside.predictions)
    assert torch.equal(alone.highest, beside.highest)
    assert not alone.rivals
    learner.eval()
    for classes, highest in ((CLASSES, beside.highest), (OTHERS, beside.rivals["others"])):
        learner.bind(classes)
        expected = torch.cat([learner(batch).logits.amax(dim=1) for batch in batches.epoch(0)])
        torch.testing.assert_close(highest, expected.detach())
