"""What is said at the top of a report, for every sign."""

from pathlib import Path

import pytest

from maotune.recipe import Recipe
from maotune.report import sentences, tables
from maotune.report.compare import compare_mao
from maotune.report.frame import ExperimentRuns, FinishedTrial
from maotune.runs.result import Result
from maotune.sweep.manifest import Trial

SETS = ("a", "b", "c", "d")


def run(dataset: str, method: str, h: float, learner: str = "coop", seed: int = 1) -> FinishedTrial:
    zeroshot = {"base": 50.0, "new": 50.0, "h": 50.0}
    scores = {"base": h, "new": h, "h": h}
    result = Result(
        dataset=dataset, protocol="base-to-new", learner=learner, method=method, seed=seed, shots=1, scores=scores,
        scored_with={}, zeroshot=zeroshot, stages=[], pseudo_labels=None, skipped=[], templates=[], parameters=1,
        peak_memory=1, seconds=1.0, environment={}, recipe={},
    )  # fmt: skip
    return FinishedTrial(Trial(Path(f"{dataset}-{learner}-{method}-{seed}"), "base-to-new", "", Recipe()), result)


def study(sets: tuple[str, ...] = SETS, **h: float) -> ExperimentRuns:
    """Methods (``mao``, ``plain``, ``step_matched``) with their H; the data sets differ a little."""
    runs = [
        run(name, method.replace("_", "-"), value + 0.1 * number * (method == "mao"))
        for method, value in h.items()
        for number, name in enumerate(sets)
    ]
    return ExperimentRuns("base-to-new", runs)


def answer(of: ExperimentRuns) -> str:
    return sentences.answer(of, compare_mao(of))


def test_a_loss_is_called_a_loss() -> None:
    of = study(mao=48.0, plain=40.0, step_matched=47.0)
    assert (
        answer(of)
        == "MAO raises H against plain tuning and the step-matched control; it lowers H against zero-shot CLIP."
    )
    sentence = sentences.evidence(of, compare_mao(of))[0]
    assert sentence.startswith(
        "With coop, MAO gains 8.15 points of H against plain tuning (95\N{NO-BREAK SPACE}% interval +7.94 to +8.36;"
    )
    assert "better on 4 of 4 data sets), gains 1.15 against the step-matched control" in sentence
    assert "and loses 1.85 against zero-shot CLIP" in sentence
    assert "better on 0 of 4 data sets)." in sentence


def test_what_is_around_zero_may_be_chance() -> None:
    of = study(mao=49.85)
    assert answer(of).startswith(
        "MAO makes no clear difference against zero-shot CLIP. There is no finished run to compare"
    )
    assert "plain tuning or the step-matched control." in answer(of)
    assert "gains 0.00 points" in sentences.evidence(of, compare_mao(of))[0]
    assert "may be chance" in sentences.evidence(of, compare_mao(of))[0]


@pytest.mark.parametrize("sets", [("a",), ("a", "b")])
def test_few_pairs_say_nothing(sets: tuple[str, ...]) -> None:
    of = study(sets, mao=90.0, plain=10.0)
    assert "MAO cannot be judged (too few data sets and seeds) against plain tuning and zero-shot CLIP." in answer(of)
    assert "nothing can be said of how sure this is" in sentences.evidence(of, compare_mao(of))[0]
    table = tables.differences(of, compare_mao(of))
    assert [cells[1] for _, cells in table.rows] == ["–", "–"]


def test_learners_that_disagree_are_named() -> None:
    runs = [*study(mao=60.0, plain=55.0).finished]
    runs += [run(name, "mao", 40.0 + 0.1 * n, "vpt") for n, name in enumerate(SETS)]
    runs += [run(name, "plain", 55.0, "vpt") for name in SETS]
    of = ExperimentRuns("base-to-new", runs)
    assert answer(of).startswith(
        "MAO raises H with coop and lowers H with vpt against plain tuning and zero-shot CLIP."
    )


def test_without_mao_there_is_no_verdict() -> None:
    of = study(plain=50.0)
    assert "cannot be judged" in answer(of)
    assert not tables.differences(of, [])


def test_numbers_have_a_sign_unless_they_are_nothing() -> None:
    assert [sentences.signed(x) for x in (1.234, -1.234, 0.001, -0.001)] == ["+1.23", "−1.23", "0.00", "0.00"]
