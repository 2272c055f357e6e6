"""The tables of the paper, from the runs of an experiment; ours beside the published numbers."""

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from maotune.mao.methods import ZEROSHOT
from maotune.recipe.suites import SUITES
from maotune.report.compare import FEWEST, MaoComparison, pair
from maotune.report.content import ReportTable
from maotune.report.frame import CONTROLS, MEASURES, ExperimentRuns, Key, Scores, short_names
from maotune.report.names import TWO_PROMPTS, explain, learner_name, method_name
from maotune.report.published import PublishedNumber, look_up
from maotune.report.sentences import NOTHING, between, counted, probability, signed
from maotune.runs.inference import Inference

HEADINGS = {
    "base": "Base", "new": "New", "h": "H", "average": "Average", "all": "All", "test": "Test", "val": "Val",
    "openworld": "OpenworldAUC",
}  # fmt: skip
MEAN = "mean"
MARKED = (
    "Marked: the best of each column, and what is within noise of it (nearer than the root of the sum of the two "
    "squared standard deviations)."
)
COSTS = {
    "parameters": ",.0f", "updates": ",.0f", "images": ",.0f", "seconds": ".1f", "s / epoch": ".2f", "peak MB": ",.0f",
}  # fmt: skip
"""Column of costs -> format."""


