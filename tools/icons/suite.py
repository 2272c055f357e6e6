"""Build the shipped sets from the fetched icons: `python -m tools.icons.suite --work DIR [SET ...]`.

Writes `maotune/assets/icons-11/<set>.zip` and the checksums. The drawings of icons-11 are those of `DIR/choice.json`,
which `tools.icons.concepts` makes; those of the clip art are of `tools.icons.clipart`; those of the first edition are
listed in the shipped files themselves. The same sources and the same versions of the renderer and of Pillow give the
same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from maotune.data.sets.icons import FIRST_EDITION, FOLDER, SETS, SIZE, SPLITS
from tools.icons.concepts import deal
from tools.icons.corpus import corpus_drawings
from tools.icons.duplicates import SAME, copies, correlation, normalised, thumbnails, thumbs_of
from tools.icons.render import picture, svg

COMPOSITION: dict[str, Any] = {
    "scale": [0.55, 1.0],
    "turn": 20,
    "spots": 0.8,
    "clutter": 0.25,
    "grain": 0.12,
    "contrast": 0.4,
    "blur": 1.0,
}
"""How strongly images are composed: size range of the object, rotation in degrees, contrast of soft spots, share of
cluttered backgrounds, largest amplitude of the grain, spread of the contrast, largest blur radius in pixels."""

LEAST = 16
"""A class with fewer drawings is dropped."""

FEW = 6
"""A class with fewer test drawings shows each in three compositions, another in two."""

Source = tuple[str, str]
"""A style (iconify prefix) and the name of an icon in it."""


class Library:
    """The fetched icon sets, read when first asked for."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._sets: dict[str, dict[str, Any]] = {}

    def render(self, source: Source) -> Image.Image:
        """One picture, 64 x 64 RGBA, rendered anew so that the drawing fills it: margins differ from style to style."""
        prefix, name = source
        icon_set = self._set(prefix)
        icon = dict(icon_set["icons"][name])
        icon["body"] = icon["body"].replace(' opacity="0"', ' opacity="1"')  # animated icons start with hidden parts
        alpha = picture(svg(icon_set, icon, SIZE), SIZE)[..., 3] > 8
        rows, columns = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
        width, height = icon.get("width", icon_set.get("width", 16)), icon.get("height", icon_set.get("height", 16))
        unit = max(width, height) / SIZE  # of the drawing, in one pixel
        middle_x = (columns[0] + columns[-1] + 1) / 2 * unit - (max(width, height) - width) / 2
        middle_y = (rows[0] + rows[-1] + 1) / 2 * unit - (max(width, height) - height) / 2
        for margin in (2, 3, 4, 5):
            side = (max(rows[-1] - rows[0], columns[-1] - columns[0]) + margin) * unit
            left = icon.get("left", icon_set.get("left", 0)) + middle_x - side / 2
            top = icon.get("top", icon_set.get("top", 0)) + middle_y - side / 2
            close = {**icon, "left": left, "top": top, "width": side, "height": side}
            try:
                return Image.fromarray(picture(svg(icon_set, close, SIZE), SIZE))
            except BaseException as error:  # the renderer's own panics are no Exceptions; a few views provoke one
                if type(error).__name__ != "PanicException":
                    raise
        raise RuntimeError(f"{prefix}:{name} can not be rendered")

    def close(self, source: Source) -> bytes:
        """The WebP of `render`, kept in `DIR/close`."""
        path = self.work / "close" / f"{source[0]}--{source[1]}.webp"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(webp(self.render(source)))
        return path.read_bytes()

    def _set(self, prefix: str) -> dict[str, Any]:
        if prefix not in self._sets:
            path = self.work / "iconify" / "json" / f"{prefix}.json"
            self._sets[prefix] = json.loads(path.read_text(encoding="utf-8"))
        return self._sets[prefix]


def source_of(drawing: str) -> Source:
    """The style and name of `style:name`."""
    prefix, _, icon = drawing.partition(":")
    return prefix, icon


def slug_of(caption: str) -> str:
    """A class name as a folder name."""
    return re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")


