"""One table over all learners x {bare, DePT} x {plain, MAO base, MAO new}: what the contract promises."""

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output, Stage
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.mao.candidates import candidate_cross_entropy
from maotune.train.loop import FitSettings, fit
from maotune.train.session import load_prompts, restore_prompts, save_prompts
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
        return batch.features if batch.features is not None else self.clip.encode_image(batch.images)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        return (self.frozen if only is None else self.frozen[only]) + self.offset

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        return {"cross_entropy": classify(output.logits, batch.labels)}


BUILD: dict[str, Callable[..., AbstractLearner]] = {**LEARNERS, "mine": Mine}
UNLABELLED = {"promptkd"}
"""Learners that distil a teacher and look at no label: the cross-entropy is not theirs."""
TABLE = [(name, dept) for name in BUILD for dept in (False, True) if not (dept and name in UNLABELLED)]


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


def stages(method: str) -> list[Stage]:
    entropy = F.cross_entropy
    base, new = Repeated(len(CLASSES)), Repeated(len(OTHERS))
    plain = Stage("plain", CLASSES, lambda _: base, entropy, 1, lr=0.01)
    return {
        "plain": [plain],
        "mao": [
            Stage("base", CLASSES, lambda _: base, candidate_cross_entropy, 1, lr=0.01, batch_candidates=True),
            Stage("new", OTHERS, lambda _: new, entropy, 1, lr=0.01),
        ],
    }[method]


@pytest.fixture(params=TABLE, ids=lambda row: row[0] + "+dept" * row[1])
def learner(request: pytest.FixtureRequest) -> AbstractLearner:
    return make(*request.param).eval()


def test_shapes(learner: AbstractLearner) -> None:
    width = learner.image_features(batch()).shape[1]
    for only in (None, torch.tensor([4, 1])):
        if only is not None and learner.scores_all_classes:
            continue
        output = learner(batch(), only)
        candidates = len(CLASSES) if only is None else 2
        assert output.image.shape == (5, width)
        assert output.text.shape[-2:] == (candidates, width)
        assert output.logits.shape == (5, candidates)
        assert output.logits.dtype == output.image.dtype == output.text.dtype == torch.float32
        counted = replace(batch(), labels=batch().labels % candidates)
        for term in learner.losses(output, counted, F.cross_entropy).values():
            assert term.shape == ()
            assert term.dtype == torch.float32


@pytest.mark.parametrize("method", ["plain", "mao"])
def test_a_run_moves_the_prompts_and_nothing_else(learner: AbstractLearner, method: str) -> None:
    weights = {name: value.clone() for name, value in toy_clip().model.state_dict().items()}
    before = copy.deepcopy(learner.state_dict())
    fit(learner, stages(method), FitSettings(warmup_epochs=0))
    assert any(not torch.equal(before[name], value) for name, value in learner.state_dict().items())
    for name, value in toy_clip().model.state_dict().items():
        assert torch.equal(value, weights[name]), name
        assert not value.requires_grad
    assert all(parameter.requires_grad for parameter in learner.parameters())


def test_a_step_gives_all_prompts_a_gradient(learner: AbstractLearner) -> None:
    sum(learner.losses(learner(batch()), batch(), F.cross_entropy).values()).backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(("name", "dept"), [row for row in TABLE if row[0] not in UNLABELLED])
def test_the_cross_entropy_is_the_one_handed_in(name: str, dept: bool) -> None:
    learner, calls = make(name, dept).eval(), []

    def classify(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(logits.shape)
        return 0 * logits.sum()

    output = learner(batch())
    given, swapped = learner.losses(output, batch(), F.cross_entropy), learner.losses(output, batch(), classify)
    assert calls
    assert given.keys() == swapped.keys()
    moved = {term for term in given if not torch.equal(given[term], swapped[term])}
    assert moved
    assert all(swapped[term] == 0 for term in moved), "a term holds more than the cross-entropy"


def test_saved_prompts_give_the_same_scores_elsewhere(learner: AbstractLearner, tmp_path: Path) -> None:
    fit(learner, stages("plain"), FitSettings(warmup_epochs=0))
    expected = learner.eval()(batch()).logits
    save_prompts(tmp_path / "prompts.safetensors", learner.state_dict(), {})
    name = next(n for n, build in BUILD.items() if isinstance(getattr(learner, "inner", learner), build))
    fresh = make(name, isinstance(learner, DePT)).eval()
    restore_prompts(fresh, load_prompts(tmp_path / "prompts.safetensors")[0])
    torch.testing.assert_close(fresh(batch()).logits, expected, rtol=0, atol=1e-5)
    for each in (learner, fresh):
        each.bind(OTHERS)
    torch.testing.assert_close(fresh(batch()).logits, learner(batch()).logits, rtol=0, atol=1e-5)


def test_permuting_the_classes_permutes_the_scores(learner: AbstractLearner) -> None:
    logits = learner(batch()).logits
    order = torch.randperm(len(CLASSES), generator=torch.Generator().manual_seed(1))
    learner.bind([CLASSES[index] for index in order])
    torch.testing.assert_close(learner(batch()).logits, logits[:, order], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "dept"), [row for row in TABLE if not BUILD[row[0]].scores_all_classes])
def test_candidates_alone_score_as_among_all(name: str, dept: bool) -> None:
    learner = make(name, dept).eval()
    only = torch.tensor([5, 0, 2])
    full, part = learner(batch()).logits, learner(batch(), only).logits
    torch.testing.assert_close(part, full[:, only], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "dept"), TABLE)
def test_mao_with_all_classes_in_the_batch_is_plain(name: str, dept: bool) -> None:
    learner = make(name, dept).eval()
    everything = replace(batch(size=len(CLASSES)), labels=torch.arange(len(CLASSES)))
    output = learner(everything)
    plain = learner.losses(output, everything, F.cross_entropy)
    over_candidates = learner.losses(output, everything, candidate_cross_entropy)
    for term, value in plain.items():
        torch.testing.assert_close(over_candidates[term], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_classes_are_bound_when_all_else_is_there(name: str) -> None:
    """A learner that overrides ``bind`` finds all its fields, parameters and modules at the first call."""
    seen: list[set[str]] = []

    class Watching(LEARNERS[name]):  # type: ignore[misc, valid-type]
        def bind(self, classes: Sequence[str]) -> None:
            super().bind(classes)
            seen.append({*vars(self), *self.state_dict(), *dict(self.named_buffers())})

    learner = Watching(toy_clip(), CLASSES, **SETTINGS[name])
    assert seen == [{*vars(learner), *learner.state_dict(), *dict(learner.named_buffers())}]
    assert learner.classes == CLASSES


def test_too_long_and_too_few_names_are_refused(learner: AbstractLearner) -> None:
    with pytest.raises(ValueError, match="very"):
        learner.bind(["fox", "very " * 40 + "long"])
    with pytest.raises(ValueError, match="class"):
        learner.bind([])


def test_binding_holds_no_embeddings() -> None:
    """50,000 classes must not cost 50,000 embedded names: a context keeps token ids, and nothing else."""
    learner = make("coop")
    many = [f"thing {zlib.crc32(str(number).encode()) % 97}" for number in range(5000)]
    learner.bind(many)
    held = sum(buffer.numel() * buffer.element_size() for buffer in learner.buffers())
    assert held < len(many) * 20 * 8 * 2
