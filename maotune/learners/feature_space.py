"""Parts that learners in feature space share: they touch no tower, and need no image once its features are kept."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.base import frozen_image_features


class FeatureLearner(AbstractLearner):
    """A learner on the frozen CLIP's features of images and of class texts; its loss is the cross-entropy.

    Parameters of single classes (rows of a tensor whose name is in ``rows_of_classes``) belong to ``owners``, the
    classes of the last stage. Other classes have the rows that a class starts with (``initial_rows``).
    """

    tunes_prompts = False
    rows_of_classes: tuple[str, ...] = ()
    """Names of parameters (C, ...) that have a row for each of ``owners``."""
    normalises_text = True
    """Whether class texts have length 1, or the length that the text tower gives them."""

    text: Tensor
    """(C, d) features of the class texts."""

    def __init__(self, clip: FrozenCLIP, template: str) -> None:
        super().__init__()
        self.clip, self.template = clip, template
        self.logit_scale = clip.logit_scale
        self.owners: tuple[str, ...] = ()
        self.index: Tensor | None = None
        """(C,) place of each bound class among ``owners``, -1 where it is none; None where they are the same."""
        self.register_buffer("text", torch.empty(0, clip.joint_width, device=clip.device), persistent=False)

    def bind(self, classes: Sequence[str]) -> None:
        """Encode the texts of ``classes``. See ``AbstractLearner.bind``."""
        text = self.clip.zeroshot_text(classes, [self.template], normalise=False)
        self.text = F.normalize(text, dim=-1) if self.normalises_text else text
        self.classes = tuple(classes)
        self._find_owners()

    def own(self) -> None:
        """Give the bound classes rows of their own. See ``AbstractLearner.own``."""
        if self.index is None:
            return
        for name in self.rows_of_classes:
            tuned = getattr(self, name).requires_grad
            setattr(self, name, nn.Parameter(self.rows(name).detach().clone(), requires_grad=tuned))
        self.owners = self.classes
        self._find_owners()

    def rows(self, name: str, only: Tensor | None = None) -> Tensor:
        """Return (H, ...) rows of the parameter ``name`` for the classes ``only`` (None: all)."""
        own: Tensor = getattr(self, name)
        if self.index is None:
            return own if only is None else own[only]
        initial = self.initial_rows(name)
        index, initial = (self.index, initial) if only is None else (self.index[only], initial[only])
        known = index >= 0
        if not known.any():
            return initial
        return torch.where(known.view(-1, *[1] * (own.ndim - 1)), own[index.clamp(min=0)], initial)

    def initial_rows(self, name: str) -> Tensor:
        """Return (C, ...) rows of ``name`` that the bound classes start with: here zeros."""
        own: Tensor = getattr(self, name)
        return own.new_zeros(len(self.classes), *own.shape[1:])

    @property
    def all_owned(self) -> bool:
        """Whether all bound classes have rows of their own."""
        return self.index is None or bool((self.index >= 0).all())

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the frozen image tower."""
        return frozen_image_features(self.clip, batch)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the texts of the classes ``only``."""
        return self.text if only is None else self.text[only]

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}

    def _find_owners(self) -> None:
        if self.classes == self.owners:
            self.index = None
        else:
            place = {name: position for position, name in enumerate(self.owners)}
            self.index = torch.tensor([place.get(name, -1) for name in self.classes], device=self.clip.device)


def class_sums(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return (C, d) sums of the features (N, d) of each class, and (C,) how many they are.

    Labels are (N,) int64 or (N, C) probabilities, by which the features are weighted.
    """
    if labels.is_floating_point():
        weights = labels.to(features.dtype)
        return weights.T @ features, weights.sum(0)
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, features)
    return sums, labels.bincount(minlength=classes).to(features.dtype)


def folds_of_shots(labels: Tensor, most: int = 16) -> Tensor:
    """Return the fold (N,) of each image, for leave-one-out over the shots: fold k holds the k-th image of each class.

    With more than ``most`` images of a class there are ``most`` folds. Of soft labels (N, C), the likeliest counts.
    """
    classes = labels.argmax(dim=1) if labels.is_floating_point() else labels
    order = classes.argsort(stable=True)
    sizes = classes.bincount()
    rank = torch.arange(len(classes), device=classes.device) - (sizes.cumsum(0) - sizes)[classes[order]]
    return torch.empty_like(rank).index_copy_(0, order, rank) % most
