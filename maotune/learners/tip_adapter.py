"""Tip-Adapter: a cache of the images' features beside zero-shot CLIP, as it is or tuned (Zhang et al., ECCV 2022)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batches
from maotune.learners.feature_space import FeatureLearner

BETAS, ALPHAS = 200, 20
"""Steps of the authors' search, from 0.1 to below 13."""
MANY = 1000
"""With more images than this, so many are left out one by one, and every tenth beta is tried."""


@final
class TipAdapter(FeatureLearner):
    """A cache with the feature k_i of each image i and its label y_i.

    logits_c = s x.t_c + alpha sum over i with y_i = c of exp(-beta (1 - x.k_i))     (its Eq. 4 to 6)
    k_i = mean of the features of the image's views, at length 1

    With ``tuned`` (Tip-Adapter-F), the keys k_i are learned from there with the cross-entropy; they are not normalised
    again.

    The authors search alpha and beta on validation images, on ImageNet on the test images, where Tip-Adapter-F also
    keeps the epoch that is best on these. Here alpha and beta are 1 and 1 (the authors' advice for data without a
    search), or, where None, the best of the authors' grid by leave-one-out over the shots: each image is classified by
    the cache of the others, first of the best. The last epoch counts.

    Lists with a class that has no image in the cache are scored by zero-shot CLIP. Soft labels are kept as they are.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of t_c, ``{}`` for the name.
        alpha: weight of the cache; None: chosen.
        beta: sharpness; None: chosen.
        tuned: whether the keys are learned.
    """

    closed_form = True
    varying = ("keys", "values")

    values: Tensor
    """(N,) int64 place of the class of each image among the owners, or (N, C) probabilities."""
    scales: Tensor
    """(2,) alpha and beta."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        alpha: float | None = 1.0,
        beta: float | None = 1.0,
        tuned: bool = False,
    ) -> None:
        super().__init__(clip, template)
        self.given, self.closed_form = (alpha, beta), not tuned
        self.keys = nn.Parameter(torch.zeros(0, clip.joint_width, device=clip.device), requires_grad=tuned)
        self.register_buffer("values", torch.zeros(0, dtype=torch.int64, device=clip.device))
        self.register_buffer("scales", torch.tensor([1.0 if s is None else s for s in self.given], device=clip.device))
        self.bind(classes)
        self.own()

    @torch.no_grad()
    def prepare(self, batches: Batches) -> None:
        """Fill the cache, and choose alpha and beta."""
        support = batches.support()
        self.keys.data = F.normalize(support.features.to(self.text.device).mean(1), dim=-1)
        labels = support.labels.to(self.text.device)
        self.values = labels[:, 0] if labels.ndim == 2 and not labels.is_floating_point() else labels
        if None in self.given:
            self.scales = self._best_scales(F.normalize(support.features[:, 0].to(self.text.device), dim=-1))

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) zero-shot scores, with those of the cache where all bound classes are in it."""
        scores = super().logits(image, text, only)
        if not self.all_owned or not len(self.keys):
            return scores
        alpha, beta = self.scales
        cached: Tensor = alpha * self._sum(torch.exp(-beta * (1 - F.normalize(image, dim=-1) @ self.keys.T)))
        bound = cached if self.index is None else cached[:, self.index]
        return scores + (bound if only is None else bound[:, only])

    def _sum(self, affinities: Tensor) -> Tensor:
        """Return the affinities (B, N) to the images of each of the owners (B, C)."""
        if self.values.is_floating_point():
            return affinities @ self.values
        return affinities.new_zeros(len(affinities), len(self.owners)).index_add(1, self.values, affinities)

    def _best_scales(self, image: Tensor) -> Tensor:
        """Return the alpha and beta that classify the images (N, d), each without its own key, best."""
        chosen = torch.arange(0, len(image), -(-len(image) // MANY), device=image.device)
        truth = self.values.argmax(1)[chosen] if self.values.is_floating_point() else self.values[chosen]
        zeroshot = super().logits(image[chosen], self.text)
        distance = 1 - image[chosen] @ self.keys.T
        distance[torch.arange(len(chosen), device=image.device), chosen] = torch.inf
        grid = [[0.1 + 12.9 * i / steps for i in range(steps)] for steps in (ALPHAS, BETAS)]
        alphas = grid[0] if self.given[0] is None else [self.given[0]]
        betas = grid[1][:: 1 if len(image) <= MANY else 10] if self.given[1] is None else [self.given[1]]
        best, scales = -1, self.scales
        for beta in betas:
            cached = self._sum(torch.exp(-beta * distance))
            for alpha in alphas:
                correct = int(((zeroshot + alpha * cached).argmax(1) == truth).sum())
                if correct > best:
                    best, scales = correct, self.scales.new_tensor([alpha, beta])
        return scales
