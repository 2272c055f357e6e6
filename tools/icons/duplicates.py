"""Find near-duplicate drawings: icon sets copy one another, and a copy of a test drawing must not be trained on.

A drawing is cropped to its ink, scaled to 32 x 32, blurred and normalised, so that a product of two rows is a
correlation. Two drawings are near-duplicates where the correlation, best over shifts by one pixel, reaches `SAME`.
The blur makes the measure nearly blind to the width of a stroke.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from tools.icons.render import read_set

SAME = 0.97
"""Correlation from which two drawings count as one."""

COARSE = 0.90
"""Correlation of the unshifted thumbnails below which no shift is tried."""

SIDE = 32
BLUR = 1.3
"""Standard deviation of the blur, in pixels of the thumbnail."""

Floats = NDArray[np.float32]


def ink(pictures: NDArray[np.uint8]) -> Floats:
    """Ink of renders, 0..1: alpha of one-colour ones (N, S, S), darkness on white of premultiplied RGBA ones (N, S,
    S, 4)."""
    if pictures.ndim == 3:
        return pictures.astype(np.float32) / 255
    gray = pictures[..., :3].astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
    dark: Floats = (pictures[..., 3] - gray) / 255
    faint = dark.reshape(len(dark), -1).max(1) < 0.15  # white art: its silhouette
    dark[faint] = pictures[faint][..., 3].astype(np.float32) / 255
    return dark


def thumbnails(pictures: NDArray[np.uint8]) -> Floats:
    """Blurred thumbnails of the renders' ink, cropped to it: (N, 32, 32)."""
    rows = np.zeros((len(pictures), SIDE, SIDE), np.float32)
    for row, drawing in enumerate(ink(pictures)):
        ys, xs = (np.flatnonzero((drawing > 0.12).any(axis)) for axis in (1, 0))
        if not len(ys):
            continue
        side = max(ys[-1] - ys[0], xs[-1] - xs[0]) + 1
        middle_y, middle_x = (ys[0] + ys[-1] + 1) / 2, (xs[0] + xs[-1] + 1) / 2
        half = side / 2 * 1.12
        box = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
        image = Image.fromarray(drawing, mode="F")
        small = image.transform((4 * SIDE, 4 * SIDE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        rows[row] = np.asarray(small, np.float32).reshape(SIDE, 4, SIDE, 4).mean((1, 3))
    blurred: Floats = gaussian_filter(rows, (0, BLUR, BLUR))
    return blurred


@cache
def read_thumbs(work: Path, prefix: str) -> NDArray[np.float16]:
    """Thumbnails of all renders of a set (memory-mapped), made when they are first asked for: (N, 32, 32)."""
    path = work / "thumbs" / f"{prefix}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        pictures = np.load(work / "renders" / f"{prefix}.npy")
        np.save(path, thumbnails(pictures).astype(np.float16))
    rows: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return rows


@cache
def _row_of(work: Path, prefix: str) -> dict[str, int]:
    return {name: row for row, name in enumerate(read_set(work, prefix)[1])}


def thumbs_of(work: Path, drawings: Iterable[str]) -> Floats:
    """Thumbnails of drawings (`style:name`), in their order: (N, 32, 32)."""
    named = (drawing.split(":", 1) for drawing in drawings)
    return np.stack([read_thumbs(work, prefix)[_row_of(work, prefix)[name]] for prefix, name in named]).astype(
        np.float32
    )


def normalised(thumbs: Floats) -> Floats:
    """Flatten thumbnails to rows of zero mean and unit length: (N, 1024)."""
    rows = thumbs.reshape(len(thumbs), -1)
    rows = rows - rows.mean(1, keepdims=True)
    unit: Floats = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)
    return unit


def shifted(thumbs: Floats) -> list[Floats]:
    """The thumbnails, normalised, at the nine shifts by at most one pixel; the unshifted ones first."""
    padded = np.pad(thumbs, ((0, 0), (1, 1), (1, 1)))
    steps = sorted(((y, x) for y in (0, 1, 2) for x in (0, 1, 2)), key=lambda step: abs(step[0] - 1) + abs(step[1] - 1))
    return [normalised(padded[:, y : y + SIDE, x : x + SIDE]) for y, x in steps]


def correlation(left: Floats, right: Floats) -> Floats:
    """Best correlation of each of the `left` with each of the `right` thumbnails over the shifts: (N, M)."""
    own = normalised(left)
    best: Floats = np.max([own @ other.T for other in shifted(right)], axis=0)
    return best


def copies(rows: Floats, thumbs: Floats, block: int = 4096) -> NDArray[np.bool_]:
    """Tell which `thumbs` (N, 32, 32) are near-duplicates of any of the drawings with the `normalised` rows (M,
    1024): (N,).

    A coarse look at the unshifted thumbnails finds the candidates, so that hundreds of thousands take a minute.
    """
    shifts = shifted(thumbs)
    same = np.zeros(len(thumbs), bool)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        part = part[(part @ shifts[0].T >= COARSE).any(1)]
        if len(part):
            same |= np.max([part @ shift.T for shift in shifts], axis=0).max(0) >= SAME
    return same


def clusters(count: int, pairs: list[tuple[int, int]]) -> NDArray[Any]:
    """Number the connected components of `count` things that `pairs` connect: (count,)."""
    root = list(range(count))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for first, second in pairs:
        root[find(first)] = find(second)
    return np.asarray([find(item) for item in range(count)])
