"""One self-contained page of the pool, on which labels are corrected; and a sheet of pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from maotune.data.sets.dataset import Sample
from maotune.files import open_atomic, write_atomic
from maotune.printable import escape_controls
from maotune.review.pool import PoolImage
from maotune.runs.corrections import NONE

SIDE = 112
"""Of a thumbnail, in pixels."""
_COLUMNS, _CAPTION = 5, 18


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """The images of one class, or the suspects."""

    title: str
    images: Sequence[PoolImage]
    total: int
    """Images of this row, of which the least sure ones are shown."""
    confirm: str = ""
    """What a button says of all of them; default: that their labels are right."""


def write_review(images: Sequence[PoolImage], classes: Sequence[str], title: str, path: Path, most: int) -> None:
    """Write the page: the suspects, then a row per class with up to ``most`` images, least sure first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    suspects = [image for image in images if image.suspect]
    rows = [ReviewRow("Perhaps none of the classes", suspects[:most], len(suspects), NONE)] if suspects else []
    for name in classes:
        members = [image for image in images if image.label == name and not image.suspect]
        rows.append(ReviewRow(name, members[:most], len(members)))
    environment = Environment(
        loader=PackageLoader("maotune.review"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=True, finalize=lambda value: escape_controls(value, keep="\n") if type(value) is str else value,
    )  # fmt: skip
    environment.filters["thumbnail"] = thumbnail
    template = environment.get_template("review.html")
    write_atomic(path, template.render(rows=rows, classes=classes, title=title, no_class=NONE, pool=len(images)))


def thumbnail(sample: Sample) -> str:
    """Return a small picture as the address of an image."""
    picture = ImageOps.contain(sample.image.read(), (SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, format="webp", quality=80)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def write_sheet(samples: Sequence[Sample], captions: Sequence[str], path: Path) -> None:
    """Write the pictures with their captions as one PNG."""
    side, rows = 2 * SIDE, -(-len(samples) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * side, rows * (side + _CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        left, top = number % _COLUMNS * side, number // _COLUMNS * (side + _CAPTION)
        sheet.paste(ImageOps.pad(sample.image.read(), (side - 6, side - 6), color="white"), (left + 3, top + 3))
        draw.text((left + 4, top + side - 2), escape_controls(caption)[:34], fill="black", font=font)
    with open_atomic(path) as file:
        sheet.save(file, format="png")
