"""Every learner, bare and in DePT, on a toy CLIP, and the stages that tune it: what the contract is tried on."""

from collections.abc import Iterator, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output, Stage, Support
from maotune.learners import LEARNERS
from maotune.learners.base import frozen_image_features
from maotune.learners.dept import DePT
from maotune.mao.candidates import candidate_cross_entropy
from tests.clip.conftest import toy_model

CLASSES = ("red fox", "whale", "tree_frog", "bee", "guinea pig", "wolf")
OTHERS = ("owl", "sea lion", "ant", "polar bear")
SETTINGS: dict[str, dict[str, object]] = {
    "coop": {"context_length": 4},
    "cocoop": {"context_length": 4},
    "kgcoop": {"context_length": 4},
    "proda": {"prompts": 8, "context_length": 4, "prompts_per_update": 2},
    "tcp": {"layer": 2},
    "vpt": {"depth": 2},
    "ivlp": {"text_depth": 2, "visual_depth": 3},
    "maple": {"depth": 2},
    "promptsrc": {"text_depth": 2, "visual_depth": 3, "templates": ("a photo of a {}.", "the {} in art.")},
    "coprompt": {"depth": 2, "descriptions": {name: [f"{name}, seen", "an animal"] for name in (*CLASSES, *OTHERS)}},
    "promptkd": {"depth": 2},
    "upt": {"context_length": 3},
    "hicropl": {"context_length": 4, "depth": 3, "cross_layer": 2, "templates": ("a photo of a {}.", "the {} in art.")},
    "mmrl": {"first_layer": 2, "width": 16},
    "mmrl++": {"first_layer": 2, "width": 16, "projection_rank": 8},
}
"""Settings under which a learner fits a toy CLIP of three layers and 20 tokens; the others keep their defaults."""


class Mine(AbstractLearner):
    """A learner that maotune has never seen: an offset on frozen text features."""

    def __init__(self, clip: FrozenCLIP, classes: Sequence[str]) -> None:
        super().__init__()
        self.clip, self.logit_scale = clip, clip.logit_scale
        self.offset = nn.Parameter(torch.zeros(clip.joint_width))
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.frozen = self.clip.zeroshot_text(classes, ["a photo of a {}."])

    def image_features(self, batch: Batch) -> Tensor:
        return frozen_image_features(self.clip, batch)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        return (self.frozen if only is None else self.frozen[only]) + self.offset

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        return {"cross_entropy": classify(output.logits, batch.labels)}


BUILD: dict[str, type[AbstractLearner]] = {**LEARNERS, "mine": Mine}
UNLABELLED = {"promptkd"}
"""Learners that distil a teacher and look at no label: the cross-entropy is not theirs."""
CLOSED_FORMS = {name for name, build in BUILD.items() if build.closed_form}
"""Learners without updates, which DePT refuses."""
TABLE = [(name, dept) for name in BUILD for dept in (False, True) if not (dept and name in UNLABELLED | CLOSED_FORMS)]


@cache
def toy_clip() -> FrozenCLIP:
    return FrozenCLIP(toy_model(), name="toy")


def make(name: str, dept: bool = False, classes: Sequence[str] = CLASSES) -> AbstractLearner:
    torch.manual_seed(3)
    learner = BUILD[name](toy_clip(), classes, **SETTINGS.get(name, {}))
    with torch.no_grad():  # away from special starts, so that every term counts
        for parameter in learner.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return DePT(learner, width=toy_clip().joint_width) if dept else learner


def batch(seed: int = 0, size: int = 5, classes: int = len(CLASSES)) -> Batch:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(2, size, 3, 32, 32, generator=random)
    return Batch(
        labels=torch.randint(classes, (size,), generator=random),
        images=images[0],
        features=toy_clip().encode_image(images[0]),
        unprojected=toy_clip().encode_image(images[0], projected=False),
        second_images=images[1],
        names=tuple(f"{number}.png" for number in range(size)),
    )


class Repeated:
    """The same few batches in every epoch."""

    def __init__(self, classes: int) -> None:
        self.batches = [batch(seed, classes=classes) for seed in range(2)]

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        yield from self.batches[start:]

    def support(self) -> Support:
        features = [batch.features for batch in self.batches if batch.features is not None]
        return Support(torch.cat(features)[:, None], torch.cat([batch.labels for batch in self.batches]))


def stages(method: str, closed_form: bool = False) -> list[Stage]:
    epochs = 0 if closed_form else 1
    entropy = F.cross_entropy
    base, new = Repeated(len(CLASSES)), Repeated(len(OTHERS))
    plain = Stage("plain", CLASSES, lambda _: base, entropy, epochs, lr=0.01)
    return {
        "plain": [plain],
        "mao": [
            Stage("base", CLASSES, lambda _: base, candidate_cross_entropy, epochs, lr=0.01, batch_candidates=True),
            Stage("new", OTHERS, lambda _: new, entropy, epochs, lr=0.01),
        ],
    }[method]
