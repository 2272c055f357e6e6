"""DePT: decoupled prompt tuning, a second head for the tuned classes of any learner (Zhang et al., CVPR 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maotune.contract import AbstractLearner, Batch, Batches, Classify, Output
from maotune.learners.base import hard_labels
from maotune.learners.transfer_head import TransferHead


@dataclass(frozen=True, slots=True)
class DecoupledOutput(Output):
    """Features, fused scores, and the two scores that they were fused from."""

    similarity: Output
    """Output of the inner learner."""
    head: Tensor | None
    """(B, H) scores of the image features by the transfer head; None where it does not know all bound classes."""
    rows: Tensor | None
    """(H,) rows of the head for the candidates."""


@final
class DePT(AbstractLearner):
    """Any learner, with a channel-adjusted transfer (CAT) head for the tuned classes beside it.

    s' = gamma * s + beta for image and text features s, each with its own gamma and beta
    L_CAT = cross-entropy of W s' + b, over the image features and over the text features of their classes
    L = lambda L_CAT + (1 - lambda) L_ITM, with L_ITM the cross-entropy of the inner learner
    p(c|x) = lambda p_CAT(c|x) + (1 - lambda) p_ITM(c|x) on the head's classes; on others p_ITM alone

    As in the released code, the logits of both are fused, the head takes features that are not normalised, and other
    terms of the inner learner's loss stay as they are. Both cross-entropies are the stage's.

    The head knows the classes that the inner learner is bound to when it is wrapped. ``bind`` to any of these, in any
    order, selects its rows. If the head does not know all bound classes, scores and loss are those of the inner learner
    alone: so MAO's stage on new classes tunes the prompts and not the head.

    Official names of the parameters: ``film_lp_img`` is ``head.image``, ``film_lp_text`` is ``head.text`` (``bias`` is
    ``shift``), ``linear_probe_proj`` is ``head.linear``; the inner learner's own names begin with ``inner.``.

    Args:
        inner: any learner; it is held, not copied.
        width: d; None: determined by encoding one class, which is impossible where the text depends on the image.
        weight: lambda, in 0..1.
        head_lr_factor: ratio of the learning rate of the head to that of the prompts.

    Raises:
        ValueError: ``weight`` outside 0..1, or ``width`` missing where it cannot be determined; or the inner learner is
            computed in closed form.
    """

    def __init__(
        self, inner: AbstractLearner, width: int | None = None, *, weight: float = 0.7, head_lr_factor: float = 6.5
    ) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is {weight}: it is the share of the transfer head, from 0 to 1")
        if inner.closed_form:
            raise ValueError(
                f"DePT's head is tuned by gradient together with the learner inside it, and {type(inner).__name__} is "
                "computed in closed form: run it without DePT (--dept), or choose another learner"
            )
        self.inner, self.weight = inner, weight
        for flag in ("tunes_image_tower", "uses_frozen_features", "uses_unprojected_features", "tunes_prompts",
                     "scores_all_classes", "image_depends_on_classes", "text_depends_on_image",
                     "prompts_are_parameters"):  # fmt: skip
            setattr(self, flag, getattr(inner, flag))
        self.varying = tuple(f"inner.{name}" for name in inner.varying)
        self.views, self.logit_scale = inner.views, inner.logit_scale
        self.lr_factors = {"head.": head_lr_factor, **{f"inner.{k}": v for k, v in inner.lr_factors.items()}}
        device = next((p.device for p in inner.parameters()), torch.device("cpu"))
        self.head = TransferHead(width or _width(inner, device), len(inner.classes)).to(device)
        self.row_of = {name: row for row, name in enumerate(inner.classes)}
        self._select_rows()

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the inner learner, and select the head's rows of ``classes``. See ``AbstractLearner.bind``."""
        self.inner.bind(classes)
        self._select_rows()

    def own(self) -> None:
        """See ``AbstractLearner.own``. The head's rows stay those of the classes that were bound at the start."""
        self.inner.own()

    def prepare(self, batches: Batches) -> None:
        """See ``AbstractLearner.prepare``."""
        self.inner.prepare(batches)

    def _select_rows(self) -> None:
        self.classes = self.inner.classes
        known = all(name in self.row_of for name in self.classes)
        self.rows = torch.tensor([self.row_of[name] for name in self.classes]) if known else None

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the inner learner."""
        return self.inner.image_features(batch)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) or (B, H, d) features of the inner learner."""
        return self.inner.text_features(only, image)

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores, fused where the head knows the classes, else of the inner learner."""
        similarity = self.inner.logits(image, text, only)
        return self._fuse(similarity, self._head_scores(image, self._rows(only, image.device)))

    def forward(self, batch: Batch, only: Tensor | None = None) -> DecoupledOutput:
        """Return features, fused scores and both heads' scores of a batch over the classes ``only``."""
        inner: Output = self.inner(batch, only)
        rows = self._rows(only, inner.image.device)
        head = self._head_scores(inner.image, rows)
        return DecoupledOutput(inner.image, inner.text, self._fuse(inner.logits, head), inner, head, rows)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the inner learner's terms, with its cross-entropy times 1 - lambda, and the head's times lambda.

        Raises:
            TypeError: ``output`` is not of this learner's own ``forward``.
            ValueError: the labels are soft.
        """
        if not isinstance(output, DecoupledOutput):
            raise TypeError("DePT's losses need the output of its own forward, which holds the scores of both heads")
        if output.head is None or output.rows is None:
            return self.inner.losses(output.similarity, batch, classify)

        def itm(logits: Tensor, labels: Tensor) -> Tensor:
            return (1 - self.weight) * classify(logits, labels)

        terms = self.inner.losses(output.similarity, batch, itm)
        labels, images = hard_labels(batch, "DePT"), torch.arange(len(batch), device=output.text.device)
        named = output.text[labels] if output.text.ndim == 2 else output.text[images, labels]  # (B, d)
        on_text = self.head.scores(self.head.text(named), output.rows)
        # The mean over 2 B rows, in two halves: correct also for a ``classify`` with one column per image.
        cat = (classify(on_text, labels) + classify(output.head, labels)) / 2
        return {**terms, "transfer_head": self.weight * cat}

    def _rows(self, only: Tensor | None, device: torch.device) -> Tensor | None:
        """Return (H,) the head's rows for the classes ``only``; None where it does not know all bound classes."""
        if self.rows is None:
            return None
        rows = self.rows.to(device)
        return rows if only is None else rows[only]

    def _head_scores(self, image: Tensor, rows: Tensor | None) -> Tensor | None:
        return None if rows is None else self.head.scores(self.head.image(image), rows)

    def _fuse(self, similarity: Tensor, head: Tensor | None) -> Tensor:
        return similarity if head is None else (1 - self.weight) * similarity + self.weight * head


def _width(inner: AbstractLearner, device: torch.device) -> int:
    """Return d, by encoding one class."""
    if inner.text_depends_on_image:
        raise ValueError(
            "the text features of the inner learner depend on the image, so encoding a class alone does not tell "
            "their width: give DePT width=clip.joint_width"
        )
    with torch.no_grad():
        return inner.text_features(torch.zeros(1, dtype=torch.int64, device=device)).shape[-1]
