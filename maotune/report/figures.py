"""The figures of a report: differences of MAO, base against new classes, cost, curves, losses, pseudo-labels."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from maotune.mao.methods import ZEROSHOT
from maotune.report.compare import AGAINST, MaoComparison
from maotune.report.content import FigurePanels, LegendEntry, Panel
from maotune.report.drawing import WIDTH, LineStyle, colour, draw, legend, styles
from maotune.report.frame import MEASURES, ExperimentRuns, Key, Scores, short_names
from maotune.report.sentences import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
SCATTER_HEIGHT = 3.5
SETTINGS = {
    "shots": "labelled images per class",
    "K": "K, classes per query of the base stage",
    "S": "S, unlabelled images per new class",
}
"""Settings that variants vary -> label of the axis."""


def plot_differences(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> FigurePanels | None:
    """Differences of MAO from each counterpart: the mean with its interval, and every data set with its seeds."""
    if not comparisons or runs.scores.measure is None:
        return None
    measure = MEASURES[runs.scores.measure]
    panels: list[Panel] = []
    for learner in dict.fromkeys(each.learner for each in comparisons):
        group = [each for each in comparisons if each.learner == learner]
        names = list(dict.fromkeys(name for each in group for name in each.difference.by_dataset))
        figures = ", ".join(f"{signed(each.difference.mean)} against {AGAINST[each.against]}" for each in group)
        panels.append(
            draw(
                f"{runs.name}-difference-{len(panels)}",
                f"{learner}, MAO minus its counterpart in {measure}: {figures}",
                partial(_differences, title=learner, group=group, names=names, measure=measure),
                height=1.1 + 0.27 * (len(names) + 1),
            )
        )
    drawn = styles([against for against in AGAINST if any(each.against == against for each in comparisons)])
    return FigurePanels(
        f"{runs.name}-differences",
        "MAO minus its counterparts, data set by data set: right of zero MAO is better. Marks are means over seeds, "
        "small dots the seeds; at the top is the mean over data sets with its 95 % interval.",
        tuple(panels),
        tuple(LegendEntry(entry.mark, entry.colour, f"against {AGAINST[entry.label]}") for entry in legend(drawn)),
    )


def _differences(axes: "Axes", title: str, group: Sequence[MaoComparison], names: Sequence[str], measure: str) -> None:
    short, drawn = short_names(names), styles([each.against for each in group])
    offsets = np.linspace(-0.26, 0.26, len(group)) if len(group) > 1 else np.zeros(1)
    axes.axvline(0, color=colour("muted"), linewidth=0.8)
    axes.axhline(0.5, color=colour("line"), linewidth=0.8)
    for each, offset in zip(group, offsets, strict=True):
        style, shade = drawn[each.against], colour(drawn[each.against].colour)
        for name, gaps in each.difference.gaps.groupby(level=0):
            y = names.index(str(name)) + 1 + offset
            axes.plot(gaps, [y] * len(gaps), ".-", color=shade, linewidth=0.8, markersize=2.5, alpha=0.55)
            axes.plot(gaps.mean(), y, style.marker, color=shade, markersize=4.2)
        if each.difference.interval is not None:
            axes.plot(each.difference.interval, [offset] * 2, color=shade, linewidth=2.2, solid_capstyle="round")
        axes.plot(each.difference.mean, offset, style.marker, color=shade, markersize=6)
    axes.set_yticks(range(len(names) + 1), ["mean", *(short[name] for name in names)])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(names) + 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set(xlabel=f"difference of {measure}, percentage points", title=title)


def plot_base_against_new(runs: ExperimentRuns) -> FigurePanels | None:
    """Accuracy on base and new classes of every data set, with plain tuning and with MAO."""
    scores = runs.scores
    panels: list[Panel] = []
    for mao in scores.keys if scores.measure == "h" else ():
        plain = (mao[0], "plain", mao[2])
        names = [name for name in scores.datasets if {(mao, name), (plain, name)} <= scores.spreads.keys()]
        if mao[1] != "mao" or not names:
            continue
        points = {
            key[1]: [(row["base"].mean, row["new"].mean) for row in (scores.spreads[key, name] for name in names)]
            for key in (("", ZEROSHOT, ""), plain, mao)
        }
        title = f"{mao[0]} {mao[2]}".strip()
        panels.append(
            draw(
                f"{runs.name}-scatter-{len(panels)}",
                f"{title}: accuracy on base against new classes of {len(names)} data sets, plain and with MAO",
                partial(_base_against_new, title=title, points=points, names=[*short_names(names).values()]),
                height=SCATTER_HEIGHT,
            )
        )
    if not panels:
        return None
    return FigurePanels(
        f"{runs.name}-scatter",
        "Accuracy on base classes against new classes; a line leads from plain tuning to MAO on the same data set. "
        "Along a grey curve H is the same.",
        tuple(panels),
        legend(styles([ZEROSHOT, "plain", "mao"])),
    )


def _base_against_new(axes: "Axes", title: str, points: Mapping[str, list[Point]], names: Sequence[str]) -> None:
    every = [point for of_method in points.values() for point in of_method]
    low, high = np.maximum(0, np.min(every, axis=0) - 6), np.minimum(101, np.max(every, axis=0) + 6)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    _equal_h(axes, low, high)
    for start, end in zip(points["plain"], points["mao"], strict=True):
        arrow = {"arrowstyle": "-", "color": colour("green"), "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=arrow)
    for method, style in styles([*points]).items():
        x, y = zip(*points[method], strict=True)
        axes.plot(x, y, style.marker, color=colour(style.colour), markersize=4 if method == "mao" else 3.2, alpha=0.9)
    _name(axes, names, points["mao"], every)
    axes.set(xlabel="base classes, %", ylabel="new classes, %", title=title)


def _equal_h(axes: "Axes", low: Any, high: Any) -> None:
    """Draw the curves along which H is 10, 20, ..."""
    base = np.linspace(max(low[0], 1), high[0], 100)
    for h in range(10, 100, 10):
        beyond = base[2 * base > h + 0.1]
        new = h * beyond / (2 * beyond - h)
        inside = (new > low[1]) & (new < high[1])
        if inside.any():
            axes.plot(beyond[inside], new[inside], color=colour("line"), linewidth=0.8)
            where: dict[str, Any] = {
                "textcoords": "offset points",
                "fontsize": 6.5,
                "color": colour("muted"),
                "style": "italic",
            }
            axes.annotate(f"H {h}", (beyond[inside][0], new[inside][0]), (2, -7), **where)


def _name(axes: "Axes", names: Sequence[str], places: Sequence[Point], points: Sequence[Point]) -> None:
    """Write names beside their places, where they cover the fewest points and other names."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    across, up = (right - left) / (72 * WIDTH * 0.84), (top - bottom) / (72 * SCATTER_HEIGHT * 0.8)  # of a point
    taken = [(x - 3 * across, y - 3 * up, x + 3 * across, y + 3 * up) for x, y in points]
    for name, (x, y) in zip(names, places, strict=True):
        wide = 3.9 * len(name)
        choices = [(dx, dy) for dy in (-2.5, 4, -9, 10, -15) for dx in (5, -5 - wide, -wide / 2)]
        boxes = [(x + dx * across, y + dy * up, x + (dx + wide) * across, y + (dy + 6) * up) for dx, dy in choices]
        covered = []
        for box in boxes:
            outside = box[0] < left or box[2] > right or box[1] < bottom or box[3] > top
            covered.append(sum(_overlap(box, other) for other in taken) + outside * 6 * up * wide * across)
        best = covered.index(min(covered))
        taken.append(boxes[best])
        axes.annotate(name, (x, y), choices[best], textcoords="offset points", fontsize=7, color=colour("muted"))


