"""The tables, from runs whose numbers are known."""

from dataclasses import replace

from maotune.report import tables
from maotune.report.content import ReportTable
from maotune.report.frame import ExperimentRuns, FinishedTrial
from maotune.runs.result import StageResult
from tests.report.conftest import Reported
from tests.report.test_sentences import run


def tuned(dataset: str, method: str, base: float, new: float, seed: int = 1) -> FinishedTrial:
    one = run(dataset, method, 0.0, seed=seed)
    scores = {"base": base, "new": new, "h": 2 * base * new / (base + new)}
    stages = [{"name": "plain", "updates": 5, "images": 160, "seconds": 2.0, "losses": [{}, {}], "accuracy": scores}]
    by = {"base": "plain", "new": "plain"}
    return replace(one, result=replace(one.result, scores=scores, stages=stages, scored_with=by))


def cells(table: ReportTable) -> dict[tuple[str, ...], list[str]]:
    """Labels -> cells without their spread; the best of a column has a star."""
    return {
        tuple(labels): [f"{'*' * cell.best}{cell.mean}" for cell in line]
        for (labels, _), line in zip(table.rows, table.cells, strict=True)
    }


def test_the_layout_of_table_1() -> None:
    runs = [tuned("icons-a", "plain", 80, 20), tuned("icons-b", "plain", 40, 60)]
    runs += [tuned("icons-a", "mao", 70, 70), tuned("icons-b", "mao", 50, 30)]
    study = ExperimentRuns("base-to-new", runs)
    table = tables.results(study)
    three = ("Base", "New", "H")
    assert [*zip(table.groups, table.titles, strict=True)] == [
        *(("Average", title) for title in (*three, "Δ H")),
        *((group, title) for group in ("published", "a", "b") for title in three),
    ]
    shown = {labels: [*row[:3], *row[7:]] for labels, row in cells(table).items()}
    assert shown == {
        ("CLIP", "zero-shot"): ["50.00", "*50.00", "50.00", "50.00", "50.00", "50.00", "*50.00", "50.00", "*50.00"],
        ("CoOp", "plain"): ["*60.00", "40.00", "48.00", "*80.00", "20.00", "32.00", "40.00", "*60.00", "48.00"],
        ("CoOp", "two prompts"): ["*60.00", "*50.00", "*54.55", "*80.00", "50.00", "61.54", "40.00", "50.00", "44.44"],
        ("CoOp", "MAO"): ["*60.00", "*50.00", "*54.55", "70.00", "*70.00", "*70.00", "*50.00", "30.00", "37.50"],
    }
    assert table.blocks(7) == [
        [("Average", [0, 1, 2, 3]), ("published", [4, 5, 6])],
        [("a", [7, 8, 9]), ("b", [10, 11, 12])],
    ]


def test_changes_count_from_the_first_row_of_the_learner() -> None:
    runs = [tuned("a", "plain", 50, 50, 1), tuned("a", "plain", 60, 60, 2)]
    runs += [tuned("a", "mao", 70, 70, 1), tuned("a", "mao", 80, 80, 2)]
    found = tables.results(ExperimentRuns("base-to-new", runs))
    assert cells(found)["CoOp", "MAO"][: found.lead] == ["*75.00", "*75.00", "*75.00", "+20.00"]
    assert cells(found)["CoOp", "plain"][found.lead - 1] == ""
    assert [*found.rows[-1][1]][: found.lead] == ["75.00 ± 7.07"] * 3 + ["+20.00"]


def test_what_a_row_lacks_is_a_dash_and_not_averaged() -> None:
    runs = [tuned(name, method, 50, 50) for name in "abc" for method in ("plain", "step-matched")]
    table = tables.results(ExperimentRuns("base-to-new", [*runs, tuned("a", "mao", 90, 90)]))
    row = cells(table)["CoOp", "MAO"]
    assert row[: table.lead] == ["–"] * 4
    assert row[-9:] == ["*90.00"] * 3 + ["–"] * 6


def test_published_numbers_of_the_same_data_set_stand_beside_ours() -> None:
    runs = [tuned("flowers102", "plain", 97.96, 68.37, 1), tuned("flowers102", "plain", 95.96, 68.37, 2)]
    found = cells(tables.published(ExperimentRuns("base-to-new", runs)))
    assert found["flowers102", "CoOp", "plain", "Base"] == ["96.96", "96.96", "0.00", "yes"]
    assert found["flowers102", "CoOp", "plain", "New"] == ["68.37", "68.37", "0.00", "yes"]
    single = cells(tables.published(ExperimentRuns("base-to-new", [tuned("flowers102", "mao", 90, 60)])))
    assert single["flowers102", "CoOp", "MAO", "Base"] == ["90.00", "96.77", "−6.77", "unknown"]


