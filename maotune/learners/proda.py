"""ProDA: a distribution of prompts (Lu et al., Prompt Distribution Learning, CVPR 2022)."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Classify, Output
from maotune.learners.base import TextPromptLearner, hard_labels, initial_context, insert


@dataclass(frozen=True, slots=True)
class Distribution(Output):
    """An output with the text features of each prompt; ``text`` is their mean."""

    prompts: Tensor
    """(P, H, d) normalised text features of P prompts."""


@final
class ProDA(TextPromptLearner):
    """K contexts, whose text features of the classes are samples of a Gaussian, w ~ N(mu, Sigma).

    With w_c^k of length 1 for context k and class c, and z = f(x) of length 1 (its sections 3.2 to 3.4):

    mu_c = 1/K sum over k of w_c^k
    L_upper = -log( exp(<z, mu_y>/tau) / sum over c of exp(<z, mu_c>/tau + <z, A_cy z>/(2 tau^2)) ): an upper bound of
              the expected cross-entropy under the Gaussian, in which the variance acts as a margin
    A_cy = Sigma_cc + Sigma_yy - Sigma_cy - Sigma_yc, where each d x d block is reduced to its diagonal
    L_so = mean over k != k' of |<g(v_k), g(v_k')>|, v_k being the context alone, without a class
    L = L_upper + weight * L_so
    p(y|x) = softmax over the classes of <z, mu_c>/tau at test: mu_c is not normalised

    The class name is before the context in a quarter of the K prompts (the first rows of ``contexts``), amid it in the
    next quarter, after it in the rest. The authors' repository holds no code; where the paper leaves a choice, this
    follows the code that other repositories share: each update uses the next ``prompts_per_update`` of a random
    permutation of the contexts, and a new permutation begins when all had their turn; L_so runs over all K, and Sigma
    divides by the number of prompts plus 1.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        prompts: K, contexts.
        context_length: tokens of each.
        prompts_per_update: contexts used in an update. If it does not divide K, the last few of each permutation are
            skipped. Outside training, all K are used.
        weight: of L_so.
    """

    prompts_are_parameters = True

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        prompts: int = 32,
        context_length: int = 16,
        prompts_per_update: int = 4,
        weight: float = 0.1,
    ) -> None:
        super().__init__(clip)
        if not 1 <= prompts_per_update <= prompts:
            raise ValueError(
                f"prompts_per_update is {prompts_per_update}: with {prompts} prompts, choose 1 to {prompts}"
            )
        self.contexts = nn.Parameter(initial_context(clip, context_length, None, (prompts,)))  # (K, L, W)
        quarter = prompts // 4
        self.before = [0] * quarter + [context_length // 2] * quarter + [context_length] * (prompts - 2 * quarter)
        self.prompts_per_update = prompts_per_update
        self.weight = weight
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the contexts to ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.names.bind(classes, self.contexts.shape[1])

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) mean features of all prompts of the classes ``only``."""
        return self._encode(range(len(self.contexts)), only).mean(dim=0)

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores of image features (B, d) against mean text features (H, d), which are not normalised."""
        return self.logit_scale * F.normalize(image, dim=-1) @ text.T

    def forward(self, batch: Batch, only: Tensor | None = None) -> Distribution:
        """Return features and scores, in training of a few of the prompts. See ``AbstractLearner.forward``."""
        image = self.image_features(batch)
        prompts = self._encode(self._turn(batch.position) if self.training else range(len(self.contexts)), only)
        text = prompts.mean(dim=0)
        return Distribution(image, text, self.logits(image, text, only), prompts)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy with the variance as a margin, and the similarity of the contexts.

        Raises:
            TypeError: ``output`` is not of this learner's own ``forward``.
            ValueError: the labels are soft.
        """
        if not isinstance(output, Distribution):
            raise TypeError("ProDA's losses need the output of its own forward, which holds the prompts")
        margin = 0.5 * self.logit_scale**2 * variance(output.image, output.prompts, hard_labels(batch, "ProDA"))
        return {
            "cross_entropy": classify(output.logits + margin, batch.labels),
            "orthogonality": self.weight * self._similarity(),
        }

    def _turn(self, position: int) -> list[int]:
        """Return the prompts whose turn it is: a function of position and torch's seed, so that runs can be resumed."""
        count, size = len(self.contexts), self.prompts_per_update
        walk, step = divmod(position, count // size)
        seed = zlib.crc32(f"{torch.initial_seed()} {walk}".encode())
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return sorted(order[step * size :][:size].tolist())

    def _encode(self, chosen: Sequence[int], only: Tensor | None) -> Tensor:
        """Return (P, H, d) normalised features of the prompts ``chosen`` of the classes ``only``."""
        name, eot = self.names.select(only)
        start, lengths = self.names.start(), self.names.lengths(only)
        features = []
        for index in chosen:
            before, after = self.contexts[index].tensor_split([self.before[index]])
            suffix, end = insert(name, eot, after, lengths) if len(after) else (name, eot)
            features.append(self.clip.encode_text(torch.cat([start, before])[None], suffix, end))
        return F.normalize(torch.stack(features), dim=-1)

    def _similarity(self) -> Tensor:
        """Return L_so, over all contexts."""
        count = len(self.contexts)
        if count == 1:
            return self.contexts.new_zeros(())
        prefix = torch.cat([self.names.start().expand(count, 1, -1), self.contexts], dim=1)
        period = self.clip.tokenize(["."])
        suffix = self.clip.embed(period.ids[:, 1:])  # . [EOT]
        alone = F.normalize(self.clip.encode_text(prefix, suffix, period.eot - 1), dim=-1)  # (K, d)
        similarity = (alone @ alone.T).abs()
        return (similarity.sum() - similarity.diagonal().sum()) / (count * (count - 1))


def variance(image: Tensor, prompts: Tensor, labels: Tensor) -> Tensor:
    """Return (B, H) <z, A_cy z> of image features z (B, d), for prompts (P, H, d) of classes c and labels y (B,).

    It is the sum over dimensions of z^2 var(w_c - w_y), computed without a d x H x H table of covariances.
    """
    square = F.normalize(image, dim=-1).square()  # (B, d)
    centred = prompts - prompts.mean(dim=0)
    own = square @ centred.square().sum(dim=0).T  # (B, H)
    weighted = square[:, None] * centred[:, labels].transpose(0, 1)  # (B, P, d)
    between = weighted.flatten(1) @ centred.transpose(0, 1).flatten(1).T  # (B, H)
    return (own + own.gather(1, labels[:, None]) - 2 * between) / (len(prompts) + 1)
