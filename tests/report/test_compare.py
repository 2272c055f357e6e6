"""Paired differences against figures worked out by hand."""

from dataclasses import replace

import pandas as pd
import pytest

from maotune.report.compare import Difference, compare_mao, holm, pair
from maotune.report.frame import CLIP, ExperimentRuns
from tests.report.test_frame import MAO, PLAIN, grid, result, scores_of
from tests.report.test_sentences import run


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


def test_p_is_that_of_the_same_t() -> None:
    difference = of(a=[0.0, 2.0], b=[2.0, 2.0], c=[3.0, 3.0])
    assert difference.p == pytest.approx(0.0741799, abs=1e-6), "t = 2 sqrt(3) with 2 degrees of freedom"
    assert of(a=[1.0], b=[1.0], c=[1.0]).p == 0
    assert of(a=[0.0], b=[0.0], c=[0.0]).p == 1
    assert of(a=[5.0], b=[5.0]).p is None


def test_the_resampled_interval_knows_the_spread_of_sets_and_of_seeds() -> None:
    sets_alone = of(a=[0.0, 0.0], b=[2.0, 2.0], c=[4.0, 4.0])
    assert sets_alone.resampled == pytest.approx((0.0, 4.0), abs=0.7), "3 of 27 draws are all the same set"
    both = of(a=[-6.0, 6.0], b=[-4.0, 8.0], c=[-2.0, 10.0])
    assert both.by_dataset == sets_alone.by_dataset
    assert both.interval == sets_alone.interval
    assert sets_alone.resampled is not None
    assert both.resampled is not None
    assert both.resampled[1] - both.resampled[0] > 1.5 * (sets_alone.resampled[1] - sets_alone.resampled[0])
    assert both.resampled == of(a=[-6.0, 6.0], b=[-4.0, 8.0], c=[-2.0, 10.0]).resampled, "the same again"
    of_seeds = of(a=[1.0, 2.0, 3.0]).resampled
    assert of_seeds is not None
    assert 1 <= of_seeds[0] < 2 < of_seeds[1] <= 3


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == [pytest.approx(0.03), 0.06, None, 0.06, pytest.approx(0.02)]
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_mao_is_compared_by_base_new_and_h_with_one_definition() -> None:
    """H of 80 and 20 is 32, of 40 and 60 is 48: their mean is 40, that of the means (60, 40) would be 48."""
    scores = (
        {"mao": (50.0, 50.0, 50.0), "plain": (80.0, 20.0, 32.0)},
        {"mao": (50.0, 50.0, 50.0), "plain": (40.0, 60.0, 48.0)},
    )
    runs = [
        replace(one, result=replace(one.result, scores=dict(zip(("base", "new", "h"), values, strict=True))))
        for name, by_method in zip("ab", scores, strict=True)
        for method, values in by_method.items()
        for one in [run(name, method, 0.0)]
    ]
    found = {
        (each.against, each.measure): each.difference.mean for each in compare_mao(ExperimentRuns("base-to-new", runs))
    }
    assert found["plain", "h"] == 10
    assert (found["plain", "base"], found["plain", "new"]) == (-10, 10)
    assert found["two-prompts", "h"] == pytest.approx(50 - (2 * 80 * 50 / 130 + 2 * 40 * 50 / 90) / 2)
    assert {measure for against, measure in found if against == "two-prompts"} == {"h"}


def test_the_verdict_is_after_the_correction() -> None:
    """Alone the difference is clear (p = 0.02); among the other comparisons it is not."""
    gaps = (1.0, 2.5, 4.0, 1.5)
    runs = [run(name, "plain", 60.0 + n) for n, name in enumerate("abcd")]
    runs += [run(name, "mao", 60.0 + n + gap) for n, (name, gap) in enumerate(zip("abcd", gaps, strict=True))]
    found = [each for each in compare_mao(ExperimentRuns("base-to-new", runs)) if each.against == "plain"]
    assert [each.measure for each in found] == ["h", "base", "new"]
    for each in found:
        assert each.difference.sign == "higher"
        assert each.verdict == "unclear"
        assert each.corrected is not None
        assert each.corrected > 0.05


def test_there_is_no_verdict_where_plain_tuning_does_not_gain() -> None:
    runs = [run(name, "plain", 50.0 + gain) for name, gain in zip("abc", (-1.0, 1.0, 0.5), strict=True)]
    runs += [run(name, "mao", 80.0 + n) for n, name in enumerate("abc")]
    assert {each.verdict for each in compare_mao(ExperimentRuns("base-to-new", runs))} == {"void"}


def test_a_row_that_is_not_there_is_not_compared() -> None:
    scores = grid(plain={"a": {1: (1, 1)}})
    assert pair(scores, MAO, CLIP, "h") is None
