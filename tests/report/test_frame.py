"""Means, spreads and averages of finished runs, against figures worked out by hand."""

from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from maotune.recipe import load_recipe
from maotune.report.frame import ExperimentRuns, FinishedTrial, Key, Scores, short_names
from maotune.report.sentences import verdicts
from maotune.runs.result import Result
from maotune.sweep.manifest import Trial

ZERO = {"base": 50.0, "new": 50.0, "h": 50.0}
PLAIN, STEP, MAO = (("coop", method, "") for method in ("plain", "step-matched", "mao"))
ZEROSHOT: Key = ("", "zeroshot", "")


def result(method: str, seed: int, scores: dict[str, float], zeroshot: dict[str, float] = ZERO, **more: Any) -> Result:
    stages = [{"name": "plain", "updates": 10 * seed, "seconds": 1.0}, {"name": "new", "updates": 2, "seconds": 0.5}]
    values: dict[str, Any] = {
        "dataset": "toy", "protocol": "base-to-new", "learner": "coop", "method": method, "seed": seed, "shots": 4,
        "scores": scores, "scored_with": {}, "zeroshot": zeroshot, "stages": stages, "pseudo_labels": None,
        "skipped": [], "templates": [], "parameters": 1, "peak_memory": 1, "seconds": 1.0, "environment": {},
        "recipe": {},
    }  # fmt: skip
    return Result(**values | more)


def scores_of(results: list[Result]) -> Scores:
    return Scores((each, "") for each in results)


def two_seeds(method: str) -> list[Result]:
    tables = [{"base": 90.0, "new": 30.0, "h": 45.0}, {"base": 70.0, "new": 60.0, "h": 64.615}]
    return [result(method, seed, table) for seed, table in enumerate(tables, 1)]


def grid(**methods: dict[str, dict[int, tuple[float, float]]]) -> Scores:
    """Method -> data set -> seed -> base and new."""
    return scores_of(
        [
            result(method.replace("_", "-"), seed, {"base": base, "new": new, "h": 0.0}, dataset=name)
            for method, sets in methods.items()
            for name, seeds in sets.items()
            for seed, (base, new) in seeds.items()
        ]
    )


def test_h_is_that_of_the_means_and_not_the_mean_of_h() -> None:
    scores = scores_of(two_seeds("plain"))
    assert scores.keys == [ZEROSHOT, PLAIN]
    plain = scores.spreads[PLAIN, "toy"]
    assert (plain["base"].mean, plain["new"].mean) == (80, 45)
    assert plain["h"].mean == pytest.approx(2 * 80 * 45 / 125)
    assert plain["h"].mean != pytest.approx((45 + 64.615) / 2, abs=1)
    assert plain["base"].std == pytest.approx(stdev([90, 70]))
    assert str(plain["base"]) == "80.00 ± 14.14"
    row = scores.rows()[1]
    assert (row["seeds"], row["updates"], row["seconds"]) == ([1, 2], (12 + 22) / 2, 1.5)
    assert row["by_seed"][2] == {"base": 70.0, "new": 60.0, "h": 64.615}


def test_zeroshot_has_no_spread_over_seeds_that_it_does_not_know() -> None:
    scores = scores_of([*two_seeds("plain"), *two_seeds("mao")])
    assert str(scores.spreads[ZEROSHOT, "toy"]["base"]) == "50.00"
    assert scores.average(ZEROSHOT)["base"].std is None
    other = [result("plain", seed, ZERO, {"base": 50.0 + seed, "new": 50.0, "h": 50.0}) for seed in (1, 2)]
    assert scores_of(other).spreads[ZEROSHOT, "toy"]["base"].std == pytest.approx(stdev([51, 52]))


def test_rows_keep_the_order_of_the_runs() -> None:
    runs = [result("plain", 1, ZERO, dataset=name, learner=of) for name in ("zoo", "art") for of in ("vpt", "coop")]
    order = [(row["dataset"], row["learner"]) for row in scores_of(runs).rows()]
    assert order == [("zoo", ""), ("zoo", "vpt"), ("zoo", "coop"), ("art", ""), ("art", "vpt"), ("art", "coop")]


