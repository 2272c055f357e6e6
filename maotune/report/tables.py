"""The tables of the paper, from the runs of an experiment; ours beside the published numbers."""

from collections.abc import Collection, Sequence
from statistics import fmean

from maotune.contract import mixture_weights
from maotune.mao.methods import ZEROSHOT
from maotune.recipe.suites import SUITES
from maotune.report.compare import FEWEST, MaoComparison, pair
from maotune.report.content import ReportTable
from maotune.report.frame import BALANCED, CONTROLS, MEASURES, ExperimentRuns, Key, Scores, short_names
from maotune.report.names import TWO_PROMPTS, learner_name, method_name
from maotune.report.published import TABLES, PublishedNumber, look_up
from maotune.report.sentences import NOTHING, between, counted, probability, signed
from maotune.runs.inference import Inference

HEADINGS = {
    "base": "Base", "new": "New", "h": "H", "average": "Average", "all": "All", "test": "Test", "val": "Val",
    "cv": "Cross-validated", "openworld": "OpenworldAUC",
}  # fmt: skip
MEAN = "mean"
MARKED = (
    "Shaded: the best of each column, and what is within noise of it (nearer than the root of the sum of the two "
    "squared standard deviations)."
)
PUBLISHED = (
    "Published: the paper's averages, for orientation only: other model (CLIP ViT-B/16) and other data. Only the signs "
    "of the changes can be compared."
)
HIDDEN_BALANCE = (
    f"{BALANCED}: the labeler gives all classes an equal share, and hidden labels balanced the unlabelled images: that "
    "is label information. Compare rows of the natural pool."
)
COSTS = {
    "parameters": (",.0f", "parameters"), "updates": (",.0f", ""), "images": (",.0f", ""), "seconds": (".1f", ""),
    "s / epoch": (".2f", "epoch_seconds"), "× MAO": (".2f", "relative_time"), "peak MB": (",.0f", "memory_mb"),
    "score": (".2f", "h"), "classified / s": (",.0f", "fps"),
}  # fmt: skip
"""Column of costs -> format, and its name among the published numbers."""

Columns = dict[tuple[str, str], dict[Key, str]]
"""Group and title -> cells by row."""


