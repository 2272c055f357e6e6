"""HiCroPL: prompts of each tower that are mapped from those of the other (Zheng et al., ICCV 2025)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.clip.ensembles import SIXTY
from maotune.contract import Batch, Classify, Output
from maotune.learners.base import frozen_image_features
from maotune.learners.deep import JointPromptLearner, TextPrompts, VisualPrompts
from maotune.learners.descriptions import Descriptions
from maotune.learners.prompt_flow import Mapper, Proxy


@final
class HiCroPL(JointPromptLearner):
    """Deep prompts in both towers; knowledge flows from text to image in the first layers, and back in the others.

    With T_j and V_j the prompts of text and image layer j of D, proxies p(T_j) and p(V_j) of each, and mappers M:
    V_1 .. V_k  <-  M(V_1 .. V_k; p(T_1) .. p(T_k)),    T_k+1 .. T_D  <-  M'(T_k+1 .. T_D; p(V_k+1) .. p(V_D))

    f = u(u(prompted image feature) + u(f_0)),  w_c = u(u(prompted text feature) + g_c)     u: to length 1
    L = cross-entropy of s f.w + lambda (1 - mean cos(w, g)) + lambda (1 - mean cos(f, f_0))

    f_0 is frozen CLIP's, g_c the mean of the features of sentences of a language model about the class c, over all
    bound classes: knowledge from outside, of new classes too, and needed to predict. A class without sentences is
    described by its name in ``templates``.

    In the released code no gradient reaches mappers and proxies: they stay as random as they start, mapped prompts
    are written over the prompts in each forward pass, in evaluation too, and only the prompts are tuned. Here the flow
    is learned. For comparison, ``flow: random`` is the released one without the writing in evaluation, ``flow: none``
    has no flow, and without ``fuse_frozen`` f and w are the prompted features themselves.

    Official names of the parameters, all in ``prompt_learner``: ``text.prompts.0`` is ``ctx``, ``text.prompts.J`` is
    ``cross_prompts_text.J``, ``visual.prompts.J`` is ``cross_prompts_visual.J``; ``to_image`` and ``to_text`` are
    ``text2visual_net`` and ``visual2text_net`` with ``query``, ``key`` and ``value`` for ``linear_q``, ``_k`` and
    ``_v``, ``up`` and ``down`` for ``ffn.c_fc`` and ``c_proj``, ``attention`` for ``attn``, ``norm1`` for ``ln_1``;
    ``text_proxies.J`` and ``image_proxies.J`` are ``attn_pooling_text_nets.J`` and ``..._visual_nets.J``, and their
    ``token`` is ``text_proxy_token.J`` and ``visual_proxy_token.J``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: tokens in each prompted layer of either tower.
        depth: D, layers with tokens of their own in both towers.
        cross_layer: k, the last layer in which knowledge flows from text to image.
        initial_words: initial words of the text tokens of the first layer; None: normal, standard deviation 0.02, as
            all others.
        weight: lambda.
        flow: ``learned``; ``random`` or ``none`` for comparison.
        fuse_frozen: whether frozen features are added to both features.
        descriptions: ``icons-11``, shipped for the shipped sets; a JSON file ``{class: [description, ...]}``; such a
            mapping itself; or None: every class is described by the templates.
        templates: describe classes without sentences, with ``{}`` for the name.
    """

    uses_frozen_features = True
    scores_all_classes = True

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 16,
        depth: int = 12,
        cross_layer: int = 6,
        initial_words: str | None = None,
        weight: float = 12.0,
        flow: Literal["learned", "random", "none"] = "learned",
        fuse_frozen: bool = True,
        descriptions: str | dict[str, list[str]] | None = None,
        templates: tuple[str, ...] = SIXTY,
    ) -> None:
        super().__init__()
        self.text = TextPrompts(clip, context_length, depth, initial_words)
        self.visual = VisualPrompts(clip, context_length, depth)
        if not 1 <= cross_layer < depth:
            raise ValueError(f"cross_layer is {cross_layer} and depth {depth}: choose 1 to {depth - 1}, or more depth")
        self.clip, self.logit_scale = clip, clip.logit_scale
        self.cross_layer, self.weight, self.flow, self.fuse_frozen = cross_layer, weight, flow, fuse_frozen
        if flow != "none":
            self.to_image = Mapper(clip.vision_width, clip.text_width)
            self.to_text = Mapper(clip.text_width, clip.vision_width)
            self.text_proxies = nn.ModuleList(Proxy(clip.text_width) for _ in range(cross_layer))
            self.image_proxies = nn.ModuleList(Proxy(clip.vision_width) for _ in range(cross_layer, depth))
            for part in (self.to_image, self.to_text, self.text_proxies, self.image_proxies):
                part.requires_grad_(flow == "learned")
        self.descriptions = Descriptions(clip, {} if descriptions is None else descriptions, templates)
        self.described: Tensor | None = None
        """(C, d) g, of length 1; computed when it is needed."""
        self.to(clip.device)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes``. See ``AbstractLearner.bind``."""
        self.descriptions.check(classes)
        self.classes = self.text.bind(classes)
        self.described = None

    def prompts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts (L, W) of the text layers, and (L, V) of the image layers, after the flow."""
        if self.flow == "none" or (self.flow == "random" and self.training):
            return list(self.text.prompts), list(self.visual.prompts)
        return self._mapped()

    def forward(self, batch: Batch, only: Tensor | None = None) -> Output:
        """Return features and scores. See ``AbstractLearner.forward``."""
        if self.flow == "random" and self.training:
            with torch.no_grad():
                for own, mapped in zip((self.text.prompts, self.visual.prompts), self._mapped(), strict=True):
                    for parameter, value in zip(own, mapped, strict=True):
                        parameter.copy_(value)
        return super().forward(batch, only)

    def encode_texts(self, prompts: Sequence[Tensor], only: Tensor | None) -> Tensor:
        """Return (H, d) features of the texts, with those of the sentences added."""
        described = self._describe()
        return self._fuse(self.text.encode(only, prompts), described if only is None else described[only])

    def encode_images(self, prompts: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return (B, d) features of the images, with those of the frozen tower added."""
        return self._fuse(self.visual.encode(batch, prompts), frozen_image_features(self.clip, batch))

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, and the weighted distances of both features from the frozen ones."""
        text = F.cosine_similarity(output.text, self._describe(), dim=1)
        image = F.cosine_similarity(output.image, frozen_image_features(self.clip, batch), dim=1)
        return {
            **super().losses(output, batch, classify),
            "text": self.weight * (1 - text.mean()),
            "image": self.weight * (1 - image.mean()),
        }

    def _mapped(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts of both towers, with V_1..k and T_k+1..D mapped."""
        length, k = len(self.text.prompts[0]), self.cross_layer
        texts, images = list(self.text.prompts), list(self.visual.prompts)
        of_texts = torch.cat([proxy(prompts) for proxy, prompts in zip(self.text_proxies, texts[:k], strict=True)])
        of_images = torch.cat([proxy(prompts) for proxy, prompts in zip(self.image_proxies, images[k:], strict=True)])
        early = self.to_image(torch.cat(images[:k]), of_texts).split(length)
        late = self.to_text(torch.cat(texts[k:]), of_images).split(length)
        return [*texts[:k], *late], [*early, *images[k:]]

    def _fuse(self, prompted: Tensor, frozen: Tensor) -> Tensor:
        if not self.fuse_frozen:
            return prompted
        return F.normalize(F.normalize(prompted, dim=-1) + F.normalize(frozen, dim=-1), dim=-1)

    def _describe(self) -> Tensor:
        if self.described is None:
            self.described = F.normalize(self.descriptions.features(self.classes), dim=-1)
        return self.described
