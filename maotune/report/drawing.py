"""Drawings by matplotlib as ``<svg>`` elements of a page: in its fonts and colours, light or dark."""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maotune.report.content import FigurePanels, LineStyle, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Paint = Callable[[Axes], object]

TEMPLATES = files("maotune.report") / "templates"
WIDTH, HEIGHT = 3.9, 3.0
"""Inches of a panel; the page scales it."""
COLOURS = dict(re.findall(r"--(\w+): (#\w+);", (TEMPLATES / "page.css").read_text(encoding="utf-8").split("@media")[0]))
"""CSS variables of the page, and the colours that stand for them while drawing. A colour-blind-safe palette, after
Okabe and Ito; a marker goes with each colour."""
STYLES = {
    "zeroshot": LineStyle("muted", "s", "■", ":"),
    "plain": LineStyle("blue", "o", "●", "-"),
    "step-matched": LineStyle("orange", "^", "▲", "--"),
    "mao": LineStyle("green", "D", "◆", "-"),
    "two-prompts": LineStyle("purple", "P", "✚", "--"),
}
OTHERS = (
    LineStyle("red", "v", "▼", "-."),
    LineStyle("sky", "X", "✖", "-."),
    LineStyle("ink", ">", "▶", ":"),
    LineStyle("orange", "<", "◀", "-"),
    LineStyle("blue", "h", "⬢", "--"),
)


def styles(methods: Iterable[str]) -> dict[str, LineStyle]:
    """Return a style per method; well-known methods always have the same."""
    methods = list(dict.fromkeys(methods))
    others = [method for method in methods if method not in STYLES]
    return {m: STYLES.get(m) or OTHERS[others.index(m) % len(OTHERS)] for m in methods}


def draw_panels(
    name: str,
    caption: str,
    panels: "Iterable[tuple[str, Paint, float]]",
    legend: Mapping[str, LineStyle],
    width: float = WIDTH,
) -> FigurePanels:
    """Return a figure.

    Args:
        name: unique in the page; ids inside the drawings begin with it.
        caption: below the drawings.
        panels: of each a description for people who do not see it, a function that paints into its axes, with
            ``COLOURS``, and its height in inches.
        legend: meaning -> mark and colour.
        width: of a panel in inches.
    """
    drawn = [
        Panel(label, partial(_draw, f"{name}-{number}", label, paint, (width, height)))
        for number, (label, paint, height) in enumerate(panels)
    ]
    return FigurePanels(name, caption, drawn, legend, wide=width > WIDTH)


def _draw(name: str, label: str, paint: "Paint", size: tuple[float, float]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    parts = {"ink": ("text.color", "axes.titlecolor"), "line": ("grid.color",), "paper": ("hatch.color",)}
    parts["muted"] = ("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    colours = {part: COLOURS[colour] for colour, of in parts.items() for part in of}
    with mpl.rc_context(colours, str(TEMPLATES / "drawing.mplstyle")):
        figure, file = Figure(figsize=size), io.StringIO()
        paint(figure.add_subplot())
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_page(file.getvalue(), name, label)


def _for_page(svg: str, name: str, label: str) -> str:
    """Return the ``<svg>`` element with unique ids, the page's colours and font, and a label for screen readers."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    for variable, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{variable})")
    svg = svg.replace("'DejaVu Sans'", "var(--sans)").replace("\n", " ")
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    svg = re.sub(r">\s+<", "><", svg)
    box = re.search(r'viewBox="([^"]+)"', svg)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    text = html.escape(label)
    opened = f'<svg {spaces} viewBox="{box[1] if box else ""}" role="img" aria-label="{text}"><title>{text}</title>'
    return re.sub(r"<svg [^>]*>", lambda old: opened, svg, count=1)


class Line(NamedTuple):
    """Points of one method."""

    style: LineStyle
    points: Sequence[tuple[float, float]]
    bars: Sequence[float] | None = None
    name: str = ""
    """Written beside the first point."""


def paint_lines(
    axes: "Axes", lines: Iterable[Line], title: str, labels: tuple[str, str], level: float | None = None
) -> None:
    """Draw lines with their markers, bars and names; zero-shot CLIP as a dotted line at ``level``."""
    for line in lines:
        x, y = zip(*line.points, strict=True)
        colour, dash = COLOURS[line.style.colour], line.style.dash
        marks: dict[str, Any] = {"marker": line.style.marker, "linestyle": dash, "color": colour}
        axes.errorbar(x, y, line.bars, markersize=4, linewidth=1.3, elinewidth=0.8, capsize=2, **marks)
        write(axes, line.name, line.points[0], (4, 4))
    if level is not None:
        axes.axhline(level, color=COLOURS["muted"], linestyle=":", linewidth=1)
    axes.grid(axis="y")
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)


def write(axes: "Axes", text: str, place: tuple[float, float], offset: tuple[float, float], **look: Any) -> None:
    """Write a small text beside a place, ``offset`` points away."""
    look = {"fontsize": 7, "color": COLOURS["muted"]} | look
    axes.annotate(text, place, offset, textcoords="offset points", **look)


def label_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Let the y axis be one row per name, from the top down."""
    axes.set_yticks(range(len(names)), [*names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)


def place_names(
    axes: "Axes", height: float, names: Sequence[tuple[str, tuple[float, float]]], points: Sequence[tuple[float, float]]
) -> None:
    """Write names beside their places, where they cover the fewest points and other names.

    Args:
        axes: with their final scales and limits.
        height: of the panel in inches.
        names: with their places.
        points: that should stay visible.
    """
    from matplotlib.textpath import TextPath

    share = (axes.transScale + axes.transLimits).transform  # from data to shares of the axes
    unit = 1 / np.array([72 * WIDTH * 0.84, 72 * height * 0.8])  # of one point
    taken = [(point - 3 * unit, point + 3 * unit) for point in share(points)]
    for name, place in names:
        size = np.array([TextPath((0, 0), name, size=7, usetex=False).get_extents().width if name.strip() else 0, 6])
        offsets = np.array([(dx, dy) for dy in (-2.5, 4, -9, 10, -15) for dx in (5, -5 - size[0], -size[0] / 2)])
        starts = share([place]) + offsets * unit
        ends = starts + size * unit
        low, high = np.array(taken).swapaxes(0, 1)
        shared = np.minimum(ends[:, None], high) - np.maximum(starts[:, None], low)
        outside = ((starts < 0) | (ends > 1)).any(axis=1)
        covered = shared.clip(0).prod(axis=2).sum(axis=1) + outside * (size * unit).prod()
        best = covered.argmin()
        taken.append((starts[best], ends[best]))
        write(axes, name, place, offsets[best])