def differences(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> ReportTable:
    """MAO minus its counterparts."""
    rows = []
    for each in comparisons:
        gap = each.difference
        counts = ("/".join(map(str, gap.counts)), str(len(gap.by_dataset)), str(gap.gaps.groupby(level=0).size().max()))
        certain = (between(gap.interval), probability(each.corrected), *counts, between(gap.resampled))
        rows.append(((each.title, method_name(each.against), HEADINGS[each.measure]), (signed(gap.mean), *certain)))
    tested = sum(each.corrected is not None for each in comparisons)
    return ReportTable(
        f"{runs.name}-paired",
        "MAO minus its counterpart in percentage points, paired over data sets and seeds.",
        ("learner", "MAO against", "measure"),
        ("difference", "95 % interval", "p", "+/−/=", "sets", "seeds", "resampled"),
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
        lead=4,
    )


def results(runs: ExperimentRuns) -> ReportTable:
    """All accuracies, as in the paper's Tables 1 and 2: a row per method, the average first, then each data set.

    Beside the average stand its change from the learner's first row and, where no number is published for the data
    sets, the paper's average.
    """
    scores = runs.scores
    cells = scores.compared[1]
    names = short_names(scores.datasets)
    several = len(names) > 1 and bool(cells)
    if several:
        names = {MEAN: "Average" if len(cells) == len(names) else f"Average of {len(cells)}", **names}
    spreads = {(name, key): of for (key, name), of in scores.spreads.items()}
    spreads |= {(MEAN, key): scores.average(key) for key in scores.compared[0]}
    accuracies: Columns = {
        (names[name], HEADINGS.get(test, test)): {
            key: str(of[test]) for (at, key), of in spreads.items() if at == name and test in of
        }
        for name in names
        for test in tests_of(scores, scores.datasets[0] if name == MEAN else name)
    }
    lead = next(iter(names.values()), "")
    columns = {place: of for place, of in accuracies.items() if place[0] == lead}
    columns |= _changes(scores, lead)
    first = len(columns)
    columns |= ({} if published(runs) else _papers_averages(runs)) | accuracies
    seeds = scores.table.index.unique("seed")
    notes = [
        f"Mean ± standard deviation over {counted(len(seeds), 'seed')}. {MARKED}"
        if len(seeds) > 1
        else f"One seed: no spread is known. {MARKED}",
        f"Δ: paired difference of {MEASURES.get(scores.measure)} from the learner's first row.",
        "H of the average is that of the two average accuracies." if scores.measure == "h" and several else "",
        _scored_with(runs) if scores.measure == "h" else "",
        PUBLISHED if any(group == "published" for group, _ in columns) else "",
        HIDDEN_BALANCE if any(key[2].endswith(BALANCED) for key in scores.keys) else "",
    ]
    if without := [names[name] for name in scores.datasets if name not in cells]:
        notes.append(f"Not in the average, because not all of its rows have them: {', '.join(without)}.")
    marked = [place for place, column in enumerate(columns) if column in accuracies]
    caption = "Accuracy in percent by data set." if len(scores.datasets) > 1 else "Accuracy in percent."
    return _by_key(runs, "results", caption, columns, notes, marked, first)


def _changes(scores: Scores, group: str) -> Columns:
    """Return the paired difference of each compared row from the learner's first."""
    first: dict[str, Key] = {}
    column = dict.fromkeys(scores.compared[0], "")
    for key in column:
        start = first.setdefault(key[0].removesuffix("+dept"), key)
        if key != start and (change := pair(scores, key, start, scores.measure)):
            column[key] = signed(change.mean)
    return {(group, f"Δ {HEADINGS.get(scores.measure, '')}"): column}


def _papers_averages(runs: ExperimentRuns) -> Columns:
    """Return the paper's averages of the compared rows; none where it has those of zero-shot CLIP only."""
    tests = {"average": ["average"], "h": ["base", "new", "h"]}.get(runs.scores.measure, [])
    columns: Columns = {}
    for test in tests:
        numbers = {
            key: look_up(runs.name, key, MEAN, "accuracy" if test == "average" else test)
            for key in runs.scores.compared[0]
        }
        columns["published", HEADINGS[test]] = {key: f"{of.value:.2f}" for key, of in numbers.items() if of}
    return columns if any(key[1] != ZEROSHOT for of in columns.values() for key in of) else {}


def other_measures(runs: ExperimentRuns) -> ReportTable:
    """Averages of the same predictions by other measures."""
    averages = {name: {key: of.average(key) for key in of.compared[0]} for name, of in runs.rescored.items()}
    columns: Columns = {
        (name, HEADINGS[test]): {key: str(of[test]) for key, of in averages[name].items() if test in of}
        for name, scores in runs.rescored.items()
        for test in tests_of(scores, next(iter(scores.compared[1]), ""))
    }
    caption = f"The same predictions by other measures, in percent, {over(runs.scores)}."
    notes = (
        "Mean over classes: each class counts alike. All classes in one list: base and new classes are scored "
        "together, each half with the scores that its own prompts give it. OpenworldAUC: share of pairs of a base "
        "and a new image where both are right among their own half and the base image is the more base-like.",
    )
    return _by_key(runs, "other-measures", caption, columns, notes, range(len(columns)))


def stages(runs: ExperimentRuns) -> ReportTable:
    """Accuracy of the prompts of each stage on both halves: what the new stage does to the base classes."""
    scores = runs.scores
    used = {
        (run.key, stage, test): test if share == 1 else f"{test} ({share:g})"
        for run in runs.finished
        for test, prompts in run.result.scored_with.items()
        for stage, share in mixture_weights(prompts).items()
    }
    rows = []
    for key in scores.compared[0] if scores.measure == "h" else ():
        if key in scores.stages_by_key and key[1] not in CONTROLS:
            table = scores.stages_by_key[key]
            shared = table[table.index.droplevel("prompts").isin(scores.compared_cells)]
            of_sets = shared.groupby(level=["prompts", "dataset"], sort=False).mean()
            for stage, accuracy in of_sets.groupby(level="prompts", sort=False).mean().iterrows():
                scored = ", ".join(used[key, stage, test] for test in ("base", "new") if (key, stage, test) in used)
                cells = (f"{accuracy['base']:.2f}", f"{accuracy['new']:.2f}", scored or NOTHING)
                rows.append(((*labels(scores, key), str(stage)), cells))
    return ReportTable(
        f"{runs.name}-stages",
        f"Accuracy in percent of the prompts after each stage, {over(scores)}.",
        (*label_headings(scores), "prompts of stage"),
        ("Base", "New", "scores"),
        rows if any(names[-1] == "new" for names, _ in rows) else [],
        ("The last column says which halves these prompts score in the tables above; with their share in a mixture.",),
    )


def cost(runs: ExperimentRuns) -> ReportTable:
    """Cost of each method, as in the paper's Table 3, with its numbers; inference speed where it was measured."""
    scores = runs.scores
    tuned = [key for key in scores.compared[0] if key[1] not in (ZEROSHOT, *CONTROLS)]
    ours = {key: _costs(runs, key) for key in tuned}
    mao = next((costs["s / epoch"] for key, costs in ours.items() if key[1] == "mao"), None)
    ours = {key: {**costs, **({"× MAO": costs["s / epoch"] / mao} if mao else {})} for key, costs in ours.items()}
    table_3 = TABLES.get(runs.name) == ("3",)
    columns: Columns = {}
    for name, (form, printed) in COSTS.items():
        title = HEADINGS[scores.measure] if name == "score" else name
        numbers = {key: look_up(runs.name, key, "flowers102", printed) for key in tuned if table_3}
        columns["here", title] = {key: f"{costs[name]:{form}}" for key, costs in ours.items() if name in costs}
        columns["published", title] = {key: f"{of.value:{form}}" for key, of in numbers.items() if of}
    columns = {place: of for place, of in columns.items() if of}
    columns = dict(sorted(columns.items(), key=lambda column: column[0][0]))  # here, then published
    notes = (
        "Seconds are of tuning alone, without reading images and scoring, as measured while the sweep ran: trials "
        "that share a machine slow each other down. Peak MB: the most of any of the runs. × MAO: time of an epoch over "
        "that of the first row with MAO.",
        "Published: Table 3 of the paper, Flowers102 with CLIP ViT-B/16." if table_3 else "",
    )
    return _by_key(runs, "cost", f"Cost of tuning, {over(scores)}.", columns, notes)


def _costs(runs: ExperimentRuns, key: Key) -> dict[str, float]:
    scores = runs.scores
    costs = scores.costs_by_key[key].reindex(scores.compared_cells)
    means = costs.assign(epoch=costs["tuning_seconds"] / costs["epochs"]).mean()
    speeds = [
        of.images_per_second for run in runs.finished if run.key == key and (of := Inference.find(run.trial.folder))
    ]
    return {
        **{name: means[name] for name in ("parameters", "updates", "images")},
        "seconds": means["tuning_seconds"],
        "s / epoch": means["epoch"],
        "peak MB": costs["peak_memory"].max() / 1e6,
        "score": scores.average(key)[scores.measure].mean,
        **({"classified / s": fmean(speeds)} if speeds else {}),
    }


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


def _by_key(
    runs: ExperimentRuns,
    name: str,
    caption: str,
    columns: Columns,
    notes: Sequence[str],
    marked: Collection[int] = (),
    lead: int = 0,
) -> ReportTable:
    """Return a table with a row per learner, method and variant that has anything in it."""
    keys = [key for key in runs.scores.keys if any(key in of for of in columns.values())]
    groups = [group for group, _ in columns]
    return ReportTable(
        f"{runs.name}-{name}",
        caption,
        label_headings(runs.scores),
        [title for _, title in columns],
        [(labels(runs.scores, key), [of.get(key, NOTHING) for of in columns.values()]) for key in keys],
        [note for note in notes if note],
        groups if {*groups} != {"here"} else (),
        marked=marked,
        lead=lead,
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
            by = {test: f"by the prompts {'' if ' ' in of else 'of stage '}{of}" for test, of in used.items()}
            sentence = (
                next(iter(by.values()))
                if len({*by.values()}) == 1
                else ", ".join(f"{test} {which}" for test, which in by.items())
            )
            methods.setdefault(sentence, {})[run.result.method] = None
    return " ".join(f"{', '.join(map(method_name, names))}: scored {sentence}." for sentence, names in methods.items())
