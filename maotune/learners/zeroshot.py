"""Zero-shot CLIP: hand-written prompts, nothing to tune (Radford et al., ICML 2021). The baseline in every table."""

from collections.abc import Sequence
from typing import final

from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.learners.base import TextPromptLearner


@final
class ZeroShot(TextPromptLearner):
    """Frozen text features of ``a photo of a CLASS.``, or normalised ones averaged over several templates.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        templates: texts with ``{}`` for the class name.
    """

    def __init__(
        self, clip: FrozenCLIP, classes: Sequence[str], *, templates: tuple[str, ...] = ("a photo of a {}.",)
    ) -> None:
        super().__init__(clip)
        self.templates = templates
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Compute the text features of ``classes``."""
        self.text = self.clip.zeroshot_text(classes, self.templates)
        self.classes = tuple(classes)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) text features, computed when the classes were bound."""
        return self.text if only is None else self.text[only]