def differences(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> ReportTable:
    """MAO minus its counterparts."""
    rows = []
    for each in comparisons:
        gap = each.difference
        counts = ("/".join(map(str, gap.counts)), str(len(gap.by_dataset)), str(gap.gaps.groupby(level=0).size().max()))
        certain = (between(gap.interval), between(gap.resampled), probability(each.corrected))
        rows.append(
            ((each.title, method_name(each.against), HEADINGS[each.measure]), (signed(gap.mean), *certain, *counts))
        )
    tested = sum(each.corrected is not None for each in comparisons)
    return ReportTable(
        f"{runs.name}-paired",
        "MAO minus its counterpart in percentage points, paired over data sets and seeds.",
        ("learner", "MAO against", "measure"),
        ("difference", "95 % interval", "resampled", "p", "+/−/=", "sets", "seeds"),
        rows,
        (
            "One definition for every measure: a run minus its counterpart with the same data set and seed (H is each "
            "run's own), mean over seeds, then over data sets.",
            "Interval (Student's t), p and counts are over data sets."
            if any(len(each.difference.by_dataset) > 1 for each in comparisons)
            else "One data set: interval, p and counts are over its seeds, and say nothing about other data.",
            "Resampled: 95 % of the means where data sets, and seeds within them, are drawn anew with replacement. "
            f"Below {FEWEST} there is no interval. p: of such a difference by chance, corrected by Holm's method for "
            f"{counted(tested, 'comparison')}; the intervals are not. +/−/=: on how many MAO is higher, lower, equal.",
        ),
    )


def averages(runs: ExperimentRuns) -> ReportTable:
    """Averages over the data sets that all rows have, and the change from the learner's first row."""
    scores = runs.scores
    keys, cells = scores.compared
    tests = tests_of(scores, next(iter(cells), ""))
    first: dict[str, Key] = {}
    rows = []
    for key in keys if cells else ():
        average = scores.average(key)
        change = pair(scores, key, first.setdefault(key[0].removesuffix("+dept"), key), scores.measure)
        moved = signed(change.mean) if change and key not in first.values() else ""
        rows.append((labels(scores, key), (*(str(average[test]) for test in tests), moved)))
    seeds = sorted({seed for of_set in cells.values() for seed in of_set})
    spread = (
        f"Seeds: {', '.join(map(str, seeds))}."
        if len(seeds) > 1
        else f"One seed ({next(iter(seeds), '')}): no spread is known."
    )
    return ReportTable(
        f"{runs.name}-averages",
        f"Accuracy in percent, {over(scores)}.",
        label_headings(scores),
        (*(HEADINGS.get(test, test) for test in tests), f"Δ {HEADINGS.get(scores.measure, '')}"),
        rows,
        (
            MARKED,
            f"Δ: paired difference of {MEASURES.get(scores.measure)} from the learner's first row. {spread}",
            explain(method for _, method, _ in keys),
        ),
        mark_best=len(tests),
    )


def results(runs: ExperimentRuns) -> ReportTable:
    """All accuracies, as in the paper's Tables 1 and 2: a row per method, and for each data set its tests."""
    scores = runs.scores
    compared, cells = scores.compared
    names = short_names(scores.datasets)
    columns = [(name, test) for name in scores.datasets for test in tests_of(scores, name)]
    if len(scores.datasets) > 1 and cells:
        names[MEAN] = "Average" if len(cells) == len(scores.datasets) else f"Average of {len(cells)}"
        columns = [(MEAN, test) for test in tests_of(scores, scores.datasets[0])] + columns
    rows = []
    for key in scores.keys:
        spreads = {name: scores.spreads.get((key, name), {}) for name in scores.datasets}
        spreads[MEAN] = scores.average(key) if MEAN in names and key in compared else {}
        rows.append((labels(scores, key), [str(spreads[name].get(test, NOTHING)) for name, test in columns]))
    notes = [f"Mean ± standard deviation over seeds. {MARKED}"]
    if scores.measure == "h":
        notes.append(f"H of the average is that of the two average accuracies. {_scored_with(runs)}")
    if without := [names[name] for name in scores.datasets if name not in cells]:
        notes.append(f"Not in the average, because not all of its rows have them: {', '.join(without)}.")
    return ReportTable(
        f"{runs.name}-results",
        "Accuracy in percent by data set.",
        label_headings(scores),
        [HEADINGS.get(test, test) for _, test in columns],
        rows,
        notes,
        [names[name] for name, _ in columns],
        mark_best=len(columns),
    )


def other_measures(runs: ExperimentRuns) -> ReportTable:
    """Averages of the same predictions by other measures."""
    columns = [
        (name, test)
        for name, scores in runs.rescored.items()
        for test in tests_of(scores, next(iter(scores.compared[1]), ""))
    ]
    averages = {
        (name, key): scores.average(key) for name, scores in runs.rescored.items() for key in scores.compared[0]
    }
    keys = [key for key in runs.scores.keys if any((name, key) in averages for name in runs.rescored)]
    return ReportTable(
        f"{runs.name}-other-measures",
        f"The same predictions by other measures, in percent, {over(runs.scores)}.",
        label_headings(runs.scores),
        [HEADINGS[test] for _, test in columns],
        [
            (
                labels(runs.scores, key),
                [str(averages.get((name, key), {}).get(test, NOTHING)) for name, test in columns],
            )
            for key in keys
        ],
        (
            "Mean over classes: each class counts alike. All classes in one list: base and new classes are scored "
            "together, each half with the scores that its own prompts give it. OpenworldAUC: share of pairs of a base "
            "and a new image where both are right among their own half and the base image is the more base-like.",
        ),
        [name for name, _ in columns],
        mark_best=len(columns),
    )


def stages(runs: ExperimentRuns) -> ReportTable:
    """Accuracy of the prompts of each stage on both halves: what the new stage does to the base classes."""
    scores = runs.scores
    records = [
        (labels(scores, key), stage["name"], run.result.dataset, stage["accuracy"]["base"], stage["accuracy"]["new"])
        for key in (scores.compared[0] if scores.measure == "h" else ())
        for run in runs.of(key)
        for stage in run.result.stages
    ]
    used = {
        (labels(scores, run.key), stage, test)
        for run in runs.finished
        for test, stage in run.result.scored_with.items()
    }
    table = pd.DataFrame(records, columns=["labels", "stage", "dataset", "base", "new"])
    by_set = table.groupby(["labels", "stage", "dataset"], sort=False).mean()
    rows = []
    for (names, stage), means in by_set.groupby(level=["labels", "stage"], sort=False).mean().iterrows():
        scored = ", ".join(test for test in ("base", "new") if (names, stage, test) in used)
        rows.append(((*names, stage), (f"{means['base']:.2f}", f"{means['new']:.2f}", scored or NOTHING)))
    if "new" not in {*table["stage"]}:
        rows = []
    return ReportTable(
        f"{runs.name}-stages",
        f"Accuracy in percent of the prompts after each stage, {over(scores)}.",
        (*label_headings(scores), "prompts of stage"),
        ("Base", "New", "scores"),
        rows,
        ("The last column says which halves these prompts score in the tables above.",),
    )


def cost(runs: ExperimentRuns) -> ReportTable:
    """Cost of each method, as in the paper's Table 3; inference speed where it was measured."""
    scores = runs.scores
    tuned = [key for key in scores.compared[0] if key[1] not in (ZEROSHOT, *CONTROLS)]
    speeds = {key: _images_per_second(runs, key) for key in tuned}
    rows = []
    for key in tuned:
        costs = scores.costs_by_key[key].reindex(scores.compared_cells)
        means = costs.assign(**{"s / epoch": costs["seconds"] / costs["epochs"]}).mean()
        means["peak MB"] = costs["peak_memory"].max() / 1e6
        values = [f"{means[name]:{form}}" for name, form in COSTS.items()]
        speed = [f"{speeds[key]:,.0f}" if speeds[key] else NOTHING] if any(speeds.values()) else []
        rows.append((labels(scores, key), [*values, f"{scores.average(key)[scores.measure].mean:.2f}", *speed]))
    return ReportTable(
        f"{runs.name}-cost",
        f"Cost of tuning, {over(scores)}.",
        label_headings(scores),
        [*COSTS, HEADINGS[scores.measure], *(["classified / s"] if any(speeds.values()) else [])],
        rows,
        (
            "Seconds are of tuning alone, without reading images and scoring, as measured while the sweep ran: trials "
            "that share a machine slow each other down. Peak MB: the most of any of the runs.",
        ),
    )


def _images_per_second(runs: ExperimentRuns, key: Key) -> float | None:
    measured = [Inference.find(run.trial.folder) for run in runs.finished if run.key == key]
    speeds = [inference.images_per_second for inference in measured if inference]
    return fmean(speeds) if speeds else None


def published(runs: ExperimentRuns) -> ReportTable:
    """Ours with the difference, where numbers are published for the data sets."""
    scores = runs.scores
    rows, sources = [], []
    for key in scores.keys:
        spreads = {name: scores.spreads.get((key, name), {}) for name in scores.datasets}
        if key in scores.compared[0] and {*scores.compared[1]} == {*SUITES["coop-11"]}:
            spreads[MEAN] = scores.average(key)
        for name, test in [(name, test) for name, tests in spreads.items() for test in tests]:
            ours, printed = spreads[name][test], _printed(runs, key, name, test)
            if printed and (key[1] != TWO_PROMPTS or test == "h"):  # each half is in another row
                gap = ours.mean - printed.value
                within = "unknown" if ours.std is None else "yes" if abs(gap) <= ours.std else "no"
                cells = (str(ours), f"{printed.value:.2f}", signed(gap), within)
                rows.append(((name, *labels(scores, key), HEADINGS.get(test, test)), cells))
                sources.append(printed.source)
    return ReportTable(
        f"{runs.name}-published",
        "Ours beside published numbers, in percent.",
        ("data set", *label_headings(scores), "measure"),
        ("ours", "published", "difference", "within our spread"),
        rows,
        (
            f"Published: {'; '.join(dict.fromkeys(sources))}. Within our spread: the difference is at most one "
            "standard deviation over our seeds.",
        ),
    )


def _printed(runs: ExperimentRuns, key: Key, name: str, test: str) -> PublishedNumber | None:
    if runs.scores.measure == "average":  # one source, many targets: a test has the name of its data set
        name, test = MEAN if test == "average" else test, "accuracy"
        if runs.scores.datasets != ["imagenet"]:
            return None
    return look_up(runs.name, key, name, test)


def orientation(runs: ExperimentRuns) -> ReportTable:
    """The paper's averages beside ours, where models and data differ: nothing to be close to."""
    scores = runs.scores
    tests = {"average": ["average"], "h": ["base", "new", "h"]}.get(scores.measure, [])
    rows = []
    for key in scores.compared[0] if scores.compared[1] else ():
        numbers = [look_up(runs.name, key, MEAN, "accuracy" if test == "average" else test) for test in tests]
        if any(numbers):
            ours = [f"{scores.average(key)[test].mean:.2f}" for test in tests]
            theirs = [f"{number.value:.2f}" if number else NOTHING for number in numbers]
            rows.append((labels(scores, key), [*ours, *theirs]))
    if all(row_labels[1] == method_name(ZEROSHOT) for row_labels, _ in rows):
        rows = []
    return ReportTable(
        f"{runs.name}-orientation",
        "The paper's averages, for orientation only: other model (CLIP ViT-B/16) and other data.",
        label_headings(scores),
        [HEADINGS[test] for test in tests] * 2,
        rows,
        ("No number is published for the data sets of this table; only the signs of the changes can be compared.",),
        ["here"] * len(tests) + ["published"] * len(tests),
    )


def tests_of(scores: Scores, dataset: str) -> list[str]:
    """Return the tests of the runs on a data set, with what sums them up."""
    return list(dict.fromkeys(test for (_, name), row in scores.spreads.items() if name == dataset for test in row))


def over(scores: Scores) -> str:
    """Say what averages are taken over."""
    cells = scores.compared[1]
    return f"averages over {len(cells)} data sets" if len(cells) > 1 else next(iter(cells), "")


def label_headings(scores: Scores) -> tuple[str, ...]:
    """Return the headings of the label columns."""
    return ("learner", "method", "variant") if any(variant for _, _, variant in scores.keys) else ("learner", "method")


def labels(scores: Scores, key: Key) -> tuple[str, ...]:
    """Return the labels of a row."""
    learner, method, variant = key
    return (learner_name(learner), method_name(method), variant)[: len(label_headings(scores))]


def _scored_with(runs: ExperimentRuns) -> str:
    """Say whose prompts score what."""
    methods: dict[str, dict[str, None]] = {}
    for run in runs.finished:
        if run.result.method != ZEROSHOT:
            used = run.result.scored_with
            sentence = (
                f"by the prompts of stage {next(iter(used.values()))}"
                if len({*used.values()}) == 1
                else ", ".join(f"{test} by the prompts of stage {stage}" for test, stage in used.items())
            )
            methods.setdefault(sentence, {})[run.result.method] = None
    return " ".join(f"{', '.join(map(method_name, names))}: scored {sentence}." for sentence, names in methods.items())
