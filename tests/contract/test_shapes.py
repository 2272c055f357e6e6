"""Shapes and types at every border of a learner while it is tuned and scored: B, C, H, d as in the contract."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from beartype import beartype
from jaxtyping import Float32, Int64, TypeCheckError, jaxtyped
from torch import Tensor

from maotune.contract import AbstractLearner, Batch, Batches, Classify, Output
from maotune.learners.dept import DePT
from maotune.learners.proda import ProDA
from maotune.learners.promptkd import PromptKD
from maotune.learners.representation import RepresentationLearner
from maotune.train.loop import FitSettings, fit
from tests.contract.members import CLASSES, OTHERS, batch, make, stages

typed = jaxtyped(typechecker=beartype)


def check(batch: Batch) -> None:
    """See that the tensors of a batch agree on B, and its two views on their size."""

    @typed
    def agree(
        labels: Int64[Tensor, "B"] | Float32[Tensor, "B C"],
        images: Float32[Tensor, "B 3 h w"] | None,
        second_images: Float32[Tensor, "B 3 h w"] | None,
        features: Float32[Tensor, "B d"] | None,
    ) -> None: ...

    agree(batch.labels, batch.images, batch.second_images, batch.features)


@typed
def check_output(
    image: Float32[Tensor, "B d"],
    text: Float32[Tensor, "H d"] | Float32[Tensor, "B H d"],
    logits: Float32[Tensor, "B H"],
) -> None:
    """See that image, text and scores agree."""


@typed
def check_scalar(term: Float32[Tensor, ""]) -> None:
    """See that a term of the loss is one number."""


class Typed(AbstractLearner):
    """A learner around a learner, which changes nothing and checks all that goes in and comes out."""

    def __init__(self, inner: AbstractLearner) -> None:
        super().__init__()
        self.inner = inner
        self.tunes_image_tower, self.uses_frozen_features = inner.tunes_image_tower, inner.uses_frozen_features
        self.scores_all_classes, self.text_depends_on_image = inner.scores_all_classes, inner.text_depends_on_image
        self.uses_labels, self.views, self.lr_factors = inner.uses_labels, inner.views, {}
        self.uses_unprojected_features, self.closed_form = inner.uses_unprojected_features, inner.closed_form
        self.varying = tuple(f"inner.{name}" for name in inner.varying)
        self.logit_scale, self.classes = inner.logit_scale, inner.classes

    def own(self) -> None:
        self.inner.own()

    def prepare(self, batches: Batches) -> None:
        self.inner.prepare(batches)

    @typed
    def bind(self, classes: Sequence[str]) -> None:
        self.inner.bind(classes)
        self.classes = self.inner.classes
        assert self.classes == tuple(classes)

    @typed
    def image_features(self, batch: Batch) -> Float32[Tensor, "B d"]:
        check(batch)
        return self.inner.image_features(batch)

    @typed
    def text_features(
        self, only: Int64[Tensor, "H"] | None = None, image: Float32[Tensor, "B d"] | None = None
    ) -> Float32[Tensor, "H d"] | Float32[Tensor, "B H d"]:
        text = self.inner.text_features(only, image)
        assert text.ndim == (3 if self.text_depends_on_image else 2)
        assert only is not None or text.shape[-2] == len(self.classes)
        return text

    @typed
    def logits(
        self,
        image: Float32[Tensor, "B d"],
        text: Float32[Tensor, "H d"] | Float32[Tensor, "B H d"],
        only: Int64[Tensor, "H"] | None = None,
    ) -> Float32[Tensor, "B H"]:
        return self.inner.logits(image, text, only)

    @typed
    def forward(self, batch: Batch, only: Int64[Tensor, "H"] | None = None) -> Output:
        check(batch)
        output: Output = self.inner(batch, only)
        check_output(output.image, output.text, output.logits)
        assert output.text.ndim == (3 if self.text_depends_on_image else 2)
        assert output.logits.shape == (len(batch), len(self.classes) if only is None else len(only))
        return output

    @typed
    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        check(batch)

        @typed
        def checked(
            logits: Float32[Tensor, "B H"], labels: Int64[Tensor, "B"] | Float32[Tensor, "B H"]
        ) -> Float32[Tensor, ""]:
            return classify(logits, labels)

        terms = self.inner.losses(output, batch, checked)
        for term in terms.values():
            check_scalar(term)
        return terms


@pytest.mark.parametrize("method", ["plain", "mao"])
def test_shapes_while_tuned(learner: AbstractLearner, method: str) -> None:
    fit(Typed(learner), stages(method, learner.closed_form), FitSettings(warmup_epochs=0))


def test_shapes_while_scored(learner: AbstractLearner) -> None:
    whole = Typed(learner)
    for classes in (CLASSES, OTHERS):
        whole.bind(classes)
        image = whole.image_features(batch())
        for only in (None, torch.tensor([3, 1])):
            if only is None or not whole.scores_all_classes:
                text = whole.text_features(only, image if whole.text_depends_on_image else None)
                torch.testing.assert_close(whole.logits(image, text, only), whole(batch(), only).logits)


def test_soft_labels_are_used_or_refused(learner: AbstractLearner) -> None:
    soft = replace(batch(), labels=torch.full((5, len(CLASSES)), 1 / len(CLASSES)))
    checked = Typed(learner)
    output = checked(soft)
    if isinstance(learner, DePT | ProDA):
        with pytest.raises(ValueError, match=r"the loss of (DePT|ProDA) needs one class per image"):
            checked.losses(output, soft, F.cross_entropy)
    else:
        terms = checked.losses(output, soft, F.cross_entropy)
        expected = F.cross_entropy(output.logits, soft.labels)
        assert isinstance(learner, PromptKD | RepresentationLearner) or torch.equal(terms["cross_entropy"], expected)


class Transposed(AbstractLearner):
    """Text features (d, C): what the checks are for."""

    def __init__(self, inner: AbstractLearner) -> None:
        super().__init__()
        self.inner, self.classes, self.logit_scale = inner, inner.classes, inner.logit_scale

    def bind(self, classes: Sequence[str]) -> None:
        self.inner.bind(classes)

    def image_features(self, batch: Batch) -> Tensor:
        return self.inner.image_features(batch).double()

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        return self.inner.text_features(only).T

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        return {"cross_entropy": classify(output.logits, batch.labels)[None]}


def test_wrong_shapes_and_types_are_seen() -> None:
    right, wrong = make("coop"), Typed(Transposed(make("coop")))
    with pytest.raises(TypeCheckError):
        wrong.image_features(batch())
    with pytest.raises(AssertionError):
        wrong.text_features()
    with pytest.raises(TypeCheckError):
        wrong.losses(right(batch()), batch(), F.cross_entropy)
    with pytest.raises(TypeCheckError):
        Typed(right)(replace(batch(), images=batch(size=3).images))
