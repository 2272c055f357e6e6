"""Render every icon that may be used to 64 x 64 pixels, one file a set: `python -m tools.icons.render --work DIR`."""

from __future__ import annotations

import argparse
import io
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.icons.sources import SIZE, icon_sets


def svg(icon_set: dict[str, Any], icon: dict[str, Any], side: int) -> str:
    """The SVG text of one icon, centred in a square of `side` pixels."""
    width = icon.get("width", icon_set.get("width", 16))
    height = icon.get("height", icon_set.get("height", 16))
    left, top = icon.get("left", icon_set.get("left", 0)), icon.get("top", icon_set.get("top", 0))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{side}" height="{side}" '
        f'viewBox="{left} {top} {width} {height}" preserveAspectRatio="xMidYMid meet">{icon["body"]}</svg>'
    )


def picture(text: str, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Render SVG text to RGBA, straight alpha, shape (side, side, 4)."""
    import resvg_py  # of the extra `icons`: the tests of the shipped files need the rest of this module without it

    png = resvg_py.svg_to_bytes(svg_string=text, width=side, height=side, skip_system_fonts=True)
    return np.array(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def render_set(source: Path, target: Path, colored: bool) -> tuple[int, int]:
    """Render one set and write `<target>.npy` (uint8) and `<target>.json` (the names, row by row).

    A coloured set becomes (N, 64, 64, 4), colours multiplied by alpha; a one-colour set only its alpha, (N, 64, 64).
    Empty renders and icons that the renderer refuses are dropped.

    Returns:
        How many icons were kept, and how many were dropped.
    """
    data = json.loads(source.read_text(encoding="utf-8"))
    names, rows = [], []
    for name in sorted(data["icons"]):
        try:
            rgba = picture(svg(data, data["icons"][name], SIZE), SIZE)
        except ValueError:
            continue
        if int((rgba[..., 3] > 32).sum()) < 24:
            continue
        if colored:
            alpha = rgba[..., 3:].astype(np.uint16)
            rows.append(np.concatenate([(rgba[..., :3] * alpha + 127) // 255, alpha], axis=2).astype(np.uint8))
        else:
            rows.append(rgba[..., 3].copy())
        names.append(name)
    partial = target.with_suffix(".part")
    with partial.open("wb") as file:
        np.save(file, np.stack(rows) if rows else np.zeros((0, SIZE, SIZE), np.uint8))
    target.with_suffix(".json").write_text(json.dumps(names), encoding="utf-8")
    partial.replace(target.with_suffix(".npy"))  # last: a set counts as done only when it is complete
    return len(names), len(data["icons"]) - len(names)


def read_set(work: Path, prefix: str) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The renders (memory-mapped) and the names of one set."""
    folder = work / "renders"
    names: list[str] = json.loads((folder / f"{prefix}.json").read_text(encoding="utf-8"))
    return np.load(folder / f"{prefix}.npy", mmap_mode="r"), names


def main() -> None:
    """Render all sets with a free licence that are not rendered yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/icons"), help="where the fetched sources are")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    sets = {prefix: entry for prefix, entry in icon_sets(arguments.work).items() if entry.free}
    folder = arguments.work / "renders"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [prefix for prefix in sets if not (folder / f"{prefix}.npy").exists()]
    sources = {prefix: arguments.work / "iconify" / "json" / f"{prefix}.json" for prefix in todo}
    todo.sort(key=lambda prefix: -sources[prefix].stat().st_size)  # the long ones first: no core idles at the end
    kept = dropped = 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        futures = {
            pool.submit(render_set, sources[prefix], folder / prefix, sets[prefix].colored): prefix for prefix in todo
        }
        bar = tqdm(total=sum(len(json.loads(path.read_text(encoding="utf-8"))["icons"]) for path in sources.values()))
        for future in as_completed(futures):
            done, lost = future.result()
            kept, dropped = kept + done, dropped + lost
            bar.update(done + lost)
        bar.close()
    print(f"{kept} icons rendered, {dropped} empty or refused, {len(sets)} sets in all")


if __name__ == "__main__":
    main()
