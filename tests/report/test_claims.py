"""The claims of the paper: each can be looked up in the runs of an experiment and in the published numbers."""

from dataclasses import replace

import pytest

from maotune.experiments.catalog import EXPERIMENTS, plan_runs
from maotune.report.claims import COSTS, claims_report, judge_claims, read_claims
from maotune.report.frame import CONTROLS, ExperimentRuns
from tests.report.test_sentences import run


def test_every_claim_is_on_rows_of_its_experiment() -> None:
    for name in {claim.experiment for claim in read_claims()}:
        planned = plan_runs(EXPERIMENTS[name], ("icons-weather",), seeds=(1,))
        rows = {(one.recipe.title, one.recipe.method, one.variant) for one in planned}
        for claim in (claim for claim in read_claims() if claim.experiment == name):
            for key in (claim.row, claim.other):
                assert key[1] in (*CONTROLS, "zeroshot") or key in rows, f"{claim.text}: {key}"


def test_the_paper_has_the_differences_that_it_claims() -> None:
    """But for figures, whose numbers are not printed, and for controls."""
    for claim in read_claims():
        printed = claim.published
        if claim.source.startswith("Figure"):
            assert printed == "–"
        elif not claim.control:
            assert printed != "–", claim.text
            assert printed.startswith("+") or claim.measure in COSTS, f"{claim.text}: {printed}"


def judged(plain: float, mao: float, **more: float) -> dict[tuple[str, str, str], str | None]:
    values = {"plain": plain, "mao": mao, **more}
    runs = [run(name, method, value + 0.1 * n) for method, value in values.items() for n, name in enumerate("abcd")]
    claims = judge_claims([ExperimentRuns("base-to-new", runs)])
    return {(claim.text, claim.learner, claim.measure): claim.verdict for claim in claims}


@pytest.mark.parametrize(("mao", "verdict"), [(70.0, "higher"), (55.0, "lower")])
def test_what_held_and_what_did_not(mao: float, verdict: str) -> None:
    found = judged(60.0, mao)
    assert found["MAO raises H", "coop", "h"] == verdict
    assert found["MAO raises base accuracy", "coop", "base"] == verdict
    assert found["H is above zero-shot CLIP", "coop", "h"] == "higher"
    assert found["MAO raises H", "maple", "h"] is None, "no runs"
    assert found["hardly more time of tuning", "coop", "tuning_seconds"] is None


def test_nothing_is_judged_where_plain_tuning_does_not_gain() -> None:
    runs = [run(name, "plain", 50.0 + gain) for name, gain in zip("abc", (-1.0, 1.0, 0.5), strict=True)]
    runs += [run(name, "mao", 80.0 + n) for n, name in enumerate("abc")]
    claims = judge_claims([ExperimentRuns("base-to-new", runs)])
    assert {claim.verdict for claim in claims} == {None, "void"}


def test_costs_are_ratios() -> None:
    def tuned(method: str, seconds: float) -> object:
        one = run("a", method, 60.0)
        stages = [{"name": "x", "updates": 5, "images": 1, "seconds": seconds, "losses": [{}], "accuracy": {}}]
        return replace(one, trial=replace(one.trial, variant="16 tokens"), result=replace(one.result, stages=stages))

    runs = ExperimentRuns("cost", [tuned("plain", 4.0), tuned("mao", 5.0)])  # type: ignore[list-item]
    claims = {claim.text: claim for claim in judge_claims([runs])}
    slow, same = claims["hardly more time of tuning"], claims["hardly more updates"]
    assert (slow.ratio, slow.verdict) == (1.25, "lower")
    assert (same.ratio, same.verdict) == (1.0, "higher")


def test_the_page_says_what_held_and_leaves_out_what_no_run_speaks_of() -> None:
    values = {"plain": 60.0, "mao": 70.0}
    runs = [run(name, method, value + 0.1 * n) for method, value in values.items() for n, name in enumerate("abcd")]
    report = claims_report([ExperimentRuns("base-to-new", runs)], (), "x")
    assert report.answer == "Of 41 claims of the paper: 3 held; 38 without runs."
    (held,) = report.evidence
    assert held.startswith("Held: MAO raises H (Table 1: CoOp); MAO raises base accuracy (Table 1: CoOp)")
    assert "H is above two prompts without MAO (control, Table 1: CoOp)" in held
    shown = [labels for table in report.tables[:2] for labels, _ in table.rows]
    assert len(shown) == len(read_claims()), "the tables have all claims"