def test_elsewhere_the_papers_average_is_for_orientation_only() -> None:
    table = tables.results(ExperimentRuns("base-to-new", [tuned("icons-a", "plain", 80, 20)]))
    assert any("orientation only: other model" in note for note in table.notes)
    assert [*table.groups] == ["icons-a"] * 4 + ["published"] * 3
    assert cells(table)["CoOp", "plain"] == ["*80.00", "20.00", "32.00", "", "81.98", "68.84", "74.84"]


def test_stages_and_cost(hostile: Reported) -> None:
    (study,) = hostile.experiments
    after = cells(tables.stages(study))
    assert after["CoOp", "MAO", "base"][-1] == "base"
    assert after["CoOp", "MAO", "new"][-1] == "new"
    assert after["CoOp", "plain", "plain"][-1] == "base, new"
    row = cells(tables.cost(study))["CoOp", "MAO"]
    assert row[:7] == ["2,048", "20", "640", "4.0", "0.67", "1.00", "100"]


def test_a_row_of_the_cost_takes_a_whole_run() -> None:
    row = cells(tables.cost(ExperimentRuns("base-to-new", [tuned("a", "plain", 50, 50)])))["CoOp", "plain"]
    assert row == ["1", "5", "160", "2.0", "1.00", "0", "50.00"]


def test_the_cost_stands_beside_that_of_table_3() -> None:
    runs = [tuned("a", "plain", 50, 50), tuned("a", "mao", 50, 50)]
    runs = [replace(run, trial=replace(run.trial, variant="16 tokens")) for run in runs]
    table = tables.cost(ExperimentRuns("cost", runs))
    shown = dict(
        zip(zip(table.groups, table.titles, strict=True), cells(table)["CoOp", "plain", "16 tokens"], strict=True)
    )
    assert (shown["here", "s / epoch"], shown["published", "s / epoch"]) == ("1.00", "22.00")
    assert (shown["here", "× MAO"], shown["published", "× MAO"]) == ("1.00", "0.69")
    assert (shown["published", "peak MB"], shown["published", "H"]) == ("1,104", "80.19")
    assert set(tables.cost(ExperimentRuns("base-to-new", runs)).groups) == set()


def test_the_control_of_two_prompts_stands_beside_the_published_numbers() -> None:
    """CoOp tuned twice as long on base classes (82.69), zero-shot CLIP on new ones (74.22): H 78.23, MAO's is 78.08."""
    runs = [tuned("icons-a", "plain", 80, 20), tuned("icons-a", "mao", 80, 20)]
    longer = tuned("icons-a", "plain", 80, 20)
    runs.append(replace(longer, trial=replace(longer.trial, variant="2x epochs")))
    found = cells(tables.results(ExperimentRuns("ablations", runs)))
    assert found["CoOp", "two prompts", "2x epochs"][-3:] == ["82.69", "74.22", "78.23"]
    assert found["CoOp", "MAO", ""][-3:] == ["82.48", "74.12", "78.08"]


def test_one_set_of_prompts_is_that_of_the_last_stage() -> None:
    one = tuned("a", "mao", 80, 60)
    last: StageResult = {**one.result.stages[0], "name": "new", "accuracy": {"base": 70.0, "new": 60.0, "h": 64.62}}
    by = {"base": "plain", "new": "new"}
    run_of_two = replace(one, result=replace(one.result, stages=[one.result.stages[0], last], scored_with=by))
    table = tables.results(ExperimentRuns("base-to-new", [run_of_two]))
    assert cells(table)["CoOp", "MAO"][:2] == ["*80.00", "*60.00"]
    assert cells(table)["CoOp", "one set"][:2] == ["70.00", "*60.00"]


def test_what_is_within_noise_of_the_best_is_marked_with_it() -> None:
    """Two standard deviations of 1.41 make a noise of 2."""

    def shown(lead: float) -> list[str]:
        bases = {"plain": 60.0, "mao": 60 + lead}
        runs = [tuned("a", method, base + seed, 50, seed) for method, base in bases.items() for seed in (0, 2)]
        table = cells(tables.results(ExperimentRuns("base-to-new", runs)))
        return [table["CoOp", method][0] for method in ("plain", "MAO")]

    assert shown(1.9) == ["*61.00", "*62.90"]
    assert shown(2.1) == ["61.00", "*63.10"]


def test_other_measures_stand_beside_each_other(hostile: Reported) -> None:
    (study,) = hostile.experiments
    table = tables.other_measures(study)
    assert [*zip(table.groups, table.titles, strict=True)] == [
        *(("mean over classes", title) for title in ("Base", "New", "H")),
        *(("all classes in one list", title) for title in ("Base", "New", "H", "OpenworldAUC")),
    ]
    shown = cells(table)
    assert {("CLIP", "zero-shot"), ("CoOp", "MAO"), ("CoOp", "one set"), ("CoOp", "two prompts")} <= shown.keys()
    for row in shown.values():
        own, joint = (float(row[place].lstrip("*")) for place in (2, 5))
        assert joint <= own, "images have as many test images per class here, and more classes to be taken for"
