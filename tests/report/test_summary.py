"""Averages over data sets: what is averaged, and over which."""

from statistics import stdev

import pytest

from maotune.report.summary import Row, Series, Spread, series, shared, widest

Scores = dict[int, tuple[float, float]]


def row(dataset: str, method: str, by_seed: Scores) -> Row:
    tables = {seed: {"base": base, "new": new, "h": 0.0} for seed, (base, new) in by_seed.items()}
    return Row(
        dataset, "coop", method, tuple(by_seed), {"base": Spread(0), "new": Spread(0), "h": Spread(0)}, 0, 0, tables
    )


def one(method: str, **sets: Scores) -> Series:
    return series([row(name, method, by_seed) for name, by_seed in sets.items()])[0]


def test_h_of_the_average_is_that_of_the_two_averages() -> None:
    found = one("plain", a={1: (80, 20)}, b={1: (40, 60)}).average({"a": [1], "b": [1]})
    assert (found["base"].mean, found["new"].mean) == (60, 40)
    assert found["h"].mean == pytest.approx(48)
    assert found["h"].std is None


def test_the_spread_of_an_average_is_over_the_seeds_own_averages() -> None:
    found = one("plain", a={1: (80, 20), 2: (70, 20)}, b={1: (40, 60), 2: (30, 60)}).average({"a": [1, 2], "b": [1, 2]})
    assert found["base"].mean == 55
    assert found["base"].std == pytest.approx(stdev([60, 50]))
    assert found["new"].std == 0
    uneven = one("plain", a={1: (80, 20), 2: (70, 20)}, b={1: (40, 60)}).average({"a": [1, 2], "b": [1]})
    assert uneven["base"].std is None, "the data sets have other seeds"


def test_means_are_compared_over_what_all_have() -> None:
    full = one("plain", a={1: (1, 1), 2: (1, 1)}, b={1: (1, 1)}, c={1: (1, 1)})
    assert shared([full, one("mao", a={2: (1, 1), 3: (1, 1)}, b={1: (1, 1)}, c={2: (1, 1)})]) == {"a": [2], "b": [1]}


def test_a_row_that_has_hardly_begun_does_not_take_the_others_down() -> None:
    sets: dict[str, Scores] = {name: {1: (1, 1)} for name in "abcdef"}
    plain, step, begun = one("plain", **sets), one("step-matched", **sets), one("mao", a={1: (1, 1)})
    chosen, cells = widest([plain, step, begun])
    assert chosen == [plain, step]
    assert set(cells) == set("abcdef")


def test_a_data_set_that_one_row_lacks_is_left_out_of_all() -> None:
    sets: dict[str, Scores] = {name: {1: (1, 1)} for name in "abcdef"}
    every = [
        one("plain", **sets),
        one("step-matched", **sets),
        one("mao", **{n: s for n, s in sets.items() if n != "f"}),
    ]
    chosen, cells = widest(every)
    assert chosen == every
    assert set(cells) == set("abcde")
    assert widest([]) == ([], {})
