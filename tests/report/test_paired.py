"""Paired differences against figures worked out by hand."""

import pytest

from maotune.report.paired import Paired, paired
from maotune.report.summary import Row, Series, Spread


def of(**by_set: list[float]) -> Paired:
    return Paired({name: dict(enumerate(values, 1)) for name, values in by_set.items()})


def one_method(method: str, h: dict[str, dict[int, float]]) -> Series:
    rows = {
        name: Row(name, "coop", method, tuple(seeds), {"h": Spread(0)}, 0, 0, {s: {"h": v} for s, v in seeds.items()})
        for name, seeds in h.items()
    }
    return Series("coop", method, "", rows)


def test_the_interval_is_students_over_data_sets_of_means_over_seeds() -> None:
    found = of(a=[0.0, 2.0], b=[2.0, 2.0], c=[3.0, 3.0])
    assert found.differences == {"a": 1, "b": 2, "c": 3}
    assert found.mean == 2
    assert found.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert found.sign == "unclear", "1, 2 and 3 are three data sets only"


@pytest.mark.parametrize(("values", "sign"), [((4.0, 5.0, 6.0), "higher"), ((-4.0, -5.0, -6.0), "lower")])
def test_an_interval_on_one_side_of_zero_is_clear(values: tuple[float, ...], sign: str) -> None:
    assert of(**{name: [value] for name, value in zip("abc", values, strict=True)}).sign == sign


def test_two_data_sets_say_nothing_of_how_sure_it_is() -> None:
    found = of(a=[5.0, 5.0, 5.0], b=[5.1, 5.1, 5.1])
    assert found.interval is None
    assert found.sign == "unknown"
    assert found.counts == (2, 0, 0)


def test_of_one_data_set_the_pairs_are_its_seeds() -> None:
    found = of(a=[1.0, 1.1, 0.9, -0.004])
    assert found.units == [1.0, 1.1, 0.9, -0.004]
    assert found.counts == (3, 0, 1), "less than a hundredth, as printed, is a tie"
    assert found.interval is not None


def test_only_what_both_have_is_compared() -> None:
    first = one_method("mao", {"a": {1: 10.0, 2: 20.0}, "b": {1: 5.0}, "c": {3: 1.0}})
    second = one_method("plain", {"a": {2: 18.0, 3: 99.0}, "b": {1: 7.0}, "d": {1: 0.0}, "c": {4: 0.0}})
    found = paired(first, second, "h")
    assert found is not None
    assert found.pairs == {"a": {2: 2.0}, "b": {1: -2.0}}
    assert paired(first, one_method("plain", {"z": {1: 0.0}}), "h") is None


def test_across_data_sets_the_pairs_are_the_targets() -> None:
    def tuned_on_a(b: float, c: float) -> Series:
        scores = {"a": 99.0 * b, "b": b, "c": c, "average": (b + c) / 2}
        return Series("coop", "x", "", {"a": Row("a", "coop", "x", (1,), {}, 0, 0, {1: scores})})

    found = paired(tuned_on_a(3, 4), tuned_on_a(1, 1), "average")
    assert found is not None
    assert found.differences == {"b": 2, "c": 3}, "neither the source nor the average is a target"
