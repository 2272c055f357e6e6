"""Build `icons-clipart`, clip art by amateurs of classes that icons-11 has: `python -m tools.icons.clipart --work DIR`.

The pictures are those of Debian's package `openclipart-png` (public domain), unpacked to `DIR/clipart`. A picture
belongs to a class where its file name is the class name, or the class name followed by counters, colours and names of
authors only. Names of authors are words that follow many different words (`AUTHOR_OF`). No picture is trained on: the
set is a target.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from maotune.data.sets.icons import CLIPART, FOLDER, SIZE
from tools.icons.duplicates import SAME, correlation, thumbnails
from tools.icons.suite import pack, record_checksums, slug_of, webp

PACKAGE = "openclipart-png 1:0.18+dfsg-19"
AUTHOR_OF = 5
"""A word that follows so many different words in the file names is a name of an author, not of a thing."""
LARGEST = 50_000_000
"""Pixels; larger files are skipped."""
PER_CLASS = 6
LEAST = 2
PLAIN = frozenset(
    {
        "icon",
        "bw",
        "big",
        "large",
        "small",
        "simple",
        "black",
        "white",
        "red",
        "green",
        "blue",
        "yellow",
        "orange",
        "purple",
        "pink",
        "brown",
        "grey",
        "gray",
    }
)
"""Words that say how a thing is drawn."""
NOT = frozenset({"bookmark", "flag", "image", "map", "network", "presentation", "window"})
"""Classes whose name means another thing in clip art, or whose pictures are not of it, as a contact sheet shows."""


def words_of(path: Path) -> list[str]:
    """The words of a file name, without digits."""
    return re.findall(r"[a-z]+", path.stem.lower())


def authors(paths: list[Path]) -> set[str]:
    """Words that follow many different words: names of authors."""
    before: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        words = words_of(path)
        for first, second in pairwise(words):
            before[second].add(first)
    return {word for word, others in before.items() if len(others) >= AUTHOR_OF}


def matches(paths: list[Path], classes: list[str]) -> dict[str, list[Path]]:
    """Class -> pictures, by the rule above."""
    known, found = authors(paths), defaultdict(list)
    names = {tuple(name.split()): name for name in classes}
    for path in paths:
        words = words_of(path)
        for length in (3, 2, 1):
            head, tail = words[:length], words[length:]
            singular = [*head[:-1], head[-1].removesuffix("s")] if head else []
            name = names.get(tuple(head)) or names.get(tuple(singular))
            if name and len(head) == length:
                if not tail or tail[0] in known | PLAIN:
                    found[name].append(path)
                break
    return found


def picture(path: Path) -> Image.Image | None:
    """The picture, cropped to its ink and shrunk to 64 x 64 RGBA; `None` where nothing or too little is drawn."""
    image: Image.Image = Image.open(path)
    if image.width * image.height > LARGEST:
        return None
    image = image.convert("RGBA")
    alpha = np.asarray(image)[..., 3] > 8
    if alpha.mean() > 0.98 or alpha.sum() < 64:  # no cut-out: its background would be part of the thing
        return None
    rows, columns = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
    image = image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.convert("RGBa").resize((SIZE - 4, SIZE - 4), Image.Resampling.LANCZOS).convert("RGBA")


def main() -> None:
    """Match, shrink, drop near-duplicates, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/icons"), help="where `clipart` and `choice.json` are")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the file goes")
    arguments = parser.parse_args()
    chosen = json.loads((arguments.work / "choice.json").read_text(encoding="utf-8"))["sets"]
    classes = sorted({name for entry in chosen.values() for name in entry} - NOT)
    root = arguments.work / "clipart"
    paths = sorted(root.rglob("*.png"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    files: dict[str, bytes] = {}
    listed: list[list[str]] = []
    names: list[str] = []
    for name, found in sorted(matches(paths, classes).items()):
        kept: list[Image.Image] = []
        thumbs = np.zeros((0, 32, 32), np.float32)
        for path in found:
            if len(kept) == PER_CLASS or (image := picture(path)) is None:
                continue
            canvas = Image.new("RGBa", (SIZE, SIZE))
            canvas.paste(image.convert("RGBa"), (2, 2))
            own = thumbnails(np.asarray(canvas)[None])
            if (correlation(own, thumbs) < SAME).all() if len(thumbs) else True:
                kept.append(canvas.convert("RGBA"))
                thumbs = np.concatenate([thumbs, own])
        if len(kept) >= LEAST:
            entries = [f"test/{slug_of(name)}/clipart--{index}.webp" for index in range(len(kept))]
            files |= {entry: webp(image) for entry, image in zip(entries, kept, strict=True)}
            listed.append(entries)
            names.append(name)
    content = pack(CLIPART, names, {"train": [[] for _ in names], "val": [[] for _ in names], "test": listed}, files)
    (arguments.out / f"{CLIPART}.zip").write_bytes(content)
    record_checksums(arguments.out)
    print(f"{CLIPART}: {len(names)} classes, {len(files)} pictures, {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
