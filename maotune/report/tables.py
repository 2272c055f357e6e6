"""The tables of the paper, from the runs of an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from maotune.mao.methods import ZEROSHOT
from maotune.report.document import Cell, Group, Line, Table
from maotune.report.study import Study, short_names
from maotune.report.summary import MEASURES, Series, Spread
from maotune.report.verdict import signed
from maotune.runs.inference import Inference
from maotune.runs.result import Result

HEADINGS = {"base": "Base", "new": "New", "h": "H", "average": "Average", "all": "All", "test": "Test", "val": "Val"}
NOTHING = "–"


def averages(study: Study) -> Table | None:
    """Averages over the data sets that all rows have, and the change of what counts from the learner's first row."""
    if not study.cells or study.measure is None:
        return None
    tests, measure = tests_of(study, next(iter(study.cells))), study.measure
    first: dict[str, float] = {}
    body = []
    for one in study.averaged:
        average = one.average(study.cells)
        start = first.setdefault(one.learner.removesuffix("+dept"), average[measure].mean)
        change = average[measure].mean - start
        body.append([*(_accuracy(average[test]) for test in tests), Cell(signed(change) if change else "")])
    marked = _best(_lines(study, study.averaged, body), len(tests))
    return Table(
        f"{study.name}-averages",
        f"Accuracy in percent, {_over(study)}.",
        labels_of(study),
        (Group("", (*(HEADINGS.get(test, test) for test in tests), f"Δ {HEADINGS[measure]}")),),
        marked,
        (f"Δ: change of {MEASURES[measure]} from the learner's first row. {_seeds(study)}",),
    )


def results(study: Study) -> Table:
    """All accuracies, as the paper's Tables 1 and 2 stand: a row for each method, and for each data set its tests."""
    names = short_names(study.datasets)
    tests = {name: tests_of(study, name) for name in study.datasets}
    several = len(study.datasets) > 1 and bool(study.cells)
    title = "Average" if len(study.cells) == len(study.datasets) else f"Average of {len(study.cells)}"
    groups = [Group(title, tests[study.datasets[0]])] if several else []
    groups += [Group(names[name], tests[name]) for name in study.datasets]
    body = []
    for one in study.series:
        average = one.average(study.cells) if one in study.averaged else {}
        scores: list[Spread | None] = [average.get(test) for test in groups[0].columns] if several else []
        for name in study.datasets:
            row = one.rows.get(name)
            scores += [row.scores.get(test) if row else None for test in tests[name]]
        body.append([_accuracy(score) for score in scores])
    notes = ["Mean ± standard deviation over seeds; the best of each column is bold."]
    if study.measure == "h":
        notes.append(f"H of the average is that of the two average accuracies. {_scored_with(study)}")
    if left := [names[name] for name in study.datasets if name not in study.cells]:
        notes.append(f"Not in the average, because not all of its rows have them: {', '.join(left)}.")
    return Table(
        f"{study.name}-results",
        "Accuracy in percent by data set.",
        labels_of(study),
        tuple(replace(group, columns=tuple(HEADINGS.get(test, test) for test in group.columns)) for group in groups),
        _best(_lines(study, study.series, body)),
        tuple(notes),
    )


def stages(study: Study) -> Table | None:
    """What the prompts of each stage score on both halves: what the new stage does to the base classes."""
    if study.measure != "h":
        return None
    lines: list[Line] = []
    for one in study.averaged:
        runs = averaged_results(study, one)
        names = dict.fromkeys(stage["name"] for result in runs for stage in result.stages)
        for name in names:
            scores: dict[str, list[Mapping[str, float]]] = {}
            for result in runs:
                scores.setdefault(result.dataset, []).extend(s["accuracy"] for s in result.stages if s["name"] == name)
            means = [
                fmean(fmean(table[test] for table in of) for of in scores.values() if of) for test in ("base", "new")
            ]
            used = sorted({test for result in runs for test, stage in result.scored_with.items() if stage == name})
            cells = (*(Cell(f"{mean:.2f}") for mean in means), Cell(", ".join(used) or NOTHING))
            other = bool(lines) and lines[-1].labels[0] != one.learner
            lines.append(Line((*label_of(study, one), name), cells, other))
    if not any(line.labels[-1] == "new" for line in lines):
        return None
    return Table(
        f"{study.name}-stages",
        f"Accuracy in percent of the prompts as each stage left them, {_over(study)}.",
        (*labels_of(study), "prompts of stage"),
        (Group("", ("Base", "New", "scores")),),
        tuple(lines),
        ("The last column says what these prompts score in the tables above.",),
    )


