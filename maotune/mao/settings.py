"""Settings of MAO."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict

from maotune.data.draw import PoolMode
from maotune.mao.neighbours import Underscores
from maotune.mao.sampler import Fill


def _fill_of_older_versions(value: Any) -> Any:
    """Read ``true`` and ``false`` in the files of older versions."""
    return ("distinct" if value else "short") if isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class MaoSettings:
    """Settings of MAO. The defaults are the paper's; where the released code differs, its choice is an option."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    lr: float = 0.0035
    """Learning rate of both stages."""
    b: int | None = None
    """Query images per batch of the base stage; default: 4, fewer for few classes (Appendix B)."""
    k: int | None = None
    """K, classes per query, its own included; default: 8, fewer for few classes."""
    fill: Annotated[Fill, BeforeValidator(_fill_of_older_versions)] = "repeat"
    """Batches where hard-negative lists overlap: ``repeat`` has several images of such a class, b K in all (Eq. 5);
    ``distinct`` has one of each and the next nearest classes, b K in all; ``short``, as released, one and no more."""
    candidates: Literal["unique", "per-image"] = "unique"
    """Candidates of the base stage: the distinct classes of the batch; or, as released, one per image."""
    underscores: Underscores = "both"
    """Read ``_`` in names as a space to find hard negatives: on ``both`` sides, or, as released, ``query-only``."""
    pool: Literal["few-shot", "train"] = "few-shot"
    """Source of the images of hard negatives: the few labelled ones, or, as released, the whole training split."""
    unlabelled: PoolMode = "balanced"
    """How unlabelled images are drawn; ``balanced`` (the paper's) needs the true labels, the others do not."""
    labeler: Literal["foundation", "tuned", "adjusted", "sinkhorn", "transclip", "stata", "zlap"] = "foundation"
    """What predicts the pseudo-labels: zero-shot CLIP; as released, the prompts of the base stage (``tuned``); or the
    pool as a whole, from zero-shot CLIP (``maotune.mao.labelers``). ``stata`` is for pools that lack some classes;
    ``sinkhorn`` and ``adjusted`` assume equal shares of all, which in a ``balanced`` pool is label information."""
    template: str | None = None
    """Text of the labeler ``foundation``: ``dataset`` (the data set's own), ``ensemble``, or one with ``{}`` for the
    class name (as released for every data set: ``A photo of a {}.``); default: as ``templates`` of zero-shot CLIP."""
    label_views: Literal["test", "each"] = "test"
    """Label each image once, in its test view, or, as released, each of its augmented views."""
    top_per_class: int | None = None
    """Number of most confident images to keep per pseudo-label; default: all images, as in the paper."""

    def __post_init__(self) -> None:
        for name in ("b", "k", "top_per_class"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more, or omit it for the default")
        if self.template is not None and self.template not in ("dataset", "ensemble") and "{}" not in self.template:
            raise ValueError(f"template is {self.template!r}: give dataset, ensemble, or a text with {{}} in it")
        if self.label_views == "each" and self.labeler not in ("foundation", "tuned"):
            raise ValueError(f"labeler {self.labeler} labels each image once: set label_views to test")
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}: give a learning rate above 0 (the paper's is 0.0035)")

    def b_and_k(self, classes: int) -> tuple[int, int]:
        """Return queries per batch and classes per query for a number of base classes."""
        b, k = default_b_k(classes)
        return self.b or b, self.k or k


def default_b_k(classes: int) -> tuple[int, int]:
    """Return the paper's b, queries per batch, and K, classes per query (Appendix B), for a number of base classes C.

    (4, 8); (2, 8) where 32 candidates would be all classes; (2, 2) for 5 classes, and in general the largest K up to 8
    with b K < C: over all classes the candidate cross-entropy is the plain one.
    """
    if classes > 32:
        return 4, 8
    b = 2 if classes >= 5 else 1
    return b, min(8, max(2, (classes - 1) // b))
