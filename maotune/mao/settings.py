"""Settings of MAO and of DPC."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict

from maotune.data.draw import PoolMode
from maotune.mao.losses import Loss
from maotune.mao.name_encoder import MINILM
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
    name_encoder: str = MINILM
    """Sentence encoder that finds hard negatives: ``minilm``, the installed all-MiniLM-L6-v2; the folder of a
    sentence-transformers model; or one of the Hugging Face hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``."""
    pool: Literal["few-shot", "train"] = "few-shot"
    """Source of the images of hard negatives: the few labelled ones, or, as released, the whole training split."""
    unlabelled: PoolMode = "balanced"
    """How unlabelled images are drawn; ``balanced`` (the paper's) needs the true labels, the others do not."""
    labeler: Literal["foundation", "tuned", "adjusted", "sinkhorn", "transclip", "stata", "zlap"] = "foundation"
    """What predicts the pseudo-labels: zero-shot CLIP; as released, the prompts of the base stage (``tuned``); or the
    pool as a whole, from zero-shot CLIP (``maotune.mao.labelers``). ``stata``, the default for one's own images (the
    protocol adapt), does not collapse where the pool lacks classes;
    ``sinkhorn`` and ``adjusted`` assume equal shares of all, which in a ``balanced`` pool is label information."""
    template: str | None = None
    """Text of the labeler ``foundation``: ``dataset`` (the data set's own), ``ensemble``, or one with ``{}`` for the
    class name (as released for every data set: ``A photo of a {}.``); default: as ``templates`` of zero-shot CLIP."""
    label_views: Literal["test", "each"] = "test"
    """Label each image once, in its test view, or, as released, each of its augmented views."""
    keep: Literal["all", "top", "growing"] | None = None
    """Images that the new stage learns from: ``all``, as in the paper; ``top``, the ``top_per_class`` most confident
    per pseudo-label (UPL); ``growing``, lists per class that are filled from second and later choices, too, and grow
    over ``rounds`` of the whole stage (GRIP); default: ``top`` where ``top_per_class`` is given, else ``all``."""
    top_per_class: int | None = None
    """Images per class with ``keep: top``; default: 16, as in UPL."""
    rounds: int = 10
    """Rounds of ``keep: growing``: in round i the lists hold i / rounds of the pool, labelled by the prompts of the
    round before; each starts from the prompts of the stage before the first, and has the epochs of the new stage."""
    labels: Literal["hard", "soft", "candidates"] = "hard"
    """What is learned of an image: its likeliest class, as in the paper; the ``soft`` probabilities of all classes; or
    a set of ``candidates``, of which any may be true (CPL; images without candidate are left out)."""
    loss: Loss = "cross-entropy"
    """Loss of the new stage. Wrong labels weigh less in the generalised cross-entropy ``gce`` and in ``mae``."""

    def __post_init__(self) -> None:
        for name in ("b", "k", "top_per_class", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more, or omit it for the default")
        if self.template is not None and self.template not in ("dataset", "ensemble") and "{}" not in self.template:
            raise ValueError(f"template is {self.template!r}: give dataset, ensemble, or a text with {{}} in it")
        if self.top_per_class is not None and self.keep in ("all", "growing"):
            raise ValueError(f"top_per_class goes with keep: top, and keep is {self.keep}: leave one of them out")
        if self.label_views == "each":
            if self.labeler not in ("foundation", "tuned"):
                raise ValueError(
                    f"labeler {self.labeler} labels each image once: set label_views to test, or labeler to foundation"
                )
            if self.needs_probabilities:
                raise ValueError(
                    "growing lists, and labels soft or candidates, label each image once: set label_views to test"
                )
        if not self.name_encoder.strip():
            raise ValueError(f"name_encoder is empty: give {MINILM}, a folder, or OWNER/NAME on the Hugging Face hub")
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}: give a learning rate above 0 (the paper's is 0.0035)")

    @property
    def keep_in_use(self) -> Literal["all", "top", "growing"]:
        """The images to keep."""
        return self.keep or ("all" if self.top_per_class is None else "top")

    @property
    def list_length(self) -> int:
        """Images per class with ``keep: top``."""
        return self.top_per_class or 16

    @property
    def needs_probabilities(self) -> bool:
        """Whether the labels need the probabilities of all classes."""
        return self.labels != "hard" or self.keep_in_use == "growing"

    def b_and_k(self, classes: int) -> tuple[int, int]:
        """Return queries per batch and classes per query for a number of base classes."""
        b, k = default_b_k(classes)
        return self.b or b, self.k or k


@dataclass(frozen=True, slots=True)
class DpcSettings:
    """Settings of DPC. The defaults are the paper's; the released code has another reading of the weight."""

    __pydantic_config__: ClassVar[ConfigDict] = MaoSettings.__pydantic_config__

    weight: float = 0.2
    """w, the share of the parallel prompts in those that predict base classes."""
    new_weight: float = 0.0
    """The same for other classes."""
    reading: Literal["paper", "released"] = "paper"
    """``paper``: base classes are predicted by (1 - w) plain + w parallel. ``released``: by the parallel prompts alone;
    w only divides the learning rate, and a query with fewer than two hard negatives has random classes beside it."""
    lr: float | None = None
    """Learning rate of the stage ``parallel``; default: that of the learner."""
    epochs: int | None = None
    """Epochs of that stage; default: as many as the learner's."""
    b: int | None = None
    """Query images per batch of that stage; default: 4, fewer for few classes, as MAO has it."""
    k: int | None = None
    """K, likeliest classes of a query of which images are drawn; default: 8, fewer for few classes."""

    def __post_init__(self) -> None:
        for name in ("b", "k", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more, or omit it for the default")
        if not (0 < self.weight <= 1 and 0 <= self.new_weight <= 1):
            raise ValueError(
                f"weight is {self.weight} and new_weight {self.new_weight}, the shares of the parallel prompts: give a "
                "weight above 0 and up to 1 (the paper's is 0.2), and a new_weight from 0 to 1 (the paper's is 0)"
            )
        if self.lr is not None and self.lr <= 0:
            raise ValueError(f"lr is {self.lr}: give a learning rate above 0, or omit it for the learner's")

    def b_and_k(self, classes: int) -> tuple[int, int]:
        """Return queries per batch and likeliest classes per query for a number of base classes."""
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