def cost(study: Study) -> Table | None:
    """What each method costs, as the paper's Table 3; images per second where they were measured."""
    if study.measure is None:
        return None
    tuned = [one for one in study.averaged if one.method != ZEROSHOT]
    speeds = {id(one): _images_per_second(study, one) for one in tuned}
    body = []
    for one in tuned:
        runs = averaged_results(study, one)
        seconds = [sum(stage["seconds"] for stage in result.stages) for result in runs]
        epochs = [max(1, sum(len(stage["losses"]) for stage in result.stages)) for result in runs]
        figures = (
            f"{fmean(result.parameters for result in runs):,.0f}",
            f"{fmean(sum(stage['updates'] for stage in result.stages) for result in runs):,.0f}",
            f"{fmean(sum(stage['images'] for stage in result.stages) for result in runs):,.0f}",
            f"{fmean(seconds):.1f}",
            f"{fmean(spent / count for spent, count in zip(seconds, epochs, strict=True)):.2f}",
            f"{max(result.peak_memory for result in runs) / 1e6:,.0f}",
            f"{one.average(study.cells)[study.measure].mean:.2f}",
        )
        speed = [f"{speeds[id(one)]:,.0f}" if speeds[id(one)] else NOTHING] if any(speeds.values()) else []
        body.append([*map(Cell, (*figures, *speed))])
    if not body:
        return None
    speed = ["classified / s"] if any(speeds.values()) else []
    columns = ("parameters", "updates", "images", "seconds", "s / epoch", "peak MB", HEADINGS[study.measure], *speed)
    return Table(
        f"{study.name}-cost",
        f"What tuning costs, {_over(study)}.",
        labels_of(study),
        (Group("", columns),),
        tuple(_lines(study, tuned, body)),
        (
            "Seconds are of tuning alone, without reading images and scoring, as measured while the sweep ran: trials "
            "that share a machine slow each other down. Peak MB: the most of any of the runs.",
        ),
    )


def _images_per_second(study: Study, one: Series) -> float | None:
    measured = [Inference.find(run.trial.folder) for run in study.of(one)]
    speeds = [inference.images_per_second for inference in measured if inference]
    return fmean(speeds) if speeds else None


def tests_of(study: Study, dataset: str) -> tuple[str, ...]:
    """What the runs on a data set are scored on, and the means of it."""
    return tuple(dict.fromkeys(test for row in study.rows if row.dataset == dataset for test in row.scores))


def averaged_results(study: Study, one: Series) -> list[Result]:
    """The results of a series that its averages are over."""
    results = [run.result for run in study.of(one)]
    return [result for result in results if result.seed in study.cells.get(result.dataset, ())]


def _over(study: Study) -> str:
    count = len(study.cells)
    return f"averages over {count} data sets" if count > 1 else next(iter(study.cells), "")


def labels_of(study: Study) -> tuple[str, ...]:
    """Headings of the columns that say what a row is."""
    return ("learner", "method", *(["variant"] if any(one.variant for one in study.series) else []))


def label_of(study: Study, one: Series) -> tuple[str, ...]:
    """What these columns say of a series."""
    return (one.learner or "CLIP", one.method, one.variant)[: len(labels_of(study))]


def _lines(study: Study, every: Sequence[Series], body: Sequence[Sequence[Cell]]) -> list[Line]:
    """With a rule wherever another learner begins."""
    before = [None, *(one.learner for one in every)]
    return [
        Line(label_of(study, one), tuple(cells), learner not in (None, one.learner))
        for one, cells, learner in zip(every, body, before, strict=False)
    ]


def _accuracy(score: Spread | None) -> Cell:
    if score is None:
        return Cell(NOTHING)
    return Cell(f"{score.mean:.2f}", "" if score.std is None else f"{score.std:.2f}")


def _best(lines: Sequence[Line], columns: int | None = None) -> tuple[Line, ...]:
    """The highest number of each of the first columns marked, all of equal ones; a single row has no best."""
    if len(lines) < 2:
        return tuple(lines)
    highest = [max(map(_number, column)) for column in zip(*(line.cells[:columns] for line in lines), strict=True)]
    return tuple(
        replace(
            line,
            cells=tuple(
                replace(cell, best=place < len(highest) and _number(cell) == highest[place] >= 0)
                for place, cell in enumerate(line.cells)
            ),
        )
        for line in lines
    )


def _number(cell: Cell) -> float:
    return -1.0 if cell.text == NOTHING else float(cell.text)


def _seeds(study: Study) -> str:
    seeds = sorted({seed for of_set in study.cells.values() for seed in of_set})
    return f"Seeds: {', '.join(map(str, seeds))}." if len(seeds) > 1 else f"One seed ({seeds[0]}): no spread is known."


def _scored_with(study: Study) -> str:
    """Which prompts scored what, in a sentence."""
    by_use: dict[str, list[str]] = {}
    for run in study.runs:
        if run.result.method != ZEROSHOT:
            used = {test: f"prompts of stage {stage}" for test, stage in run.result.scored_with.items()}
            same = len(set(used.values())) == 1
            said = (
                f"by the {next(iter(used.values()))}" if same else ", ".join(f"{t} by the {u}" for t, u in used.items())
            )
            methods = by_use.setdefault(said, [])
            methods += [run.result.method] if run.result.method not in methods else []
    return " ".join(f"{', '.join(methods)}: scored {said}." for said, methods in by_use.items())
