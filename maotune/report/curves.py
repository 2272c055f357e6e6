"""The figures with an axis along which something goes on: epochs, shots, K, the confidence of labels."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from maotune.mao.methods import ZEROSHOT
from maotune.report.document import Figure, Panel
from maotune.report.study import Study, short_names
from maotune.report.summary import Series
from maotune.report.svg import Style, colour, draw, keys, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETTINGS = {
    "shots": "labelled images a class",
    "K": "K, classes a query of the base stage",
    "S": "S, unlabelled images a new class",
}
"""What the variants of an experiment vary, and what the axis calls it."""


def curves(study: Study) -> Figure | None:
    """What becomes of accuracy as one number of the recipe is varied: variants are called ``name=number``."""
    points: dict[tuple[str, str, str], list[tuple[float, Series]]] = {}
    for one in study.averaged:
        name, equals, value = one.variant.partition("=")
        if equals and value.replace(".", "", 1).isdigit():
            points.setdefault((name, one.learner, one.method), []).append((float(value), one))
    points = {key: sorted(of, key=lambda pair: pair[0]) for key, of in points.items() if len(of) > 1}
    if not points:
        return None
    zeroshot = next((one.average(study.cells) for one in study.averaged if one.method == ZEROSHOT), {})
    drawn = styles(list(dict.fromkeys(method for _, _, method in points)))
    panels: list[Panel] = []
    for name, learner in dict.fromkeys((name, learner) for name, learner, _ in points):
        of_it = {method: of for (setting, who, method), of in points.items() if (setting, who) == (name, learner)}
        tests = next(iter(of_it.values()))[0][1].average(study.cells)
        for test in [test for test in ("base", "new", "h", "average", "all", "test") if test in tests]:
            lines = {
                method: [(value, one.average(study.cells)[test]) for value, one in of] for method, of in of_it.items()
            }
            heights = {method: [(x, y.mean, y.std or 0.0) for x, y in of] for method, of in lines.items()}
            called = {"h": "H", "all": "accuracy"}.get(test, f"{test} accuracy")
            panels.append(
                draw(
                    f"{study.name}-curve-{len(panels)}",
                    f"{learner}: {called} by {SETTINGS.get(name, name)}",
                    partial(
                        _curve,
                        title=learner,
                        labels=(SETTINGS.get(name, name), f"{called}, %"),
                        lines=heights,
                        drawn=drawn,
                        level=zeroshot[test].mean if test in zeroshot else None,
                    ),
                )
            )
    return Figure(
        f"{study.name}-curves",
        f"Accuracy as one setting is varied, averages over {len(study.cells)} data sets; bars are standard "
        f"deviations over seeds{', the dotted line is zero-shot CLIP' if zeroshot else ''}.",
        tuple(panels),
        keys(drawn),
    )


def _curve(
    axes: "Axes",
    title: str,
    labels: tuple[str, str],
    lines: Mapping[str, list[tuple[float, float, float]]],
    drawn: Mapping[str, Style],
    level: float | None,
) -> None:
    for method, of in lines.items():
        x, y, bars = zip(*of, strict=True)
        style = drawn[method]
        axes.errorbar(
            x, y, bars, color=colour(style.colour), marker=style.marker, linestyle=style.dash, elinewidth=0.8,
            capsize=2, markersize=4,
        )  # fmt: skip
    if level is not None:
        axes.axhline(level, color=colour("muted"), linestyle=":", linewidth=1)
    ticks = sorted({value for of in lines.values() for value, _, _ in of})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)


def losses(study: Study) -> Figure | None:
    """The loss of every epoch, stage after stage: a panel a learner, mean over data sets and seeds."""
    tuned = [one for one in study.averaged if one.method != ZEROSHOT and not one.variant]
    drawn = styles(list(dict.fromkeys(one.method for one in tuned)))
    panels: list[Panel] = []
    for learner in dict.fromkeys(one.learner for one in tuned):
        found = {one.method: _stage_losses(study, one) for one in tuned if one.learner == learner}
        found = {method: stages for method, stages in found.items() if stages}
        if found:
            said = f"{learner}: loss by epoch of {', '.join(found)}"
            paint = partial(_losses, title=learner, found=found, drawn=drawn)
            panels.append(draw(f"{study.name}-loss-{len(panels)}", said, paint))
    if not panels:
        return None
    return Figure(
        f"{study.name}-losses",
        "Loss of each epoch, all terms together, mean over data sets and seeds. The stages of MAO look at other "
        "images and "
        "other candidates than plain tuning, so heights do not compare, only courses.",
        tuple(panels),
        keys(drawn),
    )


def _stage_losses(study: Study, one: Series) -> dict[str, list[float]]:
    """By stage, the mean loss of each epoch."""
    stages: dict[str, list[list[float]]] = {}
    for run in study.of(one):
        for stage in run.result.stages:
            stages.setdefault(stage["name"], []).append([sum(epoch.values()) for epoch in stage["losses"]])
    return {name: [fmean(epoch) for epoch in zip(*runs, strict=False)] for name, runs in stages.items() if any(runs)}


def _losses(axes: "Axes", title: str, found: Mapping[str, dict[str, list[float]]], drawn: Mapping[str, Style]) -> None:
    from matplotlib.ticker import MaxNLocator

    for method, stages in found.items():
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


def confidence(right: Sequence[float], wrong: Sequence[float], name: str) -> Panel:
    """How sure the labeler is where it is right, and where it is wrong."""

    def paint(axes: "Axes") -> None:
        edges = np.linspace(0, 1, 21).tolist()
        shades = [colour("green"), colour("orange")]
        axes.hist([[*right], [*wrong]], edges, stacked=True, color=shades)
        for patch in axes.patches[len(edges) - 1 :]:
            patch.set_hatch("////")
        axes.set(xlabel="confidence", ylabel="images", title="right and wrong labels")

    return draw(name, f"{len(right)} right and {len(wrong)} wrong pseudo-labels by confidence", paint)


def balance(shares: Mapping[str, Sequence[float]], name: str) -> Panel:
    """How many images each class was given, 1 being an equal share."""

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

    return draw(
        name, "images that each class was given, against an equal share", paint, height=1.1 + 0.24 * len(shares)
    )
