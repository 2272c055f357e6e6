"""IVLP: independent deep prompts in both towers (Khattak et al., MaPLe, CVPR 2023, and PromptSRC, ICCV 2023).

A baseline of both papers: MaPLe without its coupling, PromptSRC without its three regularising terms.
"""

from collections.abc import Sequence
from typing import final

from maotune.clip import FrozenCLIP
from maotune.learners.deep import DeepPromptLearner, TextPrompts, VisualPrompts


@final
class IVLP(DeepPromptLearner):
    """Learned tokens P_j before the class name and Q_j after the patches, in the first layers j of the towers.

    [SOS, _, W_j] = text layer j of [SOS, P_j, W_{j-1}]           j = 1 .. ``text_depth``
    [CLS, E_j, _] = image layer j of [CLS, E_{j-1}, Q_j]          j = 1 .. ``visual_depth``
    p(y|x) = softmax over the classes of cos(f(x), g(y)) / tau, tuned by the cross-entropy

    (MaPLe's section 3.2.1 and 3.2.2 without the coupling of 3.2.3; PromptSRC's section 3.1.) Official names of the
    parameters: ``text.prompts.0`` is ``prompt_learner.ctx``, ``text.prompts.J`` is
    ``text_encoder.transformer.resblocks.J.VPT_shallow``, ``visual.prompts.0`` is ``image_encoder.VPT`` and
    ``visual.prompts.J`` is ``image_encoder.transformer.resblocks.J.VPT_shallow``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: tokens before the class name.
        text_depth: text layers with tokens of their own; 1: at the input only.
        initial_words: initial words of the tokens of the first layer; None: normal, standard deviation 0.02, as all
            others. Words beyond ``context_length`` tokens stay in the text, frozen.
        visual_length: tokens after the patches.
        visual_depth: image layers with tokens of their own.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 4,
        text_depth: int = 9,
        initial_words: str | None = "a photo of a",
        visual_length: int = 4,
        visual_depth: int = 9,
    ) -> None:
        text = TextPrompts(clip, context_length, text_depth, initial_words, setting="text_depth")
        visual = VisualPrompts(clip, visual_length, visual_depth, setting="visual_depth")
        super().__init__(clip, text, visual)
        self.bind(classes)
