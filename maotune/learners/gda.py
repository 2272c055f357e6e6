"""GDA: a Gaussian classifier in closed form beside zero-shot CLIP (Wang et al., A Hard-to-Beat Baseline, ICLR 2024)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batches
from maotune.learners.feature_space import FeatureLearner, class_sums, folds_of_shots
from maotune.learners.gaussians import Covariance, Neighbours, fit_gaussians

ALPHAS = tuple(10.0**power for power in range(-4, 3))
"""The authors' choices of alpha."""
MANY = 20_000
"""With more views than this, alpha is chosen by 4 folds instead of one for each shot."""


@final
class GDA(FeatureLearner):
    """Gaussian discriminant analysis of the image features x, of length 1, added to the zero-shot scores.

    logits_c = s x.t_c + alpha (w_c.x + b_c), w_c = P mu_c, b_c = -log C - 1/2 mu_c' P mu_c     (its Eq. 6 and 8)
    P = d [ (n - 1) S + tr(S) I ]^-1, S the covariance of x - mu_y over all n views of the images     (its Eq. 7)

    A class without images has the mean of its ``neighbours`` views u nearest to its text v and ``text_copies`` copies
    of v. P among such classes alone is the mean of d [ sum (u - v)(u - v)' + tr I ]^-1; beside classes with images, it
    is theirs. With ``new_classes="zero-shot"``, lists with such a class are scored by zero-shot CLIP, and no views are
    saved.

    The authors choose alpha on the whole validation split (on ImageNet: on the test images). Here it is chosen by
    leave-one-out over the shots: the accuracy on the k-th image of each class with the Gaussians of the others, first
    of the best; where no class has two images, the smallest, which is all but zero-shot.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of t_c, ``{}`` for the name.
        alpha: None: chosen from 0.0001, 0.001, ... 100.
        covariance: ``shared``: S above; ``per-class``: P = inverse of the mean of the classes' own covariances, as in
            the authors' base-to-new code, for many images a class.
        new_classes: rule for classes without images.
        neighbours: views nearest to a text, at most.
        text_copies: weight of the text beside them.
    """

    closed_form = True
    rows_of_classes = ("weight", "bias")
    precision: Tensor
    """(d, d) P."""
    kept_views: Tensor
    """(n, d) the views of the images."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        alpha: float | None = None,
        covariance: Covariance = "shared",
        new_classes: Literal["nearest", "zero-shot"] = "nearest",
        neighbours: int = 64,
        text_copies: int = 16,
    ) -> None:
        super().__init__(clip, template)
        self.chosen_alpha, self.covariance = alpha, covariance
        self.neighbours = Neighbours(neighbours, text_copies)
        width, device = clip.joint_width, clip.device
        self.weight = nn.Parameter(torch.zeros(0, width, device=device), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(0, device=device), requires_grad=False)
        self.alpha = nn.Parameter(torch.tensor(1.0 if alpha is None else alpha, device=device), requires_grad=False)
        self.varying = ("kept_views", "precision") if new_classes == "nearest" else ()
        for name in ("kept_views", "precision"):
            self.register_buffer(name, torch.zeros(0, width, device=device), persistent=bool(self.varying))
        self._classifier: tuple[Tensor, Tensor] | None = None
        self.bind(classes)
        self.own()

    def prepare(self, batches: Batches) -> None:
        """Compute the Gaussians of the bound classes, and choose alpha."""
        support = batches.support()
        features, labels = (tensor.to(self.weight.device) for tensor in support.rows())
        views = F.normalize(features, dim=-1)
        if self.chosen_alpha is None:
            self.alpha.fill_(self._best_alpha(views, labels, support.features.shape[1]))
        found = fit_gaussians(views, labels, self.text, self.covariance, self.neighbours)
        self.weight.copy_(found.weight)
        self.bias.copy_(found.bias)
        self._classifier = None
        if self.varying:
            self.kept_views, self.precision = views, found.precision

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) zero-shot scores, with those of the Gaussians where all bound classes have some."""
        scores = super().logits(image, text, only)
        if not self.all_owned and not len(self.kept_views):
            return scores
        if self._classifier is None:
            self._classifier = self._of_bound_classes()
        weight, bias = self._classifier if only is None else (part[only] for part in self._classifier)
        return scores + self.alpha * (F.normalize(image, dim=-1) @ weight.T + bias)

    def _find_owners(self) -> None:
        super()._find_owners()
        self._classifier = None

    def _of_bound_classes(self) -> tuple[Tensor, Tensor]:
        """Return (C, d) weights and (C,) biases, by the method's rule for classes without images."""
        weight, bias = self.rows("weight"), self.rows("bias")
        if self.index is None or self.all_owned:
            return weight, bias
        unknown = self.index < 0
        precision = None if unknown.all() else self.precision
        new = self.neighbours.gaussians(self.text[unknown], self.kept_views, precision)
        weight, bias = weight.clone(), bias.clone()
        weight[unknown], bias[unknown] = new.weight, new.bias
        return weight, bias

    def _best_alpha(self, views: Tensor, labels: Tensor, per_image: int) -> float:
        """Return the alpha that classifies held-out images best, when each class leaves out one."""
        images, truth = views[::per_image], labels[::per_image]
        if class_sums(images, truth, len(self.classes))[1].max() < 2:
            return ALPHAS[0]
        folds = folds_of_shots(truth, 16 if len(views) <= MANY else 4)
        alphas, correct = self.alpha.new_tensor(ALPHAS), self.alpha.new_zeros(len(ALPHAS))
        for fold in range(int(folds.max()) + 1):
            held = folds == fold
            kept = ~held.repeat_interleave(per_image)
            weight, bias, _ = fit_gaussians(views[kept], labels[kept], self.text, self.covariance, self.neighbours)
            zeroshot, term = super().logits(images[held], self.text), images[held] @ weight.T + bias
            likeliest = truth[held].argmax(1) if truth.is_floating_point() else truth[held]
            correct += torch.stack([(zeroshot + alpha * term).argmax(1) == likeliest for alpha in alphas]).sum(1)
        return ALPHAS[int(correct.argmax())]
