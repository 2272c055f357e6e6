"""MaPLe: deep prompts in both towers, the visual ones projected from the textual ones (Khattak et al., CVPR 2023)."""

from collections.abc import Sequence
from typing import final

from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.deep import Couplings, TextPrompts


@final
class MaPLe(AbstractLearner):
    """Learned tokens P_j before the class name and projections F_j(P_j) after the patches, in the first layers j.

    [SOS, _, W_j] = text layer j of [SOS, P_j, W_{j-1}]           j = 1 .. J   (its section 3.2.1)
    [CLS, E_j, _] = image layer j of [CLS, E_{j-1}, F_j(P_j)]     j = 1 .. J   (its section 3.2.2)
    F_j(P) = P A_j + b_j, from the text to the image tower's width            (its section 3.2.3)
    p(y|x) = softmax over the classes of cos(f(x), g(y)) / tau, tuned by the cross-entropy

    Official names of the parameters: ``text.prompts.0`` is ``prompt_learner.ctx``, ``text.prompts.J`` is
    ``prompt_learner.compound_prompts_text.(J-1)``, ``couplings.0`` is ``prompt_learner.proj`` and ``couplings.J`` is
    ``prompt_learner.compound_prompt_projections.(J-1)``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: tokens in each prompted layer of either tower.
        depth: J, layers with tokens of their own in both towers; 1: at the input only.
        initial_words: initial words of the tokens of the first layer; None: normal, standard deviation 0.02, as all
            others. Words beyond ``context_length`` tokens stay in the text, frozen: "a photo" is tuned, "of a" is not.
    """

    tunes_image_tower = True
    uses_frozen_features = False

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 2,
        depth: int = 9,
        initial_words: str | None = "a photo of a",
    ) -> None:
        super().__init__()
        self.clip = clip
        self.logit_scale = clip.logit_scale
        self.text = TextPrompts(clip, context_length, depth, initial_words)
        self.couplings = Couplings(clip, depth)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.text.bind(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the images, with visual prompts projected from the textual ones."""
        return self.couplings.encode(batch, self.text)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        return self.text.encode(only)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}
