"""A temperature that makes probabilities honest, and thresholds that keep what they promise on other images."""

import numpy as np
import pytest
import torch
from torch import Tensor

from maotune.runs.calibration import Calibration, Rejection, fit_temperature


def draw(count: int, sharpness: float, seed: int = 0, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Scores of images, and classes drawn by their probabilities; shown are the scores times ``sharpness``."""
    random = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(count, classes, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random)[:, 0]
    return sharpness * logits, labels


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_how_sharp_scores_are(sharpness: float) -> None:
    logits, labels = draw(20_000, sharpness)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.05)


def test_few_images_that_are_all_right_do_not_make_the_model_sure_of_everything() -> None:
    logits = 2.0 * torch.eye(4)
    temperature = fit_temperature(logits, torch.arange(4))
    assert 0.2 < temperature < 1


@pytest.mark.parametrize("wish", [0.7, 0.8, 0.9])
def test_answers_for_other_images_have_the_wished_precision(wish: float) -> None:
    right = answers = 0
    for seed in range(40):
        calibration = Calibration.of(*draw(80, 3.0, seed))
        logits, labels = draw(500, 3.0, 1000 + seed)
        probabilities = (logits / calibration.temperature).softmax(dim=1)
        answered = Rejection.of(calibration, wish, False).answered(logits, probabilities)
        right += int((probabilities.argmax(dim=1) == labels)[answered].sum())
        answers += int(answered.sum())
    assert answers > 1000
    assert right / answers > wish - 0.03


def test_a_wish_that_cannot_be_met_leaves_all_images_to_a_person() -> None:
    calibration = Calibration.of(*draw(10, 1.0))
    rejection = Rejection.of(calibration, 0.99, False)
    logits, _ = draw(7, 1.0)
    answered = rejection.answered(logits, logits.softmax(dim=1))
    assert not answered.any()
    assert "7 of 7 images (100%) are left to a person: no confidence is known to give a precision of 0.99" in (
        rejection.say(answered)
    )
    for wrong in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match=r"such as 0\.95"):
            Rejection.of(calibration, wrong, False)


def test_images_that_resemble_no_class_are_rejected() -> None:
    logits, labels = draw(2000, 1.0)
    rejection = Rejection.of(Calibration.of(10 + logits, labels), None, True)
    again, _ = draw(2000, 1.0, seed=1)
    both = torch.cat([10 + again, again - 10])
    answered = rejection.answered(both, both.softmax(dim=1)).numpy()
    assert answered[:2000].mean() == pytest.approx(0.95, abs=0.02)
    assert not answered[2000:].any()


def test_a_curve_goes_from_all_images_to_the_surest_and_is_short() -> None:
    curve = Calibration.of(*draw(5000, 1.0)).curve
    assert curve[0]["coverage"] == 1
    assert 10 < len(curve) <= 100
    for name, order in (("coverage", -1), ("precision", 1), ("confidence", 1)):
        assert (order * np.diff([point[name] for point in curve]) > 0).all()  # type: ignore[literal-required]
