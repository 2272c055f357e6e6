"""Paired differences against figures worked out by hand."""

import pandas as pd
import pytest

from maotune.report.compare import Difference, pair
from tests.report.test_frame import MAO, PLAIN, grid, result, scores_of


def of(**by_set: list[float]) -> Difference:
    return Difference(
        pd.Series({(name, seed): v for name, values in by_set.items() for seed, v in enumerate(values, 1)})
    )


def test_the_interval_is_students_over_data_sets_of_means_over_seeds() -> None:
    difference = of(a=[0.0, 2.0], b=[2.0, 2.0], c=[3.0, 3.0])
    assert difference.by_dataset == {"a": 1, "b": 2, "c": 3}
    assert difference.mean == 2
    assert difference.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert difference.sign == "unclear", "1, 2 and 3 are three data sets only"


@pytest.mark.parametrize(("values", "sign"), [((4.0, 5.0, 6.0), "higher"), ((-4.0, -5.0, -6.0), "lower")])
def test_an_interval_on_one_side_of_zero_is_clear(values: tuple[float, ...], sign: str) -> None:
    assert of(**{name: [value] for name, value in zip("abc", values, strict=True)}).sign == sign


def test_two_data_sets_say_nothing_of_how_sure_it_is() -> None:
    difference = of(a=[5.0, 5.0, 5.0], b=[5.1, 5.1, 5.1])
    assert difference.interval is None
    assert difference.sign == "unknown"
    assert difference.counts == (2, 0, 0)


def test_of_one_data_set_the_pairs_are_its_seeds() -> None:
    difference = of(a=[1.0, 1.1, 0.9, -0.004])
    assert difference.units == [1.0, 1.1, 0.9, -0.004]
    assert difference.counts == (3, 0, 1), "less than a hundredth, as printed, is a tie"
    assert difference.interval is not None


def test_only_what_both_have_is_compared() -> None:
    scores = grid(
        mao={"a": {1: (10, 1), 2: (20, 1)}, "b": {1: (5, 1)}, "c": {3: (1, 1)}},
        plain={"a": {2: (18, 1), 3: (99, 1)}, "b": {1: (7, 1)}, "d": {1: (0, 1)}, "c": {4: (0, 1)}},
        step_matched={"z": {1: (0, 1)}},
    )
    difference = pair(scores, MAO, PLAIN, "base")
    assert difference is not None
    assert difference.gaps.to_dict() == {("a", 2): 2.0, ("b", 1): -2.0}
    assert pair(scores, MAO, ("coop", "step-matched", ""), "base") is None


def test_across_data_sets_the_pairs_are_the_targets() -> None:
    def tuned_on_a(method: str, b: float, c: float) -> object:
        scores = {"a": 99.0 * b, "b": b, "c": c, "average": (b + c) / 2}
        return result(method, 1, scores, dict.fromkeys(scores, 1.0), dataset="a", protocol="cross-dataset")

    scores = scores_of([tuned_on_a("mao", 3, 4), tuned_on_a("plain", 1, 1)])  # type: ignore[list-item]
    assert scores.measure == "average"
    difference = pair(scores, MAO, PLAIN, "average")
    assert difference is not None
    assert difference.by_dataset == {"b": 2, "c": 3}, "neither the source nor the average is a target"
