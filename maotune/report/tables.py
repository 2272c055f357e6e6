"""The tables of the paper, from the runs of an experiment; ours beside the published numbers."""

from collections.abc import Sequence
from statistics import fmean

from maotune.mao.methods import ZEROSHOT
from maotune.recipe.suites import SUITES
from maotune.report.compare import FEWEST, MaoComparison
from maotune.report.content import ReportTable, make_table
from maotune.report.frame import MEASURES, ExperimentRuns, Key, Scores, short_names
from maotune.report.published import PublishedNumber, find
from maotune.report.sentences import signed
from maotune.runs.inference import Inference

HEADINGS = {"base": "Base", "new": "New", "h": "H", "average": "Average", "all": "All", "test": "Test", "val": "Val"}
NOTHING = "–"
TABLES = {
    "cross-dataset": ("2",),
    "cost": ("3",),
    "ablations": ("4", "8"),
    "pseudo-labelers": ("5",),
    "baselines": ("7",),
}
"""Tables of the paper with the counterpart of an experiment; Table 1 for all others."""
MEAN = "mean"


def differences(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> ReportTable | None:
    """MAO minus its counterparts."""
    if not comparisons or runs.scores.measure is None:
        return None
    rows = []
    for each in comparisons:
        gap, interval = each.difference, each.difference.interval
        cells = (
            signed(gap.mean),
            f"{signed(interval[0])} to {signed(interval[1])}" if interval else NOTHING,
            "/".join(map(str, gap.counts)),
            str(len(gap.by_dataset)),
            str(gap.gaps.groupby(level=0).size().max()),
        )
        rows.append(((each.learner, each.against), cells))
    several = len(comparisons[0].difference.by_dataset) > 1
    return make_table(
        f"{runs.name}-paired",
        f"MAO minus its counterpart: {MEASURES[runs.scores.measure]} in percentage points, paired over data sets "
        "and seeds.",
        ("learner", "MAO against"),
        [("", title) for title in ("difference", "95 % interval", "+/−/=", "sets", "seeds")],
        rows,
        (
            "Differences are means over the seeds of a data set; interval (Student's t) and counts are over data sets."
            if several
            else "One data set: interval and counts are over its seeds, and say nothing about other data.",
            f"+/−/=: on how many MAO is higher, lower, equal. Below {FEWEST} there is no interval. Intervals are not "
            f"corrected for their number, {len(comparisons)}.",
        ),
    )


def averages(runs: ExperimentRuns) -> ReportTable | None:
    """Averages over the data sets that all rows have, and the change from the learner's first row."""
    scores = runs.scores
    keys, cells = scores.compared
    if not cells or scores.measure is None:
        return None
    tests = tests_of(scores, next(iter(cells)))
    first: dict[str, float] = {}
    rows = []
    for key in keys:
        average = scores.average(key)
        change = average[scores.measure].mean - first.setdefault(
            key[0].removesuffix("+dept"), average[scores.measure].mean
        )
        rows.append((labels(scores, key), (*(str(average[test]) for test in tests), signed(change) if change else "")))
    seeds = sorted({seed for of_set in cells.values() for seed in of_set})
    spread = (
        f"Seeds: {', '.join(map(str, seeds))}." if len(seeds) > 1 else f"One seed ({seeds[0]}): no spread is known."
    )
    return make_table(
        f"{runs.name}-averages",
        f"Accuracy in percent, {over(scores)}.",
        label_headings(scores),
        [*(("", HEADINGS.get(test, test)) for test in tests), ("", f"Δ {HEADINGS[scores.measure]}")],
        rows,
        (f"Δ: change of {MEASURES[scores.measure]} from the learner's first row. {spread}",),
        mark_best=len(tests),
    )


def results(runs: ExperimentRuns) -> ReportTable:
    """All accuracies, as in the paper's Tables 1 and 2: a row per method, and for each data set its tests."""
    scores = runs.scores
    compared, cells = scores.compared
    names = short_names(scores.datasets)
    several = len(scores.datasets) > 1 and bool(cells)
    groups: list[tuple[str, str | None, str]] = [
        (names[name], name, test) for name in scores.datasets for test in tests_of(scores, name)
    ]
    if several:
        title = "Average" if len(cells) == len(scores.datasets) else f"Average of {len(cells)}"
        groups = [(title, None, test) for test in tests_of(scores, scores.datasets[0])] + groups
    rows = []
    for key in scores.keys:
        average = scores.average(key) if several and key in compared else {}
        values = [
            (average if name is None else scores.spreads.get((key, name), {})).get(test, NOTHING)
            for _, name, test in groups
        ]
        rows.append((labels(scores, key), tuple(map(str, values))))
    notes = ["Mean ± standard deviation over seeds; the best of each column is bold."]
    if scores.measure == "h":
        notes.append(f"H of the average is that of the two average accuracies. {_scored_with(runs)}")
    if without := [names[name] for name in scores.datasets if name not in cells]:
        notes.append(f"Not in the average, because not all of its rows have them: {', '.join(without)}.")
    return make_table(
        f"{runs.name}-results",
        "Accuracy in percent by data set.",
        label_headings(scores),
        [(group, HEADINGS.get(test, test)) for group, _, test in groups],
        rows,
        notes,
        mark_best=len(groups),
    )


def stages(runs: ExperimentRuns) -> ReportTable | None:
    """Accuracy of the prompts of each stage on both halves: what the new stage does to the base classes."""
    scores = runs.scores
    rows = []
    for key in scores.compared[0] if scores.measure == "h" else ():
        finished = [run.result for run in runs.of(key)]
        for name in dict.fromkeys(stage["name"] for result in finished for stage in result.stages):
            by_set: dict[str, list[dict[str, float]]] = {}
            for result in finished:
                tables = [stage["accuracy"] for stage in result.stages if stage["name"] == name]
                by_set.setdefault(result.dataset, []).extend(tables)
            means = [fmean(fmean(row[test] for row in of) for of in by_set.values() if of) for test in ("base", "new")]
            used = sorted({test for result in finished for test, stage in result.scored_with.items() if stage == name})
            cells = (*(f"{mean:.2f}" for mean in means), ", ".join(used) or NOTHING)
            rows.append(((*labels(scores, key), name), cells))
    if not any(row_labels[-1] == "new" for row_labels, _ in rows):
        return None
    return make_table(
        f"{runs.name}-stages",
        f"Accuracy in percent of the prompts after each stage, {over(scores)}.",
        (*label_headings(scores), "prompts of stage"),
        [("", "Base"), ("", "New"), ("", "scores")],
        rows,
        ("The last column says which halves these prompts score in the tables above.",),
    )


def cost(runs: ExperimentRuns) -> ReportTable | None:
    """Cost of each method, as in the paper's Table 3; inference speed where it was measured."""
    scores = runs.scores
    tuned = [key for key in scores.compared[0] if key[1] != ZEROSHOT] if scores.measure else []
    speeds = {key: _images_per_second(runs, key) for key in tuned}
    rows = []
    for key in tuned:
        cells = [(name, seed) for name, seeds in scores.compared[1].items() for seed in seeds]
        costs = scores.costs_by_key[key].reindex(cells)
        values = (
            f"{costs['parameters'].mean():,.0f}",
            f"{costs['updates'].mean():,.0f}",
            f"{costs['images'].mean():,.0f}",
            f"{costs['seconds'].mean():.1f}",
            f"{(costs['seconds'] / costs['epochs']).mean():.2f}",
            f"{costs['peak_memory'].max() / 1e6:,.0f}",
            f"{scores.average(key)[scores.measure or ''].mean:.2f}",
        )
        speed = (f"{speeds[key]:,.0f}" if speeds[key] else NOTHING,) if any(speeds.values()) else ()
        rows.append((labels(scores, key), (*values, *speed)))
    if not rows:
        return None
    titles = ["parameters", "updates", "images", "seconds", "s / epoch", "peak MB", HEADINGS[scores.measure or ""]]
    return make_table(
        f"{runs.name}-cost",
        f"Cost of tuning, {over(scores)}.",
        label_headings(scores),
        [("", title) for title in (*titles, *(["classified / s"] if any(speeds.values()) else []))],
        rows,
        (
            "Seconds are of tuning alone, without reading images and scoring, as measured while the sweep ran: trials "
            "that share a machine slow each other down. Peak MB: the most of any of the runs.",
        ),
    )


def published(runs: ExperimentRuns) -> ReportTable | None:
    """Ours with the difference, where numbers are published for the data sets; else the paper's averages alone."""
    scores = runs.scores
    rows, sources = [], []
    for key in scores.keys:
        every = [
            (name, test, spread)
            for name in scores.datasets
            for test, spread in scores.spreads.get((key, name), {}).items()
        ]
        if key in scores.compared[0] and {*scores.compared[1]} == {*SUITES["coop-11"].sets}:
            every += [(MEAN, test, spread) for test, spread in scores.average(key).items()]
        for name, test, spread in every:
            if printed := _printed(runs, key, name, test):
                gap = spread.mean - printed.value
                within = "unknown" if spread.std is None else "yes" if abs(gap) <= spread.std else "no"
                cells = (str(spread), f"{printed.value:.2f}", signed(gap), within)
                rows.append(((name, *labels(scores, key), HEADINGS.get(test, test)), cells))
                sources.append(printed.source)
    if not rows:
        return _orientation(runs)
    return make_table(
        f"{runs.name}-published",
        "Ours beside published numbers, in percent.",
        ("data set", *label_headings(scores), "measure"),
        [("", title) for title in ("ours", "published", "difference", "within our spread")],
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
    return _find(runs, key, name, test)


def _find(runs: ExperimentRuns, key: Key, name: str, measure: str) -> PublishedNumber | None:
    learner, method, variant = key
    tables = ("reference",) if method == ZEROSHOT else TABLES.get(runs.name, ("1",))
    wanted = {"dataset": name, "learner": learner, "method": method, "variant": variant, "measure": measure}
    return next((number for table in tables for number in find(table=table, **wanted)), None)


def _orientation(runs: ExperimentRuns) -> ReportTable | None:
    """The paper's averages beside ours, where models and data differ: nothing to be close to."""
    scores = runs.scores
    tests = {"average": ["average"], "h": ["base", "new", "h"]}.get(scores.measure or "", [])
    rows = []
    for key in scores.compared[0] if scores.compared[1] else ():
        numbers = [_find(runs, key, MEAN, "accuracy" if test == "average" else test) for test in tests]
        if any(numbers):
            ours = [f"{scores.average(key)[test].mean:.2f}" for test in tests]
            rows.append(
                (labels(scores, key), (*ours, *(f"{number.value:.2f}" if number else NOTHING for number in numbers)))
            )
    if all(row_labels[1] == ZEROSHOT for row_labels, _ in rows):
        return None
    return make_table(
        f"{runs.name}-orientation",
        "The paper's averages, for orientation only: other model (CLIP ViT-B/16) and other data.",
        label_headings(scores),
        [(group, HEADINGS[test]) for group in ("here", "published") for test in tests],
        rows,
        ("No number is published for the data sets of this table; only the signs of the changes can be compared.",),
    )


def _images_per_second(runs: ExperimentRuns, key: Key) -> float | None:
    measured = [Inference.find(run.trial.folder) for run in runs.finished if run.key == key]
    speeds = [inference.images_per_second for inference in measured if inference]
    return fmean(speeds) if speeds else None


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
    return (key[0] or "CLIP", *key[1:])[: len(label_headings(scores))]


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
    return " ".join(f"{', '.join(names)}: scored {sentence}." for sentence, names in methods.items())
