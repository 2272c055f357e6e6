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
    of = study(mao=68.0, plain=60.0, step_matched=70.0)
    assert answer(of) == (
        "MAO raises H against plain tuning, zero-shot CLIP and two prompts without MAO; it lowers H against the "
        "step-matched control."
    )
    base, new, sentence = sentences.evidence(of, compare_mao(of))
    for half, name in ((base, "base"), (new, "new")):
        assert half == (
            f"MAO raises {name} accuracy against plain tuning and zero-shot CLIP; it lowers {name} accuracy against "
            "the step-matched control."
        )
    assert sentence.startswith(
        "With CoOp, MAO gains 8.15 points of H against plain tuning (95\N{NO-BREAK SPACE}% interval +7.94 to +8.36;"
    )
    assert "better on 4 of 4 data sets), loses 1.85 against the step-matched control" in sentence
    assert "better on 0 of 4 data sets), gains 18.15 against zero-shot CLIP" in sentence
    assert "Plain tuning over zero-shot CLIP: +10.00 points of base accuracy (" in sentence


def test_what_is_around_zero_may_be_chance() -> None:
    of = study(mao=49.85)
    assert answer(of).startswith(
        "MAO makes no clear difference in H against zero-shot CLIP. There is no finished run to compare"
    )
    assert "plain tuning or the step-matched control." in answer(of)
    sentence = sentences.evidence(of, compare_mao(of))[-1]
    assert "gains 0.00 points" in sentence
    assert "may be chance" in sentence


def test_without_a_gain_of_plain_tuning_there_is_no_verdict() -> None:
    of = study(mao=80.0, plain=50.0)
    assert answer(of) == (
        "Whether MAO helps cannot be told here: plain tuning does not clearly raise base accuracy over zero-shot CLIP. "
        "There is no finished run to compare it with the step-matched control."
    )
    (sentence,) = sentences.evidence(of, compare_mao(of))
    assert "gains 30.15 points of H against plain tuning" in sentence, "the numbers are said all the same"
    runs = [*of.finished, *(run(name, "plain", 60.0, "vpt") for name in SETS)]
    runs += [run(name, "mao", 70.0 + 0.1 * n, "vpt") for n, name in enumerate(SETS)]
    said = answer(ExperimentRuns("base-to-new", runs))
    assert said.startswith("MAO raises H against plain tuning, zero-shot CLIP and two prompts without MAO. Whether")
    assert "cannot be told here with CoOp: plain tuning" in said


@pytest.mark.parametrize("sets", [("a",), ("a", "b")])
def test_few_pairs_say_nothing(sets: tuple[str, ...]) -> None:
    of = study(sets, mao=90.0, plain=10.0)
    assert answer(of).startswith(
        "MAO cannot be judged (too few data sets and seeds) against plain tuning, zero-shot CLIP and two prompts"
    )
    assert "nothing can be said of how sure this is" in sentences.evidence(of, compare_mao(of))[0]
    table = tables.differences(of, compare_mao(of))
    assert {cell for _, cells in table.rows for cell in (*cells[1:3], cells[-1])} == {"–"}


def test_learners_that_disagree_are_named() -> None:
    runs = [*study(mao=60.0, plain=55.0).finished]
    runs += [run(name, "mao", 40.0 + 0.1 * n, "vpt") for n, name in enumerate(SETS)]
    runs += [run(name, "plain", 55.0, "vpt") for name in SETS]
    of = ExperimentRuns("base-to-new", runs)
    assert answer(of).startswith(
        "MAO raises H with CoOp and lowers H with VPT against plain tuning, zero-shot CLIP and two prompts without MAO."
    )


def test_without_mao_there_is_no_verdict() -> None:
    of = study(plain=50.0)
    assert "cannot be judged" in answer(of)
    assert not tables.differences(of, [])


def test_numbers_have_a_sign_unless_they_are_nothing() -> None:
    assert [sentences.signed(x) for x in (1.234, -1.234, 0.001, -0.001)] == ["+1.23", "−1.23", "0.00", "0.00"]
