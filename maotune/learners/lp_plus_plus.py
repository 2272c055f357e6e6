"""LP++: a linear probe beside text features weighed by class, with rates from the data (Huang et al., CVPR 2024)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batches
from maotune.learners.feature_space import FeatureLearner, class_sums

MOMENTUM = 0.9
PERIOD = 10
"""Steps between two of alpha."""
START = 250.0
"""alpha at the start, relative to the mean cosine of the images with their own texts."""


@final
class LPPlusPlus(FeatureLearner):
    """A linear probe on the image features x, of length 1, and the cosine with the text t_c, weighed by class.

    logits_c = w_c.x + b_c + alpha_c x.t_c, without a temperature     (its Eq. 3)
    L = cross-entropy over all N images at once, by gradient descent with momentum 0.9 and rates from bounds:
    rate of w = 4 N / largest eigenvalue of X'X; rate of alpha = N / (4 max_c sum_i (x_i.t_c)^2)     (its section 3)
    w_c starts at the sum of the images of c, alpha_c at 250 mean_c mean_{i in c} x_i.t_c

    alpha is updated at every tenth step. In the released code its gradient is never reset, so it is the sum over all
    steps so far; published figures have this, so it is the default (``reset_gradient=False``).

    The steps over all images are the whole of a stage: it has no epochs. The first view of each image is used, as by
    the authors. They keep the step that is best on few-shot validation images; here the last one counts. Where a bound
    class was not tuned, all are scored by zero-shot CLIP.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of t_c, ``{}`` for the name.
        steps: of gradient descent.
        reset_gradient: whether the gradient of alpha is set to zero after each of its updates.
    """

    closed_form = True
    rows_of_classes = ("weight", "bias", "alpha")
    weight: nn.Parameter
    bias: nn.Parameter
    alpha: nn.Parameter

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        steps: int = 300,
        reset_gradient: bool = False,
    ) -> None:
        super().__init__(clip, template)
        self.steps, self.reset_gradient = steps, reset_gradient
        for name, shape in (("weight", (0, clip.joint_width)), ("bias", (0,)), ("alpha", (0,))):
            setattr(self, name, nn.Parameter(torch.zeros(shape, device=clip.device), requires_grad=False))
        self.bind(classes)
        self.own()

    def initial_rows(self, name: str) -> Tensor:
        """Return zeros; for alpha the logit scale: before ``prepare``, the scores are those of zero-shot CLIP."""
        rows = super().initial_rows(name)
        return rows + self.logit_scale if name == "alpha" else rows

    @torch.no_grad()
    def prepare(self, batches: Batches) -> None:
        """Descend, from the sum of the images of each class and the bias that is there."""
        support = batches.support()
        x = F.normalize(support.features[:, 0].to(self.text.device), dim=-1)
        labels = support.labels.to(x.device)
        if labels.ndim == 2 and not labels.is_floating_point():
            labels = labels[:, 0]
        sums, counts = class_sums(x, labels, len(self.classes))
        cosines = x @ self.text.T  # (N, C)
        rate = 4 * len(x) / float(torch.linalg.eigvalsh(x.T @ x)[-1])
        rate_alpha = len(x) / (4 * float(cosines.square().sum(0).max()))
        own_cosines = (sums * self.text).sum(1) / counts.clamp(min=1e-12)
        weight, bias = sums.clone(), self.bias.clone()
        alpha = torch.full_like(bias, START * float(own_cosines[counts > 0].mean()))
        truth = labels if labels.is_floating_point() else F.one_hot(labels, len(self.classes)).to(x.dtype)
        speed_w, speed_b, slope = (torch.zeros_like(value) for value in (weight, bias, alpha))
        for step in range(1, self.steps + 1):
            gradient = ((x @ weight.T + bias + alpha * cosines).softmax(dim=1) - truth) / len(x)
            speed_w.mul_(MOMENTUM).add_(gradient.T @ x)
            speed_b.mul_(MOMENTUM).add_(gradient.sum(0))
            slope += (gradient * cosines).sum(0)
            weight -= rate * speed_w
            bias -= rate * speed_b
            if step % PERIOD == 0:
                alpha -= rate_alpha * slope
                if self.reset_gradient:
                    slope.zero_()
        for parameter, value in ((self.weight, weight), (self.bias, bias), (self.alpha, alpha)):
            parameter.copy_(value)

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores; of zero-shot CLIP, where a bound class was not tuned."""
        if not self.all_owned:
            return super().logits(image, text, only)
        weight, bias, alpha = (self.rows(name, only) for name in self.rows_of_classes)
        x = F.normalize(image, dim=-1)
        return x @ weight.T + bias + alpha * (x @ F.normalize(text, dim=-1).T)