def build(library: Library, seen: NDArray[np.float32], name: str) -> tuple[bytes, Counter[str]]:
    """The file of one set of icons-11, and what was counted: pictures, artists' sets, drawings dropped by each rule.

    The pictures are rendered closer than the corpus is, so the two rules about near-duplicates are applied to them
    again: none of `seen`, the thumbnails of the pretraining, and none of another drawing of its class.
    """
    chosen = json.loads((library.work / "choice.json").read_text(encoding="utf-8"))["sets"][name]
    files: dict[str, bytes] = {}
    counts: Counter[str] = Counter()
    listed: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    classes = []
    for caption in tqdm(sorted(chosen, key=str.lower), desc=name, disable=None):
        contents = {drawing: library.close(source_of(drawing)) for drawing in chosen[caption]}
        kept = distinct(contents, seen, counts)
        if len(kept) < LEAST:
            counts["classes with too few"] += 1
            continue
        classes.append(caption)
        for split, drawings in deal(kept, name).items():
            entries = [f"{split}/{slug_of(caption)}/{drawing.replace(':', '--', 1)}.webp" for drawing in drawings]
            files |= {entry: contents[drawing] for entry, drawing in zip(entries, drawings, strict=True)}
            listed[split].append(entries)
    counts["pictures"] = len(files)
    return pack(name, classes, listed, files), counts


def distinct(contents: dict[str, bytes], seen: NDArray[np.float32], counts: Counter[str]) -> list[str]:
    """The drawings of a class that are near-duplicates neither of the pretraining nor of one another."""
    drawings = list(contents)
    thumbs = thumbnails(np.stack([premultiplied(contents[drawing]) for drawing in drawings]))
    leaked = copies(seen, thumbs)
    alike = correlation(thumbs, thumbs) >= SAME
    alike |= alike.T  # only one side of a pair is shifted
    kept: list[int] = []
    for row in range(len(drawings)):
        if leaked[row]:
            counts["near-duplicates of the pretraining"] += 1
        elif alike[row, kept].any():
            counts["near-duplicates in a class"] += 1
        else:
            kept.append(row)
    return [drawings[row] for row in kept]


def premultiplied(content: bytes) -> NDArray[np.uint8]:
    """A picture's pixels with premultiplied colours: (64, 64, 4)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA").convert("RGBa"))


def corpus_rows(work: Path) -> NDArray[np.float32]:
    """Normalised thumbnails of all pictures of the pretraining: (N, 1024)."""
    return normalised(thumbs_of(work, corpus_drawings(work)))


def webp(image: Image.Image) -> bytes:
    """The picture as lossless WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def pack(name: str, classes: list[str], listed: dict[str, list[list[str]]], files: dict[str, bytes]) -> bytes:
    """The zip file of a set: its index and its pictures, the same bytes each time."""
    index = {
        "name": name,
        "classes": classes,
        "slugs": [slug_of(caption) for caption in classes],
        "images": {split: [images_of(split, len(entries)) for entries in listed[split]] for split in SPLITS},
        "composition": COMPOSITION,
        "pictures": listed,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = json.dumps(index, indent=1, ensure_ascii=False).encode()
        for entry, content in [("index.json", text), *sorted(files.items())]:
            info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))  # no clock, no umask: the same bytes each time
            info.compress_type = zipfile.ZIP_DEFLATED if entry == "index.json" else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return buffer.getvalue()


def images_of(split: str, drawings: int) -> int:
    """Images of a class: each training drawing is composed once, each other twice, few test drawings three times."""
    if split == "train":
        return drawings
    return drawings * (3 if split == "test" and drawings < FEW else 2)


def rebuild(library: Library, name: str) -> tuple[bytes, Counter[str]]:
    """The file of a set of the first edition again: its drawings as the shipped file lists them, rendered anew."""
    counts: Counter[str] = Counter()
    buffer = io.BytesIO()
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as shipped, zipfile.ZipFile(buffer, "w") as archive:
        for info in shipped.infolist():
            content = shipped.read(info)
            if info.filename.endswith(".webp"):
                prefix, _, icon = Path(info.filename).stem.partition("--")
                image = io.BytesIO()
                library.render((prefix, icon)).save(image, "WEBP", lossless=True, quality=100, method=4)
                content = image.getvalue()
                counts["pictures"] += 1
            archive.writestr(info, content)
    return buffer.getvalue(), counts


def main() -> None:
    """Build the sets that are named, or all of icons-11."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/icons"), help="where the fetched sources are")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the files go")
    parser.add_argument("sets", nargs="*", default=list(SETS), help="names of sets")
    arguments = parser.parse_args()
    library, seen = Library(arguments.work), corpus_rows(arguments.work)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(arguments.sets, disable=None):
        content, counts = rebuild(library, name) if name in FIRST_EDITION else build(library, seen, name)
        (arguments.out / f"{name}.zip").write_bytes(content)
        record_checksums(arguments.out)
        tqdm.write(f"{name}: {len(content) / 1e6:.2f} MB, {dict(counts)}")


def record_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` for all sets in a folder, as `sha256sum -c` reads it."""
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.glob("*.zip"))]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