def test_rows_of_the_labeler_alone_belong_to_no_learner_and_hidden_balance_is_marked() -> None:
    alone = {
        "transductive": {"base": 60.0, "new": 60.0, "h": 60.0},
        "inductive": {"base": 50.0, "new": 70.0, "h": 58.3},
    }
    for labeler, mode, mark in (("sinkhorn", "balanced", "†"), ("sinkhorn", "natural", ""), ("stata", "balanced", "")):
        recipe = load_recipe(None, {"method": "mao", "mao.labeler": labeler, "mao.unlabelled": mode})
        with_mao = result("mao", 1, ZERO, pseudo_labels={"images": 1.0}, labeler_alone=alone, stages=[])
        runs = ExperimentRuns("toy", [FinishedTrial(Trial(Path("toy"), "toy", labeler, recipe), with_mao)])
        variant = f"{labeler}{mark}"
        assert {*runs.scores.keys} == {ZEROSHOT, ("coop", "mao", variant), *(("", name, variant) for name in alone)}
        assert runs.scores.average(("", "inductive", variant))["new"].mean == 70


def test_h_of_the_average_is_that_of_the_two_averages() -> None:
    average = grid(plain={"a": {1: (80, 20)}, "b": {1: (40, 60)}}).average(PLAIN)
    assert (average["base"].mean, average["new"].mean) == (60, 40)
    assert average["h"].mean == pytest.approx(48)
    assert average["h"].std is None


def test_the_spread_of_an_average_is_over_the_seeds_own_averages() -> None:
    even = {"a": {1: (80.0, 20.0), 2: (70.0, 20.0)}, "b": {1: (40.0, 60.0), 2: (30.0, 60.0)}}
    average = grid(plain=even).average(PLAIN)
    assert average["base"].mean == 55
    assert average["base"].std == pytest.approx(stdev([60, 50]))
    assert average["new"].std == 0
    uneven = grid(plain={**even, "b": {1: (40.0, 60.0)}}).average(PLAIN)
    assert uneven["base"].std is None, "the data sets have other seeds"
    assert uneven["base"].mean == (75 + 40) / 2


def test_means_are_compared_over_what_all_have() -> None:
    one = (1.0, 1.0)
    scores = grid(
        plain={"a": {1: one, 2: one}, "b": {1: one}, "c": {1: one}},
        mao={"a": {2: one, 3: one}, "b": {1: one}, "c": {1: one}},
    )
    rows, cells = scores.compared
    assert rows == [ZEROSHOT, PLAIN, MAO]
    assert cells == {"a": [2], "b": [1], "c": [1]}


def test_a_row_that_has_hardly_begun_does_not_take_the_others_down() -> None:
    sets = {name: {1: (1.0, 1.0)} for name in "abcdef"}
    rows, cells = grid(plain=sets, step_matched=sets, mao={"a": {1: (1.0, 1.0)}}).compared
    assert rows == [ZEROSHOT, PLAIN, STEP]
    assert [*cells] == [*"abcdef"]


def test_a_data_set_that_one_row_lacks_is_not_averaged_by_any() -> None:
    sets = {name: {1: (1.0, 1.0)} for name in "abcdef"}
    rows, cells = grid(plain=sets, step_matched=sets, mao={n: s for n, s in sets.items() if n != "f"}).compared
    assert rows == [ZEROSHOT, PLAIN, STEP, MAO]
    assert [*cells] == [*"abcde"]
    assert scores_of([]).compared == ([], {})


def test_the_verdict_compares_with_zeroshot_plain_and_the_control() -> None:
    heights = {"plain": 60.0, "step-matched": 66.0, "mao": 65.0}
    runs = [result(method, 1, dict.fromkeys(ZERO, h)) for method, h in heights.items()]
    runs.append(result("mao", 1, dict.fromkeys(ZERO, 65.0), learner="vpt"))
    coop, vpt = verdicts(scores_of(runs))
    for part in ("H 65.00", "+15.00 against zero-shot", "+5.00 against plain coop", "-1.00 against the step-matched"):
        assert part in coop
    assert "1 seed: no spread" in coop
    assert "+15.00 against zero-shot" in vpt
    assert "plain" not in vpt, "there is no plain run of that learner"


def test_runs_that_scored_nothing_have_no_verdict() -> None:
    assert verdicts(scores_of([result("mao", 1, {}, {})])) == []


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["icons-a", "icons-b"], ["a", "b"]),
        (["icons-a"], ["icons-a"]),
        (["icons-a", "dtd"], ["icons-a", "dtd"]),
        ([], []),
    ],
)
def test_names_lose_what_they_have_in_common(names: list[str], short: list[str]) -> None:
    assert [*short_names(names).values()] == short
