"""How long many runs will take: measured on a few images and updates, before any of them begins."""

import os
from collections.abc import Iterator, Sequence

import torch

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner
from maotune.data.feature_bank import FeatureBank
from maotune.data.images.views import View
from maotune.data.sets.dataset import Dataset, Sample
from maotune.mao.methods import build_stages, check_learner
from maotune.mao.pseudo_labels import PseudoLabelStore
from maotune.recipe.schema import Recipe
from maotune.runs.build import build_clip, build_learner, load_datasets, with_own_texts
from maotune.runs.estimate import CostMeter, CountMissing
from maotune.runs.events import CostEstimate
from maotune.runs.fitting import mao_task
from maotune.runs.pipeline import Pipeline
from maotune.runs.tuned import open_run


def forecast(recipes: Sequence[Recipe], threads: int | None = None) -> list[CostEstimate]:
    """Estimate the cost of each run, when they are run in this order and share a feature bank.

    Images are drawn and counted, but only a few are read; each kind of update is measured once.

    Args:
        recipes: of the runs.
        threads: that a run computes with; default: as many as this process.

    Raises:
        ValueError: a model, data set or learner cannot be built; the message says why.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads if threads and "OMP_NUM_THREADS" not in os.environ else before)
    try:
        return list(_costs(recipes))
    finally:
        torch.set_num_threads(before)


def _costs(recipes: Sequence[Recipe]) -> Iterator[CostEstimate]:
    meter = CostMeter()
    clips: dict[str, tuple[FrozenCLIP, CountMissing]] = {}
    datasets: dict[str, list[Dataset]] = {}
    learners: dict[str, AbstractLearner] = {}
    for written in recipes:
        model, data = repr(written.clip), written.data
        if model not in clips:
            clip = build_clip(written.clip)
            clips[model] = clip, _count_once(Pipeline(clip, written).bank)
        clip, count = clips[model]
        source = repr((data.source, data.root, data.classes, data.unlabelled, data.targets, written.protocol_in_use))
        if source not in datasets:
            datasets[source] = load_datasets(written)
        splits = written.protocol_in_use.draw(datasets[source], written.draw_settings)
        recipe = with_own_texts(written, splits.templates[0])
        learner = repr((model, recipe.learner, recipe.dept))
        if learner not in learners:
            learners[learner] = build_learner(recipe, clip, splits.classes, open_run)
        check_learner(recipe.method, learners[learner])
        pipeline = Pipeline(clip, recipe)
        stages = build_stages(recipe.method, mao_task(recipe, pipeline, splits, PseudoLabelStore()), recipe.mao)
        yield meter.estimate(pipeline, learners[learner], stages, splits, count)


def _count_once(bank: FeatureBank) -> CountMissing:
    """Return a function that counts missing features; those of images that it has seen are there then."""
    seen: dict[tuple[str, bool], set[str]] = {}

    def count(samples: Sequence[Sample], view: View, views: int = 1, *, projected: bool = True) -> int:
        known = seen.setdefault((view.fingerprint, projected), set())
        fresh = {sample.image.name: sample for sample in samples if sample.image.name not in known}
        if bank.folder is not None:
            known.update(fresh)
        return bank.missing([*fresh.values()], view, views, projected=projected)

    return count
