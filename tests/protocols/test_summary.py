"""Means, spreads and verdicts over runs."""

from statistics import stdev
from typing import Any

import pytest

from maotune.report.summary import summarise, verdicts
from maotune.runs.result import Result


def result(method: str, seed: int, scores: dict[str, float], zeroshot: dict[str, float], **more: Any) -> Result:
    stages = [{"name": "plain", "updates": 10 * seed, "seconds": 1.0}, {"name": "new", "updates": 2, "seconds": 0.5}]
    given: dict[str, Any] = {
        "dataset": "toy", "protocol": "base-to-new", "learner": "coop", "method": method, "seed": seed, "shots": 4,
        "scores": scores, "scored_with": {}, "zeroshot": zeroshot, "stages": stages, "pseudo_labels": None,
        "skipped": [], "templates": [], "parameters": 1, "peak_memory": 1, "seconds": 1.0, "environment": {},
        "recipe": {},
    }  # fmt: skip
    return Result(**given | more)


ZERO = {"base": 50.0, "new": 50.0, "h": 50.0}


def two_seeds(method: str) -> list[Result]:
    tables = [{"base": 90.0, "new": 30.0, "h": 45.0}, {"base": 70.0, "new": 60.0, "h": 64.615}]
    return [result(method, seed, table, ZERO) for seed, table in enumerate(tables, 1)]


def test_h_is_that_of_the_means_and_not_the_mean_of_h() -> None:
    zeroshot, plain = summarise(two_seeds("plain"))
    assert (zeroshot.method, plain.method) == ("zeroshot", "plain")
    assert plain.seeds == (1, 2)
    assert plain.scores["base"].mean == 80
    assert plain.scores["new"].mean == 45
    assert plain.scores["h"].mean == pytest.approx(2 * 80 * 45 / 125)
    assert plain.scores["h"].mean != pytest.approx((45 + 64.615) / 2, abs=1)
    assert plain.scores["base"].std == pytest.approx(stdev([90, 70]))
    assert str(plain.scores["base"]) == "80.00 ± 14.14"
    assert plain.updates == (12 + 22) / 2
    assert plain.seconds == 1.5


def test_zeroshot_has_no_spread_over_seeds_that_it_does_not_know() -> None:
    zeroshot, *_ = summarise([*two_seeds("plain"), *two_seeds("mao")])
    assert zeroshot.scores["base"].mean == 50
    assert zeroshot.scores["base"].std is None
    assert str(zeroshot.scores["h"]) == "50.00"


def test_rows_keep_the_order_of_the_runs() -> None:
    runs = [
        result("plain", 1, ZERO, ZERO, dataset=name, learner=of) for name in ("zoo", "art") for of in ("vpt", "coop")
    ]
    found = [(row.dataset, row.learner) for row in summarise(runs)]
    assert found == [("zoo", ""), ("zoo", "vpt"), ("zoo", "coop"), ("art", ""), ("art", "vpt"), ("art", "coop")]


def test_the_verdict_compares_with_zeroshot_plain_and_the_control() -> None:
    runs = [
        result("plain", 1, {"base": 60.0, "new": 60.0, "h": 60.0}, ZERO),
        result("step-matched", 1, {"base": 66.0, "new": 66.0, "h": 66.0}, ZERO),
        result("mao", 1, {"base": 65.0, "new": 65.0, "h": 65.0}, ZERO),
        result("mao", 1, {"base": 65.0, "new": 65.0, "h": 65.0}, ZERO, learner="vpt"),
    ]
    coop, vpt = verdicts(summarise(runs))
    for part in ("H 65.00", "+15.00 against zero-shot", "+5.00 against plain coop", "-1.00 against the step-matched"):
        assert part in coop
    assert "1 seed: no spread" in coop
    assert "+15.00 against zero-shot" in vpt
    assert "plain" not in vpt, "there is no plain run of that learner"


def test_runs_that_scored_nothing_have_no_verdict() -> None:
    assert verdicts(summarise([result("mao", 1, {}, {})])) == []
