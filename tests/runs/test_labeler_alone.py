"""The labeler of the new stage as a classifier: rows beside those of the methods."""

from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F

import maotune
from maotune.mao.labelers import class_means, stata
from maotune.runs.build import build_splits
from maotune.runs.labeler_alone import INDUCTIVE, TRANSDUCTIVE
from maotune.runs.pipeline import Pipeline
from maotune.runs.predictions import Scoring

SET = "icons-weather"


def tune(folder: Path | None = None, **settings: object) -> maotune.Run:
    return maotune.tune(SET, folder=folder, learner="gda", method="mao", shots=2, **settings)


def test_a_run_scores_its_labeler_on_the_tests_and_by_class_means_of_the_pool(tmp_path: Path) -> None:
    run = tune(tmp_path / "run", mao__labeler="stata", mao__labels="soft")
    pipeline, splits = Pipeline(run.clip, run.recipe), build_splits(run.recipe).splits
    assert splits.unlabelled is not None
    zeroshot = run.learner(splits.new_classes, "zeroshot")
    pool, shown = (
        F.normalize(pipeline.bank.features(samples, pipeline.test_view)[:, 0], dim=1)
        for samples in (splits.unlabelled.samples, splits.tests["new"].samples)
    )
    text, truth = zeroshot.text_features(), np.array([sample.label for sample in splits.tests["new"].samples])
    means = class_means(pool, stata(pool, text, zeroshot.logit_scale), text)
    expected = {
        TRANSDUCTIVE: stata(shown, text, zeroshot.logit_scale).argmax(1).numpy() == truth,
        INDUCTIVE: (shown @ means.T).argmax(1).numpy() == truth,
    }
    alone, scoring = run.result.labeler_alone, Scoring.find(tmp_path / "run")
    assert scoring is not None
    for name, right in expected.items():
        assert alone[name]["new"] == pytest.approx(100 * right.mean())
        assert scoring.predicted[name]["new"] == pytest.approx(np.where(right, truth, scoring.predicted[name]["new"]))
    assert alone[INDUCTIVE]["base"] == run.result.zeroshot["base"], "the pool has no image of a base class"
    assert alone[TRANSDUCTIVE]["base"] != run.result.zeroshot["base"]


def test_zero_shot_clip_as_the_labeler_is_its_own_row_already() -> None:
    assert {*tune().result.labeler_alone} == {INDUCTIVE}
    assert maotune.tune(SET, learner="gda", shots=2).result.labeler_alone == {}, "without a pool"
