from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maotune.contract import AbstractLearner, Batch
from maotune.mao.pseudo_labels import PseudoLabels, PseudoLabelStore, predict_labels

IMAGES = tuple(f"{index}.jpg" for index in range(5))
LAW = settings(deadline=None, max_examples=50)


class Directions(AbstractLearner):
    """Class c is the direction c; a real learner, if one with little to learn."""

    logit_scale = 10.0

    def __init__(self, classes: int, *, text_depends_on_image: bool = False) -> None:
        super().__init__()
        self.text_depends_on_image = text_depends_on_image
        self.offset = torch.nn.Parameter(torch.zeros(4))
        self.bind([f"class {index}" for index in range(classes)])

    def bind(self, classes):
        self.classes = tuple(classes)

    def image_features(self, batch):
        assert not self.training
        return batch.features

    def text_features(self, only=None, image=None):
        text = torch.eye(4)[: len(self.classes)] + self.offset
        return text if image is None or not self.text_depends_on_image else text.expand(len(image), -1, -1)

    def losses(self, output, batch, classify):
        return {"cross_entropy": classify(output.logits, batch.labels)}


def batches(features: torch.Tensor, size: int = 3) -> list[Batch]:
    return [Batch(torch.zeros(len(part), dtype=torch.int64), features=part) for part in features.split(size)]


@pytest.mark.parametrize("text_depends_on_image", [False, True])
def test_an_image_gets_the_class_with_the_highest_probability(text_depends_on_image):
    labeler = Directions(3, text_depends_on_image=text_depends_on_image).train()
    features = torch.tensor([[0.0, 5, 0, 0], [1, 0, 0, 0], [1, 1, 0.9, 0], [0, 0, 2, 0], [0, 0.5, 1, 9]])
    predicted = predict_labels(labeler, batches(features), IMAGES)
    probability = torch.stack([(10 * f[:3] / f.norm()).softmax(0) for f in features])
    assert predicted.labels.tolist() == [1, 0, 0, 2, 2]
    torch.testing.assert_close(predicted.confidence, probability.max(dim=1).values)
    assert predicted.classes == ("class 0", "class 1", "class 2")
    assert predicted.images == IMAGES
    assert labeler.training, "left as it was"
    assert not predicted.confidence.requires_grad


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no unlabelled image"):
        predict_labels(Directions(2), [], [])


def labelled(labels: torch.Tensor, confidence: torch.Tensor, classes: int) -> PseudoLabels:
    names = tuple(f"class {index}" for index in range(classes))
    return PseudoLabels(labels, confidence, names, tuple(f"{index}.jpg" for index in range(len(labels))))


@LAW
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_the_most_confident_of_each_class(count, classes, per_class, seed):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    confidence = torch.rand(count, generator=random)
    kept = labelled(labels, confidence, classes).most_confident(per_class).tolist()
    expected = []
    for label in range(classes):
        own = [index for index in range(count) if labels[index] == label]
        expected += sorted(own, key=lambda index: -confidence[index])[:per_class]
    assert kept == sorted(expected)


def test_views_of_one_image_are_kept_together():
    predicted = labelled(torch.tensor([[0, 1], [0, 0], [1, 1]]), torch.tensor([[0.6, 0.9], [0.8, 0.5], [0.5, 0.5]]), 2)
    assert predicted.most_confident(1).tolist() == [1, 2]
    assert predicted.report([0, 0, 0])["accuracy"] == pytest.approx(3 / 6)


def test_the_report():
    predicted = labelled(torch.tensor([0, 0, 1, 1]), torch.tensor([0.9, 0.7, 0.5, 0.5]), 4)
    unknown = predicted.report([-1, -1, -1, -1])
    assert unknown == pytest.approx({"images": 4, "confidence": 0.65, "balance": 0.5, "classes_without_image": 2})
    assert predicted.report() == unknown
    known = predicted.report([0, 1, 1, -1])
    assert known == pytest.approx({**unknown, "accuracy": 2 / 3, "off_class": 0.25})
    even = labelled(torch.arange(4), torch.ones(4), 4)
    assert even.report()["balance"] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_a_file_holds_labels_to_the_bit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    confidence = torch.rand(shape, generator=random)
    predicted = PseudoLabels(torch.randint(4, shape, generator=random), confidence, ("été", "b", "c", "d"), IMAGES)
    predicted.save(tmp_path / "labels.json")
    read = PseudoLabels.load(tmp_path / "labels.json")
    assert torch.equal(read.labels, predicted.labels)
    assert torch.equal(read.confidence, predicted.confidence)
    assert (read.classes, read.images) == (predicted.classes, IMAGES)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for content in ("", "[]", '{"labels": [0]}'):
        (tmp_path / "labels.json").write_text(content)
        with pytest.raises(ValueError, match="damaged or holds no pseudo-labels"):
            PseudoLabels.load(tmp_path / "labels.json")


def test_a_store_refuses_labels_of_other_images_but_not_of_moved_ones(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    assert PseudoLabelStore(path).get(IMAGES) is None
    images = tuple(f"/data/pool/{name}" for name in IMAGES)
    predicted = PseudoLabels(torch.arange(5), torch.ones(5), ("a",) * 5, images)
    PseudoLabelStore(path).put(predicted)
    for same in (images, IMAGES, tuple(f"moved/{name}" for name in IMAGES)):
        read = PseudoLabelStore(path).get(same)
        assert read is not None
        assert torch.equal(read.labels, predicted.labels)
    for other in (images[:4], images[::-1], (*images[:4], "/data/pool/new.jpg"), (*images[:4], "/data/4.jpg")):
        with pytest.raises(ValueError, match=r"labels\.json holds pseudo-labels of other images"):
            PseudoLabelStore(path).get(other)
