"""Predictions as people use them, and what is said of predictions for labelled images."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from maotune.data.sets.dataset import Skipped
from maotune.runs.answers import Assessment, Predictions, check_output

CLASSES = ("cat", "dog", "=cow()")
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.5, 0.1], [0.05, 0.05, 0.9]])
NAMES = ("a.png", "b\n.png", "c.png", "d.png")


def predictions(top_k: int = 2) -> Predictions:
    answered = torch.tensor([True, True, False, True])
    skipped = (Skipped("e.png", "broken", "e.png: broken"),)
    return Predictions(CLASSES, NAMES, PROBABILITIES, top_k, skipped, "plain", answered, PROBABILITIES.amax(dim=1))


def test_predictions_are_a_sequence() -> None:
    ours = predictions()
    assert len(ours) == 4
    assert ours[0][0] == "a.png"
    assert dict(ours[0][1]) == pytest.approx({"cat": 0.7, "dog": 0.2})
    assert ours[-1][0] == "d.png"
    assert ours[1:3] == [*ours][1:3]
    assert ours.labels == ["cat", "=cow()", "unknown", "=cow()"]
    assert all(len(best) == 3 for _, best in predictions(top_k=99))
    with pytest.raises(IndexError):
        ours[4]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_holds_a_row_for_each_image(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{ending}"
    check_output(path)
    predictions().write(path)
    if ending == "parquet":
        table = pd.read_parquet(path)
    else:
        table = pd.read_csv(path) if ending == "csv" else pd.read_json(path, lines=True)
    assert [*table] == ["image", "label", "class_1", "probability_1", "class_2", "probability_2"]
    expected = {"csv": ["a.png", r"b\n.png", "c.png", "d.png"]}.get(ending, [*NAMES])
    assert [*table["image"]] == expected
    assert [*table["label"]][1:3] == ["'=cow()" if ending == "csv" else "=cow()", "unknown"]
    assert table["probability_1"].to_numpy() == pytest.approx([0.7, 0.6, 0.5, 0.9])


def test_other_files_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"out\.xlsx: predictions are written to a \.csv, \.jsonl or \.parquet file"):
        check_output(tmp_path / "out.xlsx")


def test_an_assessment_agrees_with_scikit_learn() -> None:
    truth = [0, 2, 0, 1]
    scored = Assessment("photos", "all", predictions(), torch.tensor(truth))
    guessed = PROBABILITIES.argmax(dim=1).tolist()
    assert scored.accuracy == pytest.approx(100 * accuracy_score(truth, guessed)) == 50
    assert scored.mean_per_class == pytest.approx(100 * balanced_accuracy_score(truth, guessed))
    assert scored.confusion.loc["dog", "=cow()"] == 1
    assert int(scored.confusion.to_numpy().sum()) == 4
    cats = scored.per_class.loc["cat"]
    assert (cats["images"], cats["accuracy"], cats["taken_for"], cats["wrong"]) == (2, 50, "dog", 1)
    assert scored.to_frame()["true"].tolist() == ["cat", "=cow()", "cat", "dog"]
    # By hand: four bins of one image each, with confidences .7 .6 .5 .9 and answers right, right, wrong, wrong.
    assert scored.ece == pytest.approx(100 * (0.3 + 0.4 + 0.5 + 0.9) / 4)
    assert scored.risk_coverage["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert scored.risk_coverage["risk"].to_numpy() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 2])


def test_probabilities_that_are_right_as_often_as_they_say_have_no_calibration_error() -> None:
    random = np.random.default_rng(0)
    chance = torch.tensor(random.uniform(0.5, 1, 20_000))
    labels = torch.tensor(random.uniform(size=20_000) > chance.numpy()).long()
    both = torch.stack([chance, 1 - chance], dim=1)
    ours = Predictions(("a", "b"), ("",) * 20_000, both, 1, (), "plain", torch.ones(20_000) > 0, both[:, 0])
    scored = Assessment("made up", "all", ours, labels)
    assert scored.ece < 1.5
    assert scored.reliability["images"].sum() == 20_000
    assert (scored.reliability["accuracy"] - scored.reliability["confidence"]).abs().max() < 0.06


def test_a_class_without_images_has_no_accuracy() -> None:
    scored = Assessment("photos", "all", predictions(), torch.tensor([0, 0, 0, 0]))
    assert math.isnan(scored.per_class.loc["dog", "accuracy"])
    assert scored.mean_per_class == 25
