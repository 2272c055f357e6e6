"""Drawings by matplotlib as ``<svg>`` elements of a page: in its fonts and colours, light or dark."""

import html
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from maotune.report.content import LegendEntry, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.9, 3.0
"""Inches of a panel; the page scales it."""

COLOURS = {
    "ink": "#1c1f24",
    "muted": "#6b717b",
    "line": "#d5d8dd",
    "paper": "#fdfdfe",
    "blue": "#0072b2",
    "orange": "#d98200",
    "green": "#00815e",
    "red": "#c8501a",
    "purple": "#a95590",
    "sky": "#3f98c9",
}
"""CSS variables of the page, and the colours that stand for them while drawing. A colour-blind-safe palette, after
Okabe and Ito; a marker goes with each colour."""


@dataclass(frozen=True, slots=True)
class LineStyle:
    """Colour, marker and dashes of a method."""

    colour: str
    marker: str
    """Marker of matplotlib."""
    mark: str
    """The marker as a character, for legends."""
    dash: str = "-"


STYLES = {
    "zeroshot": LineStyle("muted", "s", "■", ":"),
    "plain": LineStyle("blue", "o", "●", "-"),
    "step-matched": LineStyle("orange", "^", "▲", "--"),
    "mao": LineStyle("green", "D", "◆", "-"),
}
OTHERS = (
    LineStyle("red", "v", "▼", "-."),
    LineStyle("purple", "P", "✚", "--"),
    LineStyle("sky", "X", "✖", "-."),
    LineStyle("ink", ">", "▶", ":"),
    LineStyle("orange", "<", "◀", "-"),
    LineStyle("blue", "h", "⬢", "--"),
)


def styles(methods: list[str]) -> dict[str, LineStyle]:
    """Return a style per method; well-known methods always have the same."""
    others = [method for method in methods if method not in STYLES]
    return {m: STYLES.get(m) or OTHERS[others.index(m) % len(OTHERS)] for m in methods}


def legend(drawn: dict[str, LineStyle]) -> tuple[LegendEntry, ...]:
    """Return a legend."""
    return tuple(LegendEntry(style.mark, style.colour, name) for name, style in drawn.items())


def colour(name: str) -> str:
    """Return the drawing colour of a CSS variable."""
    return COLOURS[name]


@contextmanager
def _page_style() -> "Iterator[None]":
    import matplotlib as mpl

    settings: dict[str, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "maotune",  # the same drawing, the same bytes
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.edgecolor": COLOURS["muted"],
        "axes.labelcolor": COLOURS["muted"],
        "axes.titlecolor": COLOURS["ink"],
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "hatch.color": COLOURS["paper"],
        "hatch.linewidth": 0.8,
        "lines.linewidth": 1.5,
        "lines.markersize": 5,
    }
    with mpl.rc_context(settings):
        yield


def draw(name: str, label: str, paint: "Callable[[Axes], object]", height: float = HEIGHT) -> Panel:
    """Return a panel with one pair of axes.

    Args:
        name: unique in the page; ids inside the drawing begin with it.
        label: describes the drawing, for people who do not see it.
        paint: draws into the axes, with ``colour(...)`` for colours.
        height: in inches.
    """
    return Panel(label, partial(_draw, name, label, paint, height))


def _draw(name: str, label: str, paint: "Callable[[Axes], object]", height: float) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _page_style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(file.getvalue(), name, label)


def _for_page(svg: str, name: str, label: str) -> str:
    """Return the ``<svg>`` element with unique ids, the page's colours and font, and a label for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
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
