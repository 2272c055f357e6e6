"""Drawings by matplotlib as ``<svg>`` elements that belong into a page: its fonts, its colours, light or dark."""

import html
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from maotune.report.document import Key, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.9, 3.0
"""Inches of a panel; it is drawn as wide as the page lets it be."""

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
"""Names of CSS variables of the page, and what stands for them while drawing. After Okabe and Ito's palette, which
colour-blind people can tell apart; a marker goes with each colour."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a method is drawn."""

    colour: str
    marker: str
    """Matplotlib's."""
    mark: str
    """The same, as a character for legends."""
    dash: str = "-"


METHODS = {
    "zeroshot": Style("muted", "s", "■", ":"),
    "plain": Style("blue", "o", "●", "-"),
    "step-matched": Style("orange", "^", "▲", "--"),
    "mao": Style("green", "D", "◆", "-"),
}
OTHERS = (
    Style("red", "v", "▼", "-."),
    Style("purple", "P", "✚", "--"),
    Style("sky", "X", "✖", "-."),
    Style("ink", ">", "▶", ":"),
    Style("orange", "<", "◀", "-"),
    Style("blue", "h", "⬢", "--"),
)


def styles(methods: list[str]) -> dict[str, Style]:
    """A style for each: the well-known ones always have the same."""
    others = [method for method in methods if method not in METHODS]
    return {m: METHODS.get(m) or OTHERS[others.index(m) % len(OTHERS)] for m in methods}


def keys(found: dict[str, Style]) -> tuple[Key, ...]:
    """A legend."""
    return tuple(Key(style.mark, style.colour, name) for name, style in found.items())


def colour(name: str) -> str:
    """What matplotlib is told for a colour of the page."""
    return COLOURS[name]


@contextmanager
def _manner() -> "Iterator[None]":
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
    """A panel of one pair of axes.

    Args:
        name: unique in the page; ids inside the drawing begin with it.
        label: what the drawing shows, in words.
        paint: draws into the axes, with ``colour(...)`` for colours.
        height: in inches.
    """
    return Panel(label, partial(_draw, name, label, paint, height))


def _draw(name: str, label: str, paint: "Callable[[Axes], object]", height: float) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _manner():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(file.getvalue(), name, label)


def _for_page(svg: str, name: str, label: str) -> str:
    """Only the element itself, with ids of its own, the page's colours and font, and a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    for variable, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{variable})")
    svg = svg.replace("'DejaVu Sans'", "var(--sans)").replace("\n", " ")
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    svg = re.sub(r">\s+<", "><", svg)
    box = re.search(r'viewBox="([^"]+)"', svg)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    said = html.escape(label)
    opened = f'<svg {spaces} viewBox="{box[1] if box else ""}" role="img" aria-label="{said}"><title>{said}</title>'
    return re.sub(r"<svg [^>]*>", lambda old: opened, svg, count=1)
