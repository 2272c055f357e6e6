"""The figures of a report: differences of MAO, base against new classes, cost, curves, losses, pseudo-labels."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from maotune.mao.methods import ZEROSHOT
from maotune.report.compare import AGAINST, MaoComparison, pair
from maotune.report.content import FigurePanels, LineStyle
from maotune.report.drawing import (
    COLOURS,
    HEIGHT,
    WIDTH,
    Line,
    draw_panels,
    label_rows,
    paint_lines,
    place_names,
    styles,
    write,
)
from maotune.report.frame import CLIP, CONTROLS, MEASURES, ExperimentRuns, Key, Scores, short_names
from maotune.report.names import learner_name, method_name
from maotune.report.sentences import row_name, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[float, float]]
SCATTER_HEIGHT = 3.5
SETTINGS = {
    "shots": "labelled images per class",
    "K": "K, classes per query of the base stage",
    "S": "S, unlabelled images per new class",
}
"""Settings that variants vary -> label of the axis."""


def plot_overview(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> FigurePanels:
    """Mean differences of MAO from its counterparts with intervals: a panel per measure, a row per learner."""
    limits = _limits([end for each in comparisons for end in _ends(each)])
    learners = list(dict.fromkeys(each.learner for each in comparisons))
    drawn = styles(AGAINST)

    def paint(axes: "Axes", measure: str) -> None:
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
        for each in of_measure[measure]:
            style, gap = drawn[each.against], each.difference
            y = learners.index(each.learner) + 0.2 * ([*AGAINST].index(each.against) - (len(AGAINST) - 1) / 2)
            shade = COLOURS[style.colour]
            if gap.interval is not None and gap.resampled is not None:
                axes.plot(gap.interval, [y, y], color=shade, linewidth=2.2, solid_capstyle="round")
                axes.plot(gap.resampled, [y, y], "|-", color=shade, linewidth=0.8, markersize=5, markeredgewidth=0.8)
            fill = shade if each.verdict in ("higher", "lower") else COLOURS["paper"]
            axes.plot(gap.mean, y, style.marker, color=shade, markerfacecolor=fill, markersize=5)
        label_rows(axes, [learner_name(learner) for learner in learners])
        axes.grid(axis="x")
        axes.set(xlim=limits, title=_capitalised(MEASURES[measure]))

    of_measure = {name: [each for each in comparisons if each.measure == name] for name in runs.scores.measures}
    panels = []
    for measure, group in of_measure.items() if comparisons else ():
        differences = ", ".join(f"{signed(each.difference.mean)} against {AGAINST[each.against]}" for each in group)
        label = f"MAO minus its counterpart in {MEASURES[measure]}: {differences}"
        panels.append((label, partial(paint, measure=measure), 1.0 + 0.36 * len(learners)))
    return draw_panels(
        f"{runs.name}-overview",
        "MAO minus its counterparts, percentage points: right of zero MAO is better. Means over data sets; thick line: "
        "95 % interval over data sets; between the strokes: data sets, and seeds within them, drawn anew. A hollow "
        "mark: may be chance, after correction for the number of comparisons, or nothing follows.",
        panels,
        _against(comparisons),
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ends(comparison: MaoComparison) -> list[float]:
    """Return what a drawing of the difference has to show."""
    gap = comparison.difference
    return [gap.mean, *(gap.interval or ()), *(gap.resampled or ())]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis with zero and all values on it."""
    low, high = min([0.0, *values]), max([0.0, *values])
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _against(comparisons: Sequence[MaoComparison]) -> dict[str, LineStyle]:
    """Return the legend of the counterparts."""
    there = {each.against for each in comparisons}
    return {f"against {name}": styles(AGAINST)[against] for against, name in AGAINST.items() if against in there}


