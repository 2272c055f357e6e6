"""What a run keeps of each scored image."""

from pathlib import Path

import maotune
from maotune.runs.predictions import Scoring

SMALL = {"shots": 1, "epochs": 2, "data__views": 1, "data__bank": False}


def test_base_to_new_keeps_what_a_joint_vocabulary_would_predict(tmp_path: Path) -> None:
    maotune.tune("icons-weather", folder=tmp_path, method="mao", **SMALL)
    scoring = Scoring.find(tmp_path)
    assert scoring is not None
    assert scoring.highest is not None
    assert set(scoring.highest) == {"base", "new", "zeroshot", "inductive"} == set(scoring.predicted)
    for prompts, by_test in scoring.highest.items():
        for test, among in by_test.items():
            both = (prompts, test) != ("inductive", "new")  # class means of the pool say nothing of base classes
            assert set(among) == ({"base", "new"} if both else {"new"})
            assert all(len(scores) == len(scoring.labels[test]) for scores in among.values())
        right = [
            p == label for p, label in zip(scoring.predicted[prompts]["base"], scoring.labels["base"], strict=True)
        ]
        own, other = by_test["base"]["base"], by_test["base"]["new"]
        margins = [a - b for a, b, is_right in zip(own, other, right, strict=True) if is_right]
        assert sum(margins) > 0, "images that are recognised lie nearer to their own half"


def test_where_no_vocabulary_is_joint_only_the_own_list_is_kept(tmp_path: Path) -> None:
    maotune.tune("icons-weather", folder=tmp_path, method="zeroshot", protocol="few-shot", **SMALL)
    scoring = Scoring.find(tmp_path)
    assert scoring is not None
    assert scoring.highest is not None
    assert {among: len(scores) for among, scores in scoring.highest["zeroshot"]["all"].items()} == {
        "all": len(scoring.labels["all"])
    }


def test_predictions_of_older_versions_are_read(tmp_path: Path) -> None:
    old = '{"classes": {"all": ["a"]}, "labels": {"all": [0]}, "predicted": {}, "pseudo_labels": null}'
    (tmp_path / "scoring.json").write_text(old, encoding="utf-8")
    scoring = Scoring.find(tmp_path)
    assert scoring is not None
    assert scoring.highest is None
