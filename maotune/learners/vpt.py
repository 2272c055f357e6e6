"""VPT: learned tokens after the patches of the image (Jia et al., Visual Prompt Tuning, ECCV 2022), in CLIP.

In CLIP the classifier is the frozen text, as in MaPLe's comparison (Khattak et al., CVPR 2023).
"""

from collections.abc import Sequence
from typing import final

from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.deep import VisualPrompts


@final
class VPT(AbstractLearner):
    """Learned tokens P_j at the input of each of the first image layers j; the text is fixed.

    VPT-shallow (``depth=1``), its Eqs. 4 and 5:
        [CLS, Z_1, E_1] = layer 1 of [CLS, P, E_0],   [CLS, Z_j, E_j] = layer j of [CLS, Z_{j-1}, E_{j-1}]
    VPT-deep (``depth`` layers), its Eq. 7:
        [CLS, _, E_j] = layer j of [CLS, P_j, E_{j-1}]
    p(y|x) = softmax over the classes of cos(f(x), g(y)) / tau, tuned by the cross-entropy

    The tokens come after the patches and start as normal with standard deviation 0.02, as in MaPLe's code; their order
    makes no difference, because they have no position. Official names of the parameters: ``visual.prompts.0`` is
    ``image_encoder.VPT``, ``visual.prompts.J`` is ``image_encoder.transformer.resblocks.J.VPT_shallow``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        visual_length: tokens after the patches.
        depth: image layers with tokens of their own; 1: VPT-shallow.
        template: the text, with ``{}`` for the class name.
    """

    tunes_image_tower = True
    uses_frozen_features = False
    prompts_are_parameters = True

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        visual_length: int = 8,
        depth: int = 12,
        template: str = "a photo of a {}.",
    ) -> None:
        super().__init__()
        self.clip = clip
        self.logit_scale = clip.logit_scale
        self.template = template
        self.visual = VisualPrompts(clip, visual_length, depth)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Compute the text features of ``classes``. See ``AbstractLearner.bind``."""
        self.text = self.clip.zeroshot_text(classes, (self.template,), normalise=False)
        self.classes = tuple(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the images, with the visual prompts."""
        return self.visual.encode(batch)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) frozen text features, computed when the classes were bound."""
        return self.text if only is None else self.text[only]

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}