def plot_differences(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> FigurePanels:
    """Differences of MAO from each counterpart: the mean with its interval, and every data set with its seeds."""
    measure = MEASURES.get(runs.scores.measure, "")
    comparisons = [each for each in comparisons if each.measure == runs.scores.measure]
    limits = _limits([end for each in comparisons for end in (*_ends(each), *each.difference.gaps)])
    drawn = styles(AGAINST)

    def paint(axes: "Axes", learner: str) -> None:
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
        axes.axhline(1, color=COLOURS["line"], linewidth=0.8)
        for place, each in enumerate(groups[learner]):
            offset = (place - (len(groups[learner]) - 1) / 2) / 5
            marker, shade = drawn[each.against].marker, COLOURS[drawn[each.against].colour]
            for name, gaps in each.difference.gaps.groupby(level=0):
                y = names[learner].index(str(name)) + 1.5 + offset
                axes.plot(gaps, [y] * len(gaps), ".-", color=shade, linewidth=0.8, markersize=2.5, alpha=0.55)
                axes.plot(gaps.mean(), y, marker, color=shade, markersize=3.6)
            if each.difference.interval is not None:
                axes.plot(each.difference.interval, [1.4 * offset + 0.3] * 2, color=shade, linewidth=2.2)
            axes.plot(each.difference.mean, 1.4 * offset + 0.3, marker, color=shade, markersize=5)
        axes.set_yticks([0.3, *(place + 1.5 for place in range(len(names[learner])))])
        axes.set_yticklabels(["mean", *short_names(names[learner]).values()])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set(xlim=limits, xlabel=f"difference of {measure}, percentage points", title=learner_name(learner))
        axes.set_ylim(len(names[learner]) + 1, -0.4)

    groups: dict[str, list[MaoComparison]] = {}
    for each in comparisons:
        groups.setdefault(each.learner, []).append(each)
    there = {
        learner: dict.fromkeys(name for each in of for name in each.difference.by_dataset)
        for learner, of in groups.items()
    }
    order = runs.scores.datasets
    names = {
        learner: sorted(of, key=lambda name: order.index(name) if name in order else len(order))
        for learner, of in there.items()
    }
    panels = [
        (
            f"{learner_name(learner)}, MAO minus its counterpart in {measure}, data set by data set",
            partial(paint, learner=learner),
            1.2 + 0.27 * (len(of) + 1.4),
        )
        for learner, of in names.items()
    ]
    return draw_panels(
        f"{runs.name}-differences",
        "MAO minus its counterparts, data set by data set: right of zero MAO is better. Marks are means over seeds, "
        "small dots the seeds; at the top is the mean over data sets with its 95 % interval.",
        panels,
        _against(comparisons),
    )


def plot_heat_map(runs: ExperimentRuns) -> FigurePanels:
    """Difference of every row from zero-shot CLIP on every data set."""
    scores = runs.scores
    gains = {key: pair(scores, key, CLIP, scores.measure) for key in scores.keys if key[1] not in (ZEROSHOT, *CONTROLS)}
    rows = {row_name(key): gain.by_dataset for key, gain in gains.items() if gain}
    names = short_names(dict.fromkeys(name for row in rows.values() for name in row))
    largest = max((abs(gain) for row in rows.values() for gain in row.values()), default=0) or 1.0

    def paint(axes: "Axes") -> None:
        from matplotlib.patches import Rectangle

        for y, row in enumerate(rows.values()):
            for x, gain in ((x, row[name]) for x, name in enumerate(names) if name in row):
                shade = COLOURS["green" if gain > 0 else "orange"]
                cell = {"facecolor": shade, "alpha": 0.75 * abs(gain) / largest, "linewidth": 0}
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **cell))
                axes.text(x, y, signed(gain, 1), ha="center", va="center", fontsize=7)
        label_rows(axes, [*rows])
        axes.set_xticks(range(len(names)), [*names.values()], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.tick_params(axis="x", length=0)
        axes.spines[:].set_visible(False)

    label = f"{MEASURES.get(scores.measure)} minus that of zero-shot CLIP, a row per learner and method, by data set"
    several = len(rows) > 1 and len(names) > 1
    return draw_panels(
        f"{runs.name}-heat-map",
        f"{MEASURES.get(scores.measure)} minus that of zero-shot CLIP in percentage points, paired over seeds: green "
        "is better than zero-shot CLIP, orange worse.",
        [(label, paint, 0.9 + 0.24 * len(rows))] if several else [],
        {},
        width=2 * WIDTH,
    )


def plot_base_against_new(runs: ExperimentRuns) -> FigurePanels:
    """Accuracy on base and new classes of every data set, with plain tuning and with MAO."""
    spreads = runs.scores.spreads
    shown: dict[str, tuple[dict[str, Points], list[str]]] = {}
    for learner, method, variant in runs.scores.keys if runs.scores.measure == "h" else ():
        keys = (CLIP, (learner, "plain", variant), (learner, method, variant))
        names = [name for name in runs.scores.datasets if {(key, name) for key in keys} <= spreads.keys()]
        if method == "mao" and names:
            points = {
                key[1]: [(spreads[key, name]["base"].mean, spreads[key, name]["new"].mean) for name in names]
                for key in keys
            }
            shown[f"{learner_name(learner)} {variant}".strip()] = points, [*short_names(names).values()]
    every = [point for points, _ in shown.values() for of_method in points.values() for point in of_method]

    def paint(axes: "Axes", title: str) -> None:
        points, names = shown[title]
        _paint_grid_of_h(axes, np.maximum(0, np.min(every, axis=0) - 6), np.minimum(101, np.max(every, axis=0) + 6))
        for ends in zip(points["plain"], points["mao"], strict=True):
            axes.plot(*zip(*ends, strict=True), color=COLOURS["green"], linewidth=0.9)
        for method, style in styles(points).items():
            size = 4 if method == "mao" else 3.2
            place = zip(*points[method], strict=True)
            axes.plot(*place, style.marker, color=COLOURS[style.colour], markersize=size, alpha=0.9)
        own = [point for of_method in points.values() for point in of_method]
        place_names(axes, SCATTER_HEIGHT, [*zip(names, points["mao"], strict=True)], own)
        axes.set(xlabel="base classes, %", ylabel="new classes, %", title=title)

    panels = [
        (
            f"{title}: accuracy on base against new classes of {len(names)} data sets, plain and with MAO",
            partial(paint, title=title),
            SCATTER_HEIGHT,
        )
        for title, (_, names) in shown.items()
    ]
    return draw_panels(
        f"{runs.name}-scatter",
        "Accuracy on base classes against new classes; a line leads from plain tuning to MAO on the same data set. "
        "Along a grey curve H is the same.",
        panels,
        _legend(styles([ZEROSHOT, "plain", "mao"])),
    )


def _legend(drawn: Mapping[str, LineStyle]) -> dict[str, LineStyle]:
    return {method_name(method): style for method, style in drawn.items()}


def _paint_grid_of_h(axes: "Axes", low: "np.ndarray", high: "np.ndarray") -> None:
    """Set the limits of base and new accuracy, and draw the curves along which H is the same."""
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    base = np.linspace(max(low[0], 1), high[0], 100)
    for h in range(10, 100, 10):
        x = base[2 * base > h + 0.1]
        y = h * x / (2 * x - h)
        inside = (y > low[1]) & (y < high[1])
        if inside.sum() > 1:
            axes.plot(x[inside], y[inside], color=COLOURS["line"], linewidth=0.8)
            write(axes, f"H {h}", (x[inside][0], y[inside][0]), (2, -7), fontsize=6.5, style="italic")


def plot_cost(runs: ExperimentRuns) -> FigurePanels:
    """Accuracy against seconds of tuning, where there are several rows to compare."""
    scores, name = runs.scores, MEASURES[runs.scores.measure]
    keys, cells = scores.compared
    averages = {key: scores.average(key)[scores.measure].mean for key in keys if cells and key[1] not in CONTROLS}
    tuned = {key: average for key, average in averages.items() if key[1] != ZEROSHOT}
    drawn = styles(method for _, method, _ in tuned)
    places = {key: (max(0.01, _seconds(scores, key)), average) for key, average in tuned.items()}
    several = len({(learner, variant) for learner, _, variant in tuned}) > 1

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import LogLocator

        lines = [Line(drawn[key[1]], [place]) for key, place in places.items()]
        paint_lines(axes, lines, "", ("seconds of tuning", f"{name}, %"), averages.get(CLIP))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axes.minorticks_off()
        axes.margins(x=0.25, y=0.1)
        names = [(f"{learner_name(key[0])} {key[2]}".strip() * several, place) for key, place in places.items()]
        place_names(axes, HEIGHT, names, [*places.values()])

    where = f"over {len(cells)} data sets" if len(cells) > 1 else f"on {next(iter(cells), '')}"
    dotted = "; the dotted line is zero-shot CLIP." if CLIP in averages else "."
    return draw_panels(
        f"{runs.name}-cost-figure",
        f"What tuning costs and what it brings: {name} against seconds of tuning, means {where}{dotted}",
        [(f"{name} against seconds of tuning", paint, HEIGHT)] if len(places) > 1 else [],
        _legend(drawn),
    )


def _seconds(scores: Scores, key: Key) -> float:
    """Return the seconds of tuning, mean over seeds, then over the data sets that averages are over."""
    costs = scores.costs_by_key[key]["tuning_seconds"]
    return float(costs.groupby(level="dataset").mean()[[*scores.compared[1]]].mean())


def plot_curves(runs: ExperimentRuns) -> FigurePanels:
    """Accuracy and seconds as one number of the recipe is varied: its variants are called ``name=number``."""
    scores = runs.scores
    curves: dict[tuple[str, str], dict[str, list[tuple[float, Key]]]] = {}
    for key in scores.compared[0] if scores.compared[1] else ():
        name, equals, value = key[2].partition("=")
        if equals and value.replace(".", "", 1).isdigit():
            curves.setdefault((name, key[0]), {}).setdefault(key[1], []).append((float(value), key))
    curves = {place: {m: sorted(line) for m, line in of.items() if len(line) > 1} for place, of in curves.items()}
    zeroshot = scores.average(CLIP) if CLIP in scores.compared[0] else {}
    drawn = styles(method for of in curves.values() for method in of)

    def paint(axes: "Axes", place: tuple[str, str], test: str) -> None:
        averages = {method: [(x, scores.average(key)[test]) for x, key in of] for method, of in curves[place].items()}
        lines = [
            Line(drawn[method], [(x, of.mean) for x, of in points], [of.std or 0.0 for _, of in points])
            for method, points in averages.items()
        ]
        labels = (SETTINGS.get(place[0], place[0]), f"{_title(test)}, %")
        paint_lines(axes, lines, learner_name(place[1]), labels, zeroshot[test].mean if test in zeroshot else None)
        ticks = sorted({x for line in lines for x, _ in line.points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        seconds = axes.twinx()
        for method, of in curves[place].items():
            values = [_seconds(scores, key) for _, key in of]
            seconds.plot([x for x, _ in of], values, ":", color=COLOURS[drawn[method].colour], linewidth=1, alpha=0.8)
        seconds.set(ylabel="seconds of tuning", ylim=(0, None))
        seconds.spines["right"].set_visible(True)

    panels = []
    for place, of_method in curves.items():
        tests = scores.average(next(iter(of_method.values()))[0][1]) if of_method else {}
        for test in [test for test in ("base", "new", "h", "average", "all", "test") if test in tests]:
            label = f"{place[1]}: {_title(test)} by {SETTINGS.get(place[0], place[0])}"
            panels.append((label, partial(paint, place=place, test=test), HEIGHT))
    return draw_panels(
        f"{runs.name}-curves",
        f"Accuracy as one setting is varied, averages over {len(scores.compared[1])} data sets; bars are standard "
        f"deviations over seeds{', the level dotted line is zero-shot CLIP' if zeroshot else ''}. Dotted in the colour "
        "of a method, with the axis on the right: its seconds of tuning.",
        panels,
        _legend(drawn),
    )


def _title(test: str) -> str:
    return {"h": "H", "all": "accuracy"}.get(test, f"{test} accuracy")


def plot_losses(runs: ExperimentRuns) -> FigurePanels:
    """The loss of every epoch, stage after stage: a panel per learner, mean over data sets and seeds."""
    tuned = [key for key in runs.scores.compared[0] if key[1] not in (ZEROSHOT, *CONTROLS) and not key[2]]
    drawn = styles(method for _, method, _ in tuned)
    lines: dict[str, dict[str, list[Line]]] = {}
    for key in tuned:
        if of_key := _stage_losses(runs, key, drawn[key[1]]):
            lines.setdefault(key[0], {})[key[1]] = of_key

    def paint(axes: "Axes", learner: str) -> None:
        every = [line for of_method in lines[learner].values() for line in of_method]
        paint_lines(axes, every, learner_name(learner), ("epoch", "loss"))
        axes.locator_params("x", integer=True)
        axes.set_ylim(bottom=0)

    return draw_panels(
        f"{runs.name}-losses",
        "Loss of each epoch, all terms together, mean over data sets and seeds. The stages of MAO see other images and "
        "other candidates than plain tuning, so only the shapes of the curves compare, not their heights.",
        [
            (f"{learner}: loss by epoch of {', '.join(of)}", partial(paint, learner=learner), HEIGHT)
            for learner, of in lines.items()
        ],
        _legend(drawn),
    )


def _stage_losses(runs: ExperimentRuns, key: Key, style: LineStyle) -> list[Line]:
    """Return the mean loss of each epoch: a line per stage, one after the other."""
    stages: dict[str, list[list[float]]] = {}
    for run in runs.of(key):
        for stage in run.result.stages:
            stages.setdefault(stage["name"], []).append([sum(epoch.values()) for epoch in stage["losses"]])
    means = {name: [fmean(epoch) for epoch in zip(*each, strict=False)] for name, each in stages.items() if any(each)}
    lines: list[Line] = []
    for name, losses in means.items():
        done = sum(len(line.points) for line in lines)
        lines.append(Line(style, list(enumerate(losses, done + 1)), name=name if len(means) > 1 else ""))
    return lines


def plot_pseudo_labels(
    name: str, right: Sequence[float], wrong: Sequence[float], shares: Mapping[str, Sequence[float]]
) -> FigurePanels:
    """Confidence of the labeler where it is right and where it is wrong, and the images that each class was given.

    Args:
        name: of the figure.
        right: confidences of the labels that are right.
        wrong: confidences of those that are wrong; the first panel is left out where no true label is known.
        shares: by data set the images of each class, 1 being an equal share.
    """

    def confidence(axes: "Axes") -> None:
        edges = np.linspace(0, 1, 21).tolist()
        axes.hist([[*right], [*wrong]], edges, stacked=True, color=[COLOURS["green"], COLOURS["orange"]])
        for patch in axes.patches[len(edges) - 1 :]:
            patch.set_hatch("////")
        axes.set(xlabel="confidence", ylabel="images", title="right and wrong labels")

    def balance(axes: "Axes") -> None:
        jitter = np.random.default_rng(0)
        for place, of_set in enumerate(shares.values()):
            heights = place + jitter.uniform(-0.22, 0.22, len(of_set))
            axes.plot(of_set, heights, ".", color=COLOURS["blue"], markersize=3.5, alpha=0.6, markeredgewidth=0)
        axes.axvline(1, color=COLOURS["muted"], linewidth=0.8)
        label_rows(axes, [*short_names(shares).values()])
        axes.set(xlabel="images given to a class / an equal share", title="balance of the labels")

    known = (f"{len(right)} right and {len(wrong)} wrong pseudo-labels by confidence", confidence, HEIGHT)
    given = ("images that each class was given, against an equal share", balance, 1.1 + 0.24 * len(shares))
    return draw_panels(
        name,
        "Confidence of the labeler where it is right and where it is wrong (hatched), and how many images each class "
        "was given, a dot per class. A true label has to be known for the first.",
        [known, given] if len(right) + len(wrong) else [given],
        {"right": LineStyle("green", "s", "■"), "wrong": LineStyle("orange", "s", "▨")},
    )
