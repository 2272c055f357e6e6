"""The experiments of the paper: which runs they are, and that every one of them runs."""

from pathlib import Path
from typing import Any

import pytest

from maotune.experiments.catalog import EXPERIMENTS, Experiment, Multiple, PlannedRun, Rows, plan_runs
from maotune.learners import LEARNERS
from maotune.mao.methods import METHODS
from maotune.recipe import RecipeError
from maotune.recipe.suites import SUITES, find_suite
from maotune.runs.tune import tune_recipe
from tests.toys import paint_photos, toy_clip

PAPER = {"Table 1", "Table 2", "Table 3", "Tables 4 and 8", "Table 5", "Table 7", *(f"Figure {n}" for n in range(3, 7))}


def planned(name: str, suite: str, **changes: Any) -> list[PlannedRun]:
    experiment, given = EXPERIMENTS[name], {"seeds": [1], **changes}
    if suite == "coop-11":
        given["settings"] = {"clip.source": "ViT-B/16", "data.root": "data", **given.get("settings", {})}
    return plan_runs(experiment, experiment.sets(suite, find_suite(suite)), **given)


def test_every_table_and_figure_with_results_has_an_experiment() -> None:
    assert {experiment.counterpart for experiment in EXPERIMENTS.values()} >= PAPER
    for experiment in EXPERIMENTS.values():
        for rows in experiment.rows:
            assert set(rows.learners) <= set(LEARNERS)
            assert set(rows.methods) <= set(METHODS)
        assert set(experiment.sources) in (set(), {"icons-11", "coop-11"}), "named for both suites, or for none"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_runs_of_an_experiment(name: str, suite: str) -> None:
    runs = planned(name, suite)
    assert len({one.recipe.slug for one in runs}) == len(runs), "no run is there twice"
    assert {one.recipe.protocol for one in runs} == {EXPERIMENTS[name].protocol}
    sources = EXPERIMENTS[name].sources.get(suite, SUITES[suite])
    assert {one.recipe.data.source for one in runs} == set(sources)
    assert all((one.variant, one.recipe.method) == ("", "zeroshot") for one in runs if one.recipe.method == "zeroshot")
    of_zeroshot = [one.recipe.data.source for one in runs if one.recipe.method == "zeroshot"]
    assert len(of_zeroshot) == len(set(of_zeroshot)), "zero-shot CLIP is scored once"
    three = planned(name, suite, seeds=[1, 2, 3])
    assert len(three) == 3 * len(runs) - 2 * len(of_zeroshot)
    assert [one.recipe.slug for one in three[: len(runs)]] == [one.recipe.slug for one in runs], "seed 1 first"


def test_the_settings_of_a_protocol_do_not_hold_against_the_user() -> None:
    (first, *_) = planned("cross-dataset", "icons-11", methods=["mao"])
    assert (first.recipe.epochs, first.recipe.lr, first.recipe.mao.lr) == (5, 0.0035, 0.0035), "Appendix B"
    assert first.recipe.data.source == "icons-generic"
    (first, *_) = planned("cross-dataset", "coop-11", methods=["mao"], settings={"epochs": 7})
    assert (first.recipe.epochs, first.recipe.data.shots) == (7, 16)
    assert (first.recipe.data.source, first.recipe.learner_name) == ("imagenet", "coop")
    assert planned("base-to-new", "icons-11")[0].recipe.epochs == 20
    assert planned("base-to-new", "coop-11")[0].recipe.epochs == 20


def test_a_variant_changes_what_it_says_and_can_say_so_relative_to_the_rest() -> None:
    twice = [one for one in planned("ablations", "coop-11") if one.variant == "2x epochs"]
    assert {(one.recipe.epochs, one.recipe.method) for one in twice} == {(40, "plain")}
    mine = Experiment(
        summary="",
        counterpart="",
        rows=(Rows(learners=("coop",), methods=("plain",), variants={"x3": {"lr": Multiple(3)}}),),
    )
    (one,) = plan_runs(mine, ["icons-food"], seeds=[1], settings={"lr": 0.1})
    assert one.recipe.lr == pytest.approx(0.3)
    sensitive = {one.variant: one.recipe for one in planned("sensitivity", "icons-11")}
    assert (sensitive["K=16"].mao.k, sensitive["K=16"].data.unlabelled_shots) == (16, None)
    assert (sensitive["S=32"].mao.k, sensitive["S=32"].data.unlabelled_shots) == (None, 32)
    assert {one.recipe.title for one in planned("plug-in", "icons-11") if one.variant == "dept"} == {
        "coop+dept", "maple+dept", "promptsrc+dept"
    }  # fmt: skip


def test_learners_and_methods_can_be_said() -> None:
    runs = planned("ablations", "icons-11", learners=["kgcoop"], methods=["plain"])
    assert {(one.variant, one.recipe.learner_name, one.recipe.method) for one in runs} == {
        ("", "kgcoop", "plain"), ("2x epochs", "kgcoop", "plain")
    }  # fmt: skip
    with pytest.raises(RecipeError, match="unknown learner 'copo'; did you mean coop"):
        planned("base-to-new", "icons-11", learners=["copo"])


SCORES = {
    "base-to-new": {"base", "new", "h"},
    "few-shot": {"all"},
    "cross-dataset": {"photos", "others", "average"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set, and another with a class that the first has not."""
    source = paint_photos(tmp_path_factory.mktemp("source"), train=4, val=1, test=2, heap=0)
    other = paint_photos(tmp_path_factory.mktemp("target"), train=1, val=1, test=1, heap=0)
    for split in ("train", "val", "test"):
        (other / split / "rain").rename(other / split / "flood")
    return source, other.rename(other.parent / "others")


@pytest.mark.parametrize("name", [name for name, one in EXPERIMENTS.items() if one.make_figure is None])
def test_every_run_of_an_experiment_runs(name: str, folders: tuple[Path, Path]) -> None:
    source, target = folders
    small = {"epochs": 2, "data.shots": 1, "data.views": 1, "data.bank": False, "data.targets": [str(target)]}
    learners = ({"distillation": "promptkd", "hicropl": "hicropl"}.get(name, "coop"),)
    methods = ("distill",) if name == "distillation" else ()
    runs = plan_runs(EXPERIMENTS[name], [str(source)], seeds=[1], settings=small, learners=learners, methods=methods)
    for one in runs:
        result = tune_recipe(one.recipe, clip=toy_clip(), estimates=False).result
        assert set(result.scores) == SCORES[EXPERIMENTS[name].protocol], one
        assert set(result.scored_with) == set(result.scores) - {"h", "average"}
        stages = [stage["name"] for stage in result.stages]
        if EXPERIMENTS[name].protocol != "base-to-new" and one.recipe.method == "mao":
            assert stages == ["base"], "without new classes MAO is its base stage"
            assert set(result.scored_with.values()) == {"base"}
        if name == "distillation":
            assert stages == ["distill"]
            assert result.stages[0]["images"] == 2 * 4, "one image of each of the four classes an epoch"
