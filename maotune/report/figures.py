"""The figures of a report: differences of MAO, base against new classes, cost, curves, losses, pseudo-labels."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

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
from maotune.report.frame import CLIP, CONTROLS, MEASURES, ExperimentRuns, Key, short_names
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
    panels = []
    for measure in runs.scores.measures if comparisons else ():
        group = [each for each in comparisons if each.measure == measure]
        differences = ", ".join(f"{signed(one.difference.mean)} against {AGAINST[one.against]}" for one in group)
        label = f"MAO minus its counterpart in {MEASURES[measure]}: {differences}"
        paint = partial(_overview, group=group, learners=learners, limits=limits, title=MEASURES[measure])
        panels.append((label, paint, 1.0 + 0.36 * len(learners)))
    return draw_panels(
        f"{runs.name}-overview",
        "MAO minus its counterparts, percentage points: right of zero MAO is better. Means over data sets; thick line: "
        "95 % interval over data sets; between the strokes: data sets, and seeds within them, drawn anew. A hollow "
        "mark: may be chance, after correction for the number of comparisons, or nothing follows.",
        panels,
        _against(comparisons),
    )


def _overview(
    axes: "Axes", group: Sequence[MaoComparison], learners: Sequence[str], limits: tuple[float, float], title: str
) -> None:
    axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
    drawn = styles(AGAINST)
    for each in group:
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
    axes.set(xlim=limits, title=title[0].upper() + title[1:])


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
    panels = []
    for learner in dict.fromkeys(each.learner for each in comparisons):
        group = [each for each in comparisons if each.learner == learner]
        there = dict.fromkeys(name for each in group for name in each.difference.by_dataset)
        names = [*(name for name in runs.scores.datasets if name in there), *(there.keys() - {*runs.scores.datasets})]
        title = learner_name(learner)
        label = f"{title}, MAO minus its counterpart in {measure}, data set by data set"
        paint = partial(_differences, title=title, group=group, names=names, measure=measure, limits=limits)
        panels.append((label, paint, 1.1 + 0.27 * (len(names) + 1)))
    return draw_panels(
        f"{runs.name}-differences",
        "MAO minus its counterparts, data set by data set: right of zero MAO is better. Marks are means over seeds, "
        "small dots the seeds; at the top is the mean over data sets with its 95 % interval.",
        panels,
        _against(comparisons),
    )


def _differences(
    axes: "Axes",
    title: str,
    group: Sequence[MaoComparison],
    names: Sequence[str],
    measure: str,
    limits: tuple[float, float],
) -> None:
    axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
    axes.axhline(0.5, color=COLOURS["line"], linewidth=0.8)
    drawn = styles(AGAINST)
    for each, offset in zip(group, np.linspace(-0.3, 0.3, len(group)) * (len(group) > 1), strict=True):
        marker, shade = drawn[each.against].marker, COLOURS[drawn[each.against].colour]
        for name, gaps in each.difference.gaps.groupby(level=0):
            y = names.index(str(name)) + 1 + offset
            axes.plot(gaps, [y] * len(gaps), ".-", color=shade, linewidth=0.8, markersize=2.5, alpha=0.55)
            axes.plot(gaps.mean(), y, marker, color=shade, markersize=3.6)
        if each.difference.interval is not None:
            axes.plot(each.difference.interval, [offset] * 2, color=shade, linewidth=2.2, solid_capstyle="round")
        axes.plot(each.difference.mean, offset, marker, color=shade, markersize=5)
    label_rows(axes, ["mean", *short_names(names).values()])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.grid(axis="x")
    axes.set(xlim=limits, xlabel=f"difference of {measure}, percentage points", title=title)


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
            for x, name in enumerate(names):
                gain = row.get(name, np.nan)
                if not np.isnan(gain):
                    shade = COLOURS["green" if gain > 0 else "orange"]
                    cell = {"facecolor": shade, "alpha": 0.75 * abs(gain) / largest, "linewidth": 0}
                    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **cell))
                    axes.text(x, y, signed(gain, 1), ha="center", va="center", fontsize=7)
        label_rows(axes, [*rows])
        axes.set_xticks(range(len(names)), [*names.values()], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.tick_params(axis="x", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

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
    panels = []
    for title, (points, names) in shown.items():
        label = f"{title}: accuracy on base against new classes of {len(names)} data sets, plain and with MAO"
        paint = partial(_base_against_new, title=title, points=points, names=names, every=every)
        panels.append((label, paint, SCATTER_HEIGHT))
    return draw_panels(
        f"{runs.name}-scatter",
        "Accuracy on base classes against new classes; a line leads from plain tuning to MAO on the same data set. "
        "Along a grey curve H is the same.",
        panels,
        _legend(styles([ZEROSHOT, "plain", "mao"])),
    )


def _legend(drawn: Mapping[str, LineStyle]) -> dict[str, LineStyle]:
    return {method_name(method): style for method, style in drawn.items()}


def _base_against_new(
    axes: "Axes", title: str, points: Mapping[str, Points], names: Sequence[str], every: Points
) -> None:
    low, high = np.maximum(0, np.min(every, axis=0) - 6), np.minimum(101, np.max(every, axis=0) + 6)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    base = np.linspace(max(low[0], 1), high[0], 100)
    for h in range(10, 100, 10):  # the curve along which H is the same
        x = base[2 * base > h + 0.1]
        y = h * x / (2 * x - h)
        inside = (y > low[1]) & (y < high[1])
        if inside.any():
            axes.plot(x[inside], y[inside], color=COLOURS["line"], linewidth=0.8)
            write(axes, f"H {h}", (x[inside][0], y[inside][0]), (2, -7), fontsize=6.5, style="italic")
    for ends in zip(points["plain"], points["mao"], strict=True):
        axes.plot(*zip(*ends, strict=True), color=COLOURS["green"], linewidth=0.9)
    for method, style in styles(points).items():
        size = 4 if method == "mao" else 3.2
        place = zip(*points[method], strict=True)
        axes.plot(*place, style.marker, color=COLOURS[style.colour], markersize=size, alpha=0.9)
    own = [point for of_method in points.values() for point in of_method]
    place_names(axes, SCATTER_HEIGHT, [*zip(names, points["mao"], strict=True)], own)
    axes.set(xlabel="base classes, %", ylabel="new classes, %", title=title)


def plot_cost(runs: ExperimentRuns) -> FigurePanels:
    """Accuracy against seconds of tuning, where there are several rows to compare."""
    scores, name = runs.scores, MEASURES[runs.scores.measure]
    keys, cells = scores.compared
    shown = [key for key in keys if cells and key[1] not in CONTROLS]
    averages = {key: scores.average(key)[scores.measure].mean for key in shown}
    drawn = styles(method for _, method, _ in averages if method != ZEROSHOT)
    lines, names = [], []
    for (learner, method, variant), average in averages.items():
        if method != ZEROSHOT:
            costs = scores.costs_by_key[learner, method, variant]["seconds"]
            seconds = costs.groupby(level="dataset").mean()[list(cells)].mean()
            place = (max(0.01, seconds), average)
            lines.append(Line(drawn[method], [place]))
            names.append((f"{learner_name(learner)} {variant}".strip(), place))

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import LogLocator

        paint_lines(axes, lines, "", ("seconds of tuning", f"{name}, %"), averages.get(CLIP))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axes.minorticks_off()
        axes.margins(x=0.25, y=0.1)
        place_names(axes, HEIGHT, names, [place for _, place in names])

    where = f"over {len(cells)} data sets" if len(cells) > 1 else f"on {next(iter(cells), '')}"
    dotted = "; the dotted line is zero-shot CLIP." if CLIP in averages else "."
    return draw_panels(
        f"{runs.name}-cost-figure",
        f"What tuning costs and what it brings: {name} against seconds of tuning, means {where}{dotted}",
        [(f"{name} against seconds of tuning", paint, HEIGHT)] if len(lines) > 1 else [],
        _legend(drawn),
    )


def plot_curves(runs: ExperimentRuns) -> FigurePanels:
    """Accuracy as one number of the recipe is varied: its variants are called ``name=number``."""
    scores = runs.scores
    curves: dict[tuple[str, str], dict[str, list[tuple[float, Key]]]] = {}
    for key in scores.compared[0] if scores.compared[1] else ():
        name, equals, value = key[2].partition("=")
        if equals and value.replace(".", "", 1).isdigit():
            curves.setdefault((name, key[0]), {}).setdefault(key[1], []).append((float(value), key))
    curves = {place: {m: sorted(line) for m, line in of.items() if len(line) > 1} for place, of in curves.items()}
    zeroshot = scores.average(CLIP) if CLIP in scores.compared[0] else {}
    drawn = styles(method for of in curves.values() for method in of)
    panels = []
    for (name, learner), of_method in curves.items():
        averages = {method: [(value, scores.average(key)) for value, key in of] for method, of in of_method.items()}
        tests = next(iter(averages.values()))[0][1] if averages else {}
        for test in [test for test in ("base", "new", "h", "average", "all", "test") if test in tests]:
            title = {"h": "H", "all": "accuracy"}.get(test, f"{test} accuracy")
            lines = [
                Line(drawn[method], [(x, of[test].mean) for x, of in points], [of[test].std or 0.0 for _, of in points])
                for method, points in averages.items()
            ]
            labels = (SETTINGS.get(name, name), f"{title}, %")
            level = zeroshot[test].mean if test in zeroshot else None
            paint = partial(_curve, lines=lines, title=learner_name(learner), labels=labels, level=level)
            panels.append((f"{learner}: {title} by {labels[0]}", paint, HEIGHT))
    return draw_panels(
        f"{runs.name}-curves",
        f"Accuracy as one setting is varied, averages over {len(scores.compared[1])} data sets; bars are standard "
        f"deviations over seeds{', the dotted line is zero-shot CLIP' if zeroshot else ''}.",
        panels,
        _legend(drawn),
    )


def _curve(axes: "Axes", lines: Sequence[Line], **shown: Any) -> None:
    paint_lines(axes, lines, **shown)
    ticks = sorted({x for line in lines for x, _ in line.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def plot_losses(runs: ExperimentRuns) -> FigurePanels:
    """The loss of every epoch, stage after stage: a panel per learner, mean over data sets and seeds."""
    tuned = [key for key in runs.scores.compared[0] if key[1] not in (ZEROSHOT, *CONTROLS) and not key[2]]
    drawn = styles(method for _, method, _ in tuned)
    panels = []
    for learner in dict.fromkeys(learner for learner, _, _ in tuned):
        lines = {key[1]: of for key in tuned if key[0] == learner and (of := _stage_losses(runs, key, drawn[key[1]]))}
        if lines:
            paint = partial(_losses, lines=[line for of in lines.values() for line in of], title=learner_name(learner))
            panels.append((f"{learner}: loss by epoch of {', '.join(lines)}", paint, HEIGHT))
    return draw_panels(
        f"{runs.name}-losses",
        "Loss of each epoch, all terms together, mean over data sets and seeds. The stages of MAO see other images and "
        "other candidates than plain tuning, so only the shapes of the curves compare, not their heights.",
        panels,
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


def _losses(axes: "Axes", lines: Sequence[Line], title: str) -> None:
    paint_lines(axes, lines, title, ("epoch", "loss"))
    axes.locator_params("x", integer=True)
    axes.set_ylim(bottom=0)


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
