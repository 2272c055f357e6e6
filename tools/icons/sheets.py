"""Contact sheets of icons-11 for the docs: `python -m tools.icons.sheets`."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from maotune.data.sets.icons import SETS, SIZE, SPLITS, load

CLASSES = 20
"""Classes on a sheet, evenly spaced; one row for each image."""
ROWS = {"train": 2, "val": 2, "test": 2}


def sheet(name: str) -> Image.Image:
    """Two training, two validation and two test images (top to bottom) of evenly spaced classes (left to right)."""
    data = load(name)
    count = min(CLASSES, len(data.classes))
    chosen = [index * len(data.classes) // count for index in range(count)]
    image = Image.new("RGB", (count * (SIZE + 2) - 2, sum(ROWS.values()) * (SIZE + 2) + 10), "white")
    top = 0
    for split in SPLITS:
        samples = [sample.image for sample in getattr(data, split) if sample.label in chosen]
        for row in range(ROWS[split]):
            for column, label in enumerate(chosen):
                own = [sample for sample in samples if sample.label == label]
                # the images of a drawing follow one another by the number of drawings: two different ones
                image.paste(own[row % len(own)].read(), (column * (SIZE + 2), top))
            top += SIZE + 2
        top += 6
    return image


def main() -> None:
    """Write `docs/img/icons-11/<set>.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/img/icons-11"), help="where the sheets go")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        # a palette: a sheet is for looking, and the eleven of them stay near a megabyte
        sheet(name).quantize(48, dither=Image.Dither.NONE).save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