def _overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Return the area that two boxes (left, bottom, right, top) share."""
    wide, high = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def plot_cost(runs: ExperimentRuns) -> FigurePanels | None:
    """Accuracy against seconds of tuning."""
    scores = runs.scores
    keys, cells = scores.compared
    tuned = [key for key in keys if key[1] != ZEROSHOT]
    if scores.measure is None or not cells or len(tuned) < 2:
        return None
    name = MEASURES[scores.measure]
    where = f"over {len(cells)} data sets" if len(cells) > 1 else f"on {next(iter(cells))}"
    dotted = "; the dotted line is zero-shot CLIP." if len(tuned) < len(keys) else "."
    paint = partial(_cost, scores=scores, measure=scores.measure, tuned=tuned)
    return FigurePanels(
        f"{runs.name}-cost-figure",
        f"What tuning costs and what it brings: {name} against seconds of tuning, means {where}{dotted}",
        (draw(f"{runs.name}-price", f"{name} against seconds of tuning", paint),),
        legend(styles(list(dict.fromkeys(method for _, method, _ in tuned)))),
    )


def _cost(axes: "Axes", scores: Scores, measure: str, tuned: Sequence[Key]) -> None:
    from matplotlib.ticker import LogLocator

    drawn = styles(list(dict.fromkeys(method for _, method, _ in tuned)))
    for key in tuned:
        by_dataset = scores.costs_by_key[key]["seconds"].groupby(level="dataset").mean()
        seconds = by_dataset[list(scores.compared[1])].mean()
        place, style = (max(0.01, seconds), scores.average(key)[measure].mean), drawn[key[1]]
        axes.plot(*place, style.marker, color=colour(style.colour))
        title = f"{key[0]} {key[2]}".strip()
        axes.annotate(title, place, (5, 3), textcoords="offset points", fontsize=7, color=colour("muted"))
    if ("", ZEROSHOT, "") in scores.compared[0]:
        level = scores.average(("", ZEROSHOT, ""))[measure].mean
        axes.axhline(level, color=colour("muted"), linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.margins(x=0.25, y=0.1)
    axes.set(xlabel="seconds of tuning", ylabel=f"{MEASURES[measure]}, %")


def plot_curves(runs: ExperimentRuns) -> FigurePanels | None:
    """Accuracy as one number of the recipe is varied: its variants are called ``name=number``."""
    scores = runs.scores
    points: dict[tuple[str, str, str], list[tuple[float, Key]]] = {}
    for key in scores.compared[0] if scores.compared[1] else ():
        name, equals, value = key[2].partition("=")
        if equals and value.replace(".", "", 1).isdigit():
            points.setdefault((name, key[0], key[1]), []).append((float(value), key))
    points = {place: sorted(line) for place, line in points.items() if len(line) > 1}
    if not points:
        return None
    zeroshot = scores.average(("", ZEROSHOT, "")) if ("", ZEROSHOT, "") in scores.compared[0] else {}
    drawn = styles(list(dict.fromkeys(method for _, _, method in points)))
    panels: list[Panel] = []
    for name, learner in dict.fromkeys((name, learner) for name, learner, _ in points):
        lines = {method: line for (setting, who, method), line in points.items() if (setting, who) == (name, learner)}
        averages = {method: [(value, scores.average(key)) for value, key in line] for method, line in lines.items()}
        tests = next(iter(averages.values()))[0][1]
        for test in [test for test in ("base", "new", "h", "average", "all", "test") if test in tests]:
            title = {"h": "H", "all": "accuracy"}.get(test, f"{test} accuracy")
            setting = SETTINGS.get(name, name)
            paint = partial(
                _curve,
                title=learner,
                axis_labels=(setting, f"{title}, %"),
                lines={
                    method: [(value, row[test].mean, row[test].std or 0.0) for value, row in line]
                    for method, line in averages.items()
                },
                drawn=drawn,
                level=zeroshot[test].mean if test in zeroshot else None,
            )
            panels.append(draw(f"{runs.name}-curve-{len(panels)}", f"{learner}: {title} by {setting}", paint))
    return FigurePanels(
        f"{runs.name}-curves",
        f"Accuracy as one setting is varied, averages over {len(scores.compared[1])} data sets; bars are standard "
        f"deviations over seeds{', the dotted line is zero-shot CLIP' if zeroshot else ''}.",
        tuple(panels),
        legend(drawn),
    )


def _curve(
    axes: "Axes",
    title: str,
    axis_labels: tuple[str, str],
    lines: Mapping[str, list[tuple[float, float, float]]],
    drawn: Mapping[str, LineStyle],
    level: float | None,
) -> None:
    for method, line in lines.items():
        x, y, bars = zip(*line, strict=True)
        style = drawn[method]
        marks: dict[str, Any] = {"marker": style.marker, "linestyle": style.dash, "markersize": 4}
        axes.errorbar(x, y, bars, color=colour(style.colour), elinewidth=0.8, capsize=2, **marks)
    if level is not None:
        axes.axhline(level, color=colour("muted"), linestyle=":", linewidth=1)
    ticks = sorted({value for line in lines.values() for value, _, _ in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=title)


def plot_losses(runs: ExperimentRuns) -> FigurePanels | None:
    """The loss of every epoch, stage after stage: a panel per learner, mean over data sets and seeds."""
    tuned = [key for key in runs.scores.compared[0] if key[1] != ZEROSHOT and not key[2]]
    drawn = styles(list(dict.fromkeys(method for _, method, _ in tuned)))
    panels: list[Panel] = []
    for learner in dict.fromkeys(learner for learner, _, _ in tuned):
        losses = {key[1]: stages for key in tuned if key[0] == learner and (stages := _stage_losses(runs, key))}
        if losses:
            label = f"{learner}: loss by epoch of {', '.join(losses)}"
            paint = partial(_losses, title=learner, losses=losses, drawn=drawn)
            panels.append(draw(f"{runs.name}-loss-{len(panels)}", label, paint))
    if not panels:
        return None
    return FigurePanels(
        f"{runs.name}-losses",
        "Loss of each epoch, all terms together, mean over data sets and seeds. The stages of MAO see other images and "
        "other candidates than plain tuning, so only the shapes of the curves compare, not their heights.",
        tuple(panels),
        legend(drawn),
    )


def _stage_losses(runs: ExperimentRuns, key: Key) -> dict[str, list[float]]:
    """Return the mean loss of each epoch by stage."""
    stages: dict[str, list[list[float]]] = {}
    for run in runs.of(key):
        for stage in run.result.stages:
            stages.setdefault(stage["name"], []).append([sum(epoch.values()) for epoch in stage["losses"]])
    return {name: [fmean(epoch) for epoch in zip(*each, strict=False)] for name, each in stages.items() if any(each)}


def _losses(
    axes: "Axes", title: str, losses: Mapping[str, dict[str, list[float]]], drawn: Mapping[str, LineStyle]
) -> None:
    from matplotlib.ticker import MaxNLocator

    for method, stages in losses.items():
        style, done = drawn[method], 0
        for name, values in stages.items():
            epochs = range(done + 1, done + len(values) + 1)
            shade = colour(style.colour)
            axes.plot(epochs, values, style.dash, color=shade, marker=style.marker, markersize=3, linewidth=1.2)
            if len(stages) > 1:
                place = (epochs[0], values[0])
                axes.annotate(name, place, (2, 5), textcoords="offset points", fontsize=7, color=shade)
            done += len(values)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set(xlabel="epoch", ylabel="loss", title=title)


def plot_confidence(right: Sequence[float], wrong: Sequence[float], name: str) -> Panel:
    """Confidence of the labeler where it is right, and where it is wrong."""

    def paint(axes: "Axes") -> None:
        edges = np.linspace(0, 1, 21).tolist()
        axes.hist([[*right], [*wrong]], edges, stacked=True, color=[colour("green"), colour("orange")])
        for patch in axes.patches[len(edges) - 1 :]:
            patch.set_hatch("////")
        axes.set(xlabel="confidence", ylabel="images", title="right and wrong labels")

    return draw(name, f"{len(right)} right and {len(wrong)} wrong pseudo-labels by confidence", paint)


def plot_balance(shares: Mapping[str, Sequence[float]], name: str) -> Panel:
    """Images that each class was given, 1 being an equal share."""

    def paint(axes: "Axes") -> None:
        jitter = np.random.default_rng(0)
        for place, of_set in enumerate(shares.values()):
            heights = place + jitter.uniform(-0.22, 0.22, len(of_set))
            axes.plot(of_set, heights, ".", color=colour("blue"), markersize=3.5, alpha=0.6, markeredgewidth=0)
        axes.axvline(1, color=colour("muted"), linewidth=0.8)
        axes.set_yticks(range(len(shares)), [*short_names(shares).values()])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set(xlabel="images given to a class / an equal share", title="balance of the labels")

    label = "images that each class was given, against an equal share"
    return draw(name, label, paint, height=1.1 + 0.24 * len(shares))
