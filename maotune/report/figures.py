"""The figures that compare methods: differences of MAO, base against new classes, cost against accuracy."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from maotune.mao.methods import ZEROSHOT
from maotune.report.document import Figure, Key, Panel
from maotune.report.study import Study, short_names
from maotune.report.summary import MEASURES, Series
from maotune.report.svg import WIDTH, colour, draw, keys, styles
from maotune.report.verdict import AGAINST, Comparison, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
SCATTER_HEIGHT = 3.5


def differences(study: Study, found: Sequence[Comparison]) -> Figure | None:
    """How MAO differs from each counterpart: the mean with its interval, and every data set with its seeds."""
    if not found or study.measure is None:
        return None
    panels: list[Panel] = []
    for learner in dict.fromkeys(one.learner for one in found):
        of_it = [one for one in found if one.learner == learner]
        names = list(dict.fromkeys(name for one in of_it for name in one.paired.pairs))
        said = ", ".join(f"{signed(one.paired.mean)} against {AGAINST[one.against]}" for one in of_it)
        panels.append(
            draw(
                f"{study.name}-difference-{len(panels)}",
                f"{learner}, MAO minus its counterpart in {MEASURES[study.measure]}: {said}",
                partial(_differences, title=learner, found=of_it, names=names, measure=MEASURES[study.measure]),
                height=1.1 + 0.27 * (len(names) + 1),
            )
        )
    every = styles([against for against in AGAINST if any(one.against == against for one in found)])
    return Figure(
        f"{study.name}-differences",
        "MAO minus its counterparts, data set by data set: right of zero MAO is better. Marks are means over "
        "seeds, small "
        "dots the seeds; on top stands the mean over data sets with its 95 % interval.",
        tuple(panels),
        tuple(Key(key.mark, key.colour, f"against {AGAINST[key.label]}") for key in keys(every)),
    )


def _differences(axes: "Axes", title: str, found: Sequence[Comparison], names: Sequence[str], measure: str) -> None:
    short, drawn = short_names(names), styles([one.against for one in found])
    offsets = np.linspace(-0.26, 0.26, len(found)) if len(found) > 1 else np.zeros(1)
    axes.axvline(0, color=colour("muted"), linewidth=0.8)
    axes.axhline(0.5, color=colour("line"), linewidth=0.8)
    for one, offset in zip(found, offsets, strict=True):
        style, shade = drawn[one.against], colour(drawn[one.against].colour)
        for place, name in enumerate(names, 1):
            values = [*one.paired.pairs.get(name, {}).values()]
            if values:
                y = [place + offset] * len(values)
                axes.plot(values, y, ".-", color=shade, linewidth=0.8, markersize=2.5, alpha=0.55)
                axes.plot(fmean(values), y[0], style.marker, color=shade, markersize=4.2)
        if one.paired.interval is not None:
            axes.plot(one.paired.interval, [offset] * 2, color=shade, linewidth=2.2, solid_capstyle="round")
        axes.plot(one.paired.mean, offset, style.marker, color=shade, markersize=6)
    axes.set_yticks(range(len(names) + 1), ["mean", *(short[name] for name in names)])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(names) + 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set(xlabel=f"difference of {measure}, percentage points", title=title)


def base_against_new(study: Study) -> Figure | None:
    """Where plain tuning and MAO take every data set, between base and new classes."""
    if study.measure != "h":
        return None
    by_key = {(one.learner, one.method, one.variant): one for one in study.series}
    zeroshot = by_key.get(("", ZEROSHOT, ""))
    panels: list[Panel] = []
    for mao in study.series:
        plain = by_key.get((mao.learner, "plain", mao.variant))
        names = [name for name in mao.rows if plain and name in plain.rows]
        if mao.method != "mao" or plain is None or not names:
            continue
        shown = [*([zeroshot] if zeroshot and all(name in zeroshot.rows for name in names) else []), plain, mao]
        points = {
            one.method: [(one.rows[name].scores["base"].mean, one.rows[name].scores["new"].mean) for name in names]
            for one in shown
        }
        panels.append(
            draw(
                f"{study.name}-scatter-{len(panels)}",
                f"{titled(mao)}: accuracy on base against new classes of {len(names)} data sets, plain and with MAO",
                partial(_base_against_new, title=titled(mao), points=points, names=[*short_names(names).values()]),
                height=SCATTER_HEIGHT,
            )
        )
    if not panels:
        return None
    return Figure(
        f"{study.name}-scatter",
        "Accuracy on base classes against new classes; a line leads from plain tuning to MAO on the same data "
        "set. Along a "
        "grey curve H is the same.",
        tuple(panels),
        keys(styles([*([ZEROSHOT] if zeroshot else []), "plain", "mao"])),
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
    """The curves along which H is 10, 20, ..."""
    base = np.linspace(max(low[0], 1), high[0], 100)
    for h in range(10, 100, 10):
        beyond = base[2 * base > h + 0.1]
        new = h * beyond / (2 * beyond - h)
        inside = (new > low[1]) & (new < high[1])
        if inside.any():
            axes.plot(beyond[inside], new[inside], color=colour("line"), linewidth=0.8)
            first = (beyond[inside][0], new[inside][0])
            axes.annotate(
                f"H {h}",
                first,
                (2, -7),
                textcoords="offset points",
                fontsize=6.5,
                color=colour("muted"),
                style="italic",
            )


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


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Area that two boxes (left, bottom, right, top) share."""
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def cost_against_accuracy(study: Study) -> Figure | None:
    """Seconds of tuning against what they bring."""
    tuned = [one for one in study.averaged if one.method != ZEROSHOT]
    if study.measure is None or len(tuned) < 2:
        return None
    called, count = MEASURES[study.measure], len(study.cells)
    every = f"over {count} data sets" if count > 1 else f"on {next(iter(study.cells))}"
    panel: Panel = draw(
        f"{study.name}-price",
        f"{called} against seconds of tuning",
        partial(_cost, study=study, tuned=tuned, called=called),
    )
    dotted = "; the dotted line is zero-shot CLIP." if len(tuned) < len(study.averaged) else "."
    return Figure(
        f"{study.name}-cost-figure",
        f"What tuning costs and what it brings: {called} against seconds of tuning, means {every}{dotted}",
        (panel,),
        keys(styles(list(dict.fromkeys(one.method for one in tuned)))),
    )


def _cost(axes: "Axes", study: Study, tuned: Sequence[Series], called: str) -> None:
    from matplotlib.ticker import LogLocator

    measure, drawn = study.measure or "", styles(list(dict.fromkeys(one.method for one in tuned)))
    for one in tuned:
        seconds = max(0.01, fmean(one.rows[name].seconds for name in study.cells))
        score, style = one.average(study.cells)[measure].mean, drawn[one.method]
        axes.plot(seconds, score, style.marker, color=colour(style.colour))
        axes.annotate(
            titled(one), (seconds, score), (5, 3), textcoords="offset points", fontsize=7, color=colour("muted")
        )
    for one in study.averaged:
        if one.method == ZEROSHOT:
            axes.axhline(one.average(study.cells)[measure].mean, color=colour("muted"), linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.margins(x=0.25, y=0.1)
    axes.set(xlabel="seconds of tuning", ylabel=f"{called}, %")


def titled(one: Series) -> str:
    """Learner and variant."""
    return f"{one.learner} {one.variant}".strip()
