"""DPC, and DPC with MAO, around every learner: stages, mixtures that predict, and refusals with their reasons."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from maotune.contract import AbstractLearner, Batches, name_mixture
from maotune.data.batches import SampleBatches, Sampler
from maotune.data.draw import UnlabelledPool
from maotune.data.sets.dataset import Sample
from maotune.learners.mixture import Mixture
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.methods import build_stages, check_learner, predictors_of
from maotune.mao.settings import MaoSettings
from maotune.mao.stages import Task
from maotune.runs.mixing import StagePrompts, with_prompts
from maotune.train.loop import FitSettings, fit
from tests.contract.members import BUILD, CLASSES, CLOSED_FORMS, OTHERS, TABLE, UNLABELLED, batch, make, toy_clip
from tests.mao.test_stages import Square

VIEWS = 2
SHOTS = [Sample(Square(f"{name}/{number}"), label) for label, name in enumerate(CLASSES) for number in range(2)]
POOL = [Sample(Square(f"{name}/{number}"), label) for label, name in enumerate(OTHERS) for number in range(2)]
REFUSED = CLOSED_FORMS | UNLABELLED
TUNED = [row for row in TABLE if row[0] not in REFUSED]


@cache
def pixels(index: int, view: int) -> Tensor:
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(10 * index + view % VIEWS))


class Noise:
    """A source of pixels that are the same for an image and a view."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def pixels(self, draw: tuple[int, int]) -> Tensor:
        return pixels(*draw)


def make_batches(
    samples: Sequence[Sample], labels: Tensor, sampler: Sampler, *, training: bool
) -> Callable[[AbstractLearner], Batches]:
    views = VIEWS if training else 1
    images = torch.stack([torch.stack([pixels(index, view) for view in range(views)]) for index in range(len(samples))])

    def batches(learner: AbstractLearner) -> Batches:
        flat = images.flatten(0, 1)
        kinds = {"features": learner.uses_frozen_features, "unprojected": learner.uses_unprojected_features}
        bank = {
            kind: toy_clip().encode_image(flat, projected=kind == "features").view(len(samples), views, -1)
            for kind, used in kinds.items()
            if used
        }
        source: Any = Noise(samples)
        return SampleBatches(samples, labels, sampler, **bank, pixels=source, pairs=learner.views == 2)

    return batches


def task() -> Task:
    return Task(
        classes=CLASSES,
        shots=SHOTS,
        new_classes=OTHERS,
        unlabelled=UnlabelledPool(tuple(POOL), tuple(sample.label for sample in POOL), "balanced"),
        make_batches=make_batches,
        foundation=lambda: ZeroShot(toy_clip(), OTHERS),
        epochs=2,
        lr=0.01,
        batch_size=4,
        views=VIEWS,
    )


@pytest.mark.parametrize("method", ["dpc", "dpc-mao"])
@pytest.mark.parametrize(("name", "dept"), TUNED)
def test_dpc_tunes_every_learner(name: str, dept: bool, method: str) -> None:
    learner, settings = make(name, dept), MaoSettings(lr=0.01, b=2, k=3)
    check_learner(method, learner)
    stages = build_stages(method, task(), settings)
    assert [stage.name for stage in stages] == ["plain", "parallel", "new"][: len(stages)]
    history = fit(learner, stages, FitSettings(warmup_epochs=0))
    prompts = {
        stage.name: StagePrompts(stage.classes, record.prompts or {})
        for stage, record in zip(stages, history.stages, strict=True)
    }
    plain, parallel = prompts["plain"].tensors, prompts["parallel"].tensors
    assert any(not torch.equal(plain[key], parallel[key]) for key in plain), "the second stage goes on"
    predictors = predictors_of(method, task(), settings)
    assert (predictors.base, predictors.new) == ("0.8 plain + 0.2 parallel", "new" if method == "dpc-mao" else "plain")
    scores = {}
    for text in ("plain", "parallel", name_mixture({"plain": 1 - 1e-9, "parallel": 1e-9}), predictors.base):
        mixed = with_prompts(copy.deepcopy(learner), text, prompts).eval()
        mixed.bind(CLASSES)
        with torch.no_grad():
            scores[text] = mixed(batch()).logits
        assert torch.isfinite(scores[text]).all()
        assert isinstance(mixed, Mixture) == ("+" in text and not learner.prompts_are_parameters)
        mixed.bind((*OTHERS, CLASSES[0]))
        assert mixed(batch()).logits.shape == (5, 5)
    all_but_plain = name_mixture({"plain": 1 - 1e-9, "parallel": 1e-9})
    torch.testing.assert_close(scores[all_but_plain], scores["plain"], rtol=0, atol=1e-3)
    ends = torch.stack([scores["plain"], scores["parallel"]])
    inside = (scores[predictors.base] - (0.8 * ends[0] + 0.2 * ends[1])).abs().max()
    assert inside <= 0.2 * (ends[0] - ends[1]).abs().max() + 1e-3, "to first order it lies between the two"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_learner_that_dpc_cannot_tune_is_refused_with_the_reason(name: str) -> None:
    reason = "looks at no label" if name in UNLABELLED else "has a closed form"
    with pytest.raises(ValueError, match=rf"{BUILD[name].__name__} {reason}.*choose the method plain or mao"):
        check_learner("dpc", make(name))


def test_a_cache_of_images_is_refused_as_it_belongs_to_one_stage() -> None:
    tuned = BUILD["tip-adapter"](toy_clip(), CLASSES, tuned=True)
    with pytest.raises(ValueError, match=r"TipAdapter learns belongs to the images of one stage \(keys, values\)"):
        check_learner("dpc-mao", tuned)


def test_a_mixture_of_features_has_the_scores_of_its_mixed_features() -> None:
    parts = [make("maple").eval(), make("maple").eval()]
    with torch.no_grad():
        for parameter in parts[1].parameters():
            parameter.add_(0.01)
        mixed = Mixture(parts, (0.75, 0.25)).eval()
        ours, (first, second) = mixed(batch()), [part(batch()) for part in parts]
    torch.testing.assert_close(ours.image, 0.75 * first.image + 0.25 * second.image)
    torch.testing.assert_close(ours.text, 0.75 * first.text + 0.25 * second.text)
    cosines = torch.nn.functional.cosine_similarity(ours.image[:, None], ours.text, dim=-1)
    torch.testing.assert_close(ours.logits, mixed.logit_scale * cosines, rtol=0, atol=1e-4)
    losses = mixed.losses(ours, batch(), torch.nn.functional.cross_entropy)
    torch.testing.assert_close(losses["cross_entropy"], torch.nn.functional.cross_entropy(ours.logits, batch().labels))
