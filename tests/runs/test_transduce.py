"""Images that are classified are their own pool."""

import pytest
import torch
import torch.nn.functional as F

import maotune
from maotune.mao.labelers import stata
from maotune.recipe import RecipeError
from maotune.runs.build import build_splits
from maotune.runs.pipeline import Pipeline


@pytest.fixture(scope="module")
def run() -> maotune.Run:
    return maotune.tune("icons-weather", learner="taskres", shots=2, epochs=4, data__views=1)


def test_the_learners_probabilities_are_the_prior_and_changes_are_counted(run: maotune.Run) -> None:
    samples = build_splits(run.recipe).splits.tests["base"].samples
    images = [sample.image.read() for sample in samples]
    plain = run.predict(images)
    corrected = run.predict(images, transduce="stata")
    learner = run.learner()
    features = F.normalize(Pipeline(run.clip, run.recipe).embed(learner, samples), dim=1)
    with torch.no_grad():
        text = F.normalize(learner.text_features(), dim=1)
    expected = stata(features, text, learner.logit_scale, plain.probabilities)
    torch.testing.assert_close(corrected.probabilities, expected, rtol=0, atol=1e-3)
    assert plain.changed is None
    assert corrected.changed == sum(a != b for a, b in zip(plain.labels, corrected.labels, strict=True)) > 0
    assert corrected.images == plain.images
    assert len(run.predict(images[:1], transduce="stata")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transduce": "foundation"}, "unknown labeler 'foundation'"),
        ({"transduce": "stat"}, "did you mean stata"),
        ({"transduce": "stata", "reject": True}, "thresholds were learned without it"),
    ],
)
def test_what_cannot_be_done_is_said_before_an_image_is_read(
    run: maotune.Run, settings: dict[str, object], message: str
) -> None:
    with pytest.raises((RecipeError, ValueError), match=message):
        run.predict(["nothing.png"], **settings)
