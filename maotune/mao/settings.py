"""The settings of MAO."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from maotune.data.draw import PoolMode
from maotune.mao.neighbours import Underscores


@dataclass(frozen=True, slots=True)
class MaoSettings:
    """What MAO leaves open. The defaults are the paper's; where the released code differs, its way is an option."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    lr: float = 0.0035
    """Learning rate of both stages."""
    b: int | None = None
    """Query images a batch of the base stage; default: 4, fewer where there are few classes (Appendix B)."""
    k: int | None = None
    """K, classes a query, its own included; default: 8, fewer where there are few classes."""
    fill: bool = True
    """Fill batches whose hard-negative lists overlap up to b K classes; off: leave them short, as released."""
    candidates: Literal["unique", "per-image"] = "unique"
    """Candidates of the base stage: the distinct classes of the batch; or, as released, one an image."""
    underscores: Underscores = "both"
    """Read ``_`` in names as a space when looking for hard negatives: ``both`` sides, or as released ``query-only``."""
    pool: Literal["few-shot", "train"] = "few-shot"
    """Where images of hard negatives come from: the few labelled ones, or, as released, the whole training split."""
    unlabelled: PoolMode = "balanced"
    """How unlabelled images are drawn: the paper's ``balanced`` needs the true labels, the others do not."""
    labeler: Literal["foundation", "tuned"] = "foundation"
    """Who gives the pseudo-labels: zero-shot CLIP, or, as released, the prompts of the base stage."""
    template: str | None = None
    """Text of the labeler ``foundation``: ``dataset`` (the data set's own), ``ensemble``, or one with ``{}`` for the
    class name (as released for every data set: ``A photo of a {}.``); default: as ``templates`` of zero-shot CLIP."""
    label_views: Literal["test", "each"] = "test"
    """Label an image once, upright and whole, or, as released, each of its augmented views."""
    top_per_class: int | None = None
    """Keep the most confident images of each pseudo-label only, so many; default: all images, as in the paper."""

    def __post_init__(self) -> None:
        for name in ("b", "k", "top_per_class"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more, or leave it out for the default")
        if self.template is not None and self.template not in ("dataset", "ensemble") and "{}" not in self.template:
            raise ValueError(f"template is {self.template!r}: give dataset, ensemble, or a text with {{}} in it")
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}: give a learning rate above 0 (the paper's is 0.0035)")

    def b_and_k(self, classes: int) -> tuple[int, int]:
        """Query images a batch, and classes a query, over so many base classes."""
        b, k = default_b_k(classes)
        return self.b or b, self.k or k


def default_b_k(classes: int) -> tuple[int, int]:
    """The paper's queries a batch ``b`` and classes a query ``K`` (Appendix B) for so many base classes.

    (4, 8); (2, 8) where 32 candidates would be all classes; (2, 2) for 5 classes, and in general the largest K below 8
    with b K < C: over all classes the candidate cross-entropy is the plain one.
    """
    if classes > 32:
        return 4, 8
    b = 2 if classes >= 5 else 1
    return b, min(8, max(2, (classes - 1) // b))
