"""Build `icons-11` from the renders' sources: `python -m tools.icons.suite --work DIR [SET ...]`.

Writes `maotune/assets/icons-11/<set>.zip`, the checksums, and the table of licences. The same sources and the same
versions of
the renderer and of Pillow give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from maotune.data.sets.icons import FOLDER, SETS, SIZE, SPLITS
from tools.icons import classes as rules
from tools.icons.corpus import EmojiNamer, country_names
from tools.icons.render import picture, svg
from tools.icons.sources import EMOJI_STYLES, SUITE_STYLES, emoji_names

IMAGES = {"train": 32, "val": 12, "test": 20}
"""Images of each class, by split."""

TONES = 3
"""Of an emoji with skin tones so many variants are taken from each style."""

Source = tuple[str, str]
"""A style (iconify prefix) and the name of an icon in it."""

Plan = dict[str, dict[str, list[Source]]]
"""Class name -> split -> pictures."""


class Library:
    """The fetched icon sets, read when first asked for."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._sets: dict[str, dict[str, Any]] = {}

    def names(self, prefix: str) -> list[str]:
        """All icons of a set, sorted."""
        return sorted(self._set(prefix)["icons"])

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

    def _set(self, prefix: str) -> dict[str, Any]:
        if prefix not in self._sets:
            path = self.work / "iconify" / "json" / f"{prefix}.json"
            self._sets[prefix] = json.loads(path.read_text(encoding="utf-8"))
        return self._sets[prefix]


def pretrained_captions(work: Path) -> dict[str, set[str]]:
    """Caption -> the sets of the pretraining corpus that have it, coloured emoji and flag styles and all others."""
    index = json.loads((work / "corpus" / "index.json").read_text(encoding="utf-8"))
    found: defaultdict[str, set[str]] = defaultdict(set)
    for kind in ("mono", "color"):
        for caption, prefix in zip(index[kind]["caption"], index[kind]["set"], strict=True):
            found[index["captions"][caption]].add(prefix)
    return found


def emoji_plan(work: Path, library: Library, rule: rules.EmojiRule) -> Plan:
    """The classes and pictures of a set of Unicode emoji: those that every side of the suite has and the
    pretraining knows."""
    namer = EmojiNamer(work, Counter())
    known = {caption: len(sets & set(EMOJI_STYLES)) for caption, sets in pretrained_captions(work).items()}
    ordered = [namer(slug) for slug, (_, group) in emoji_names(work).items() if group == rule.group]
    if rule.spans:
        ordered = [
            name for first, last in rule.spans for name in ordered[ordered.index(first) : ordered.index(last) + 1]
        ]
    sides = {
        split: [s for s in SUITE_STYLES[split] if "emoji" in s or s == "noto" or s == "openmoji"] for split in SPLITS
    }
    icons: dict[str, dict[str, list[str]]] = {}
    for style in {style for side in sides.values() for style in side}:
        icons[style] = defaultdict(list)
        for name in library.names(style):
            icons[style][namer(name)].append(name)
    plan: Plan = {}
    for caption in dict.fromkeys(ordered):
        pictures = {
            split: [(style, name) for style in sides[split] for name in icons[style].get(caption, [])[:TONES]]
            for split in SPLITS
        }
        complete = all(caption in icons[style] for style in ("noto", "openmoji", "fluent-emoji", "twemoji"))
        if complete and known.get(caption, 0) >= rule.known and not any(word in f"{caption} " for word in rule.without):
            plan[caption] = pictures  # type: ignore[assignment]
    return plan


def flag_plan(work: Path, library: Library) -> Plan:
    """Flags of countries. Emoji styles name them by country, flag sets by its two-letter code."""
    known = {caption for caption, sets in pretrained_captions(work).items() if rules.FLAG_STATES in sets}
    codes = country_names(work)
    by_name = {country: code for code, country in codes.items()}
    namer = EmojiNamer(work, Counter())
    emoji: dict[str, dict[str, str]] = {}
    for style in ("openmoji", "twemoji"):
        emoji[style] = {namer(name): name for name in library.names(style)}
    plan: Plan = {}
    for caption in sorted(known):
        country = caption.removeprefix("flag of ")
        if country not in by_name:
            continue
        pictures: dict[str, list[Source]] = {split: [] for split in SPLITS}
        for split, styles in rules.FLAG_SETS.items():
            for style in styles:
                names = [emoji[style].get(caption, "")] if style in emoji else [by_name[country]]
                pictures[split] += [(style, name) for name in names if name in library.names(style)]
        if all(len(pictures[split]) == len(rules.FLAG_SETS[split]) for split in SPLITS):
            plan[caption] = pictures
    return plan


def logo_plan(work: Path, library: Library) -> Plan:
    """Logos of software: brands that all three sides and the pretraining have."""
    suffix = re.compile(r"-(icon|dark|light|plain|original|line)$")
    found: dict[str, dict[str, list[Source]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for split, styles in rules.LOGO_SETS.items():
        for style in styles:
            for name in library.names(style):
                if "wordmark" not in name:
                    found[suffix.sub("", name).replace("-", "")][split].append((style, name))
    sets_of = {caption: len(sets) for caption, sets in pretrained_captions(work).items() if len(caption) > 1}
    spelled: dict[str, str] = {}
    for caption in sorted(sets_of, key=lambda text: (sets_of[text], text)):
        spelled[caption.replace(" ", "")] = caption  # the spelling that most sets use wins
    plan: Plan = {}
    for brand, pictures in sorted(found.items()):
        if all(pictures.values()) and sets_of.get(spelled.get(brand, ""), 0) >= rules.LOGO_KNOWN:
            icon = [source for source in pictures["test"] if source[1].endswith("-icon")]
            plan[spelled[brand]] = {**pictures, "test": icon or pictures["test"]}
    return plan


def plan_of(work: Path, library: Library, name: str) -> Plan:
    """The classes and pictures of a set of the suite."""
    if name in rules.EMOJI_SETS:
        return emoji_plan(work, library, rules.EMOJI_SETS[name])
    if name == "icons-flags":
        return flag_plan(work, library)
    if name == "icons-logos":
        return logo_plan(work, library)
    return {
        caption: {split: [weather_source(split, icon) for icon in names[split]] for split in SPLITS}
        for caption, names in rules.WEATHER.items()
    }


def weather_source(split: str, icon: str) -> Source:
    """The picture that `icon` or `style:icon` means, the style being the split's own where none is written."""
    style, _, name = icon.rpartition(":")
    return style or rules.WEATHER_SETS[split], name


def slug_of(caption: str) -> str:
    """A class name as a folder name."""
    return re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")


def build(work: Path, library: Library, name: str) -> tuple[bytes, Counter[str]]:
    """The file of one set, and from which icon sets its pictures come."""
    plan = plan_of(work, library, name)
    plan = {
        caption: plan[caption] for caption in sorted(plan, key=str.lower) if slug_of(caption) not in rules.WITHOUT[name]
    }
    composition = {**rules.COMPOSITION, **rules.COMPOSITION_OF.get(name, {})}
    files: dict[str, bytes] = {}
    used: Counter[str] = Counter()
    listed: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for caption, pictures in plan.items():
        for split in SPLITS:
            entries = []
            for prefix, icon in pictures[split]:
                entry = f"{split}/{slug_of(caption)}/{prefix}--{icon}.webp"
                buffer = io.BytesIO()
                library.render((prefix, icon)).save(buffer, "WEBP", lossless=True, quality=100, method=4)
                files[entry] = buffer.getvalue()
                entries.append(entry)
                used[prefix] += 1
            listed[split].append(entries)
    index = {
        "name": name,
        "classes": list(plan),
        "slugs": [slug_of(caption) for caption in plan],
        "images": IMAGES,
        "composition": composition,
        "pictures": listed,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = json.dumps(index, indent=1, ensure_ascii=False).encode()
        for entry, content in [("index.json", text), *sorted(files.items())]:
            info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))  # no clock, no umask: the same bytes each time
            info.compress_type = zipfile.ZIP_DEFLATED if entry == "index.json" else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return buffer.getvalue(), used


def main() -> None:
    """Build the sets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/icons"), help="where the fetched sources and the corpus are"
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the files go")
    parser.add_argument("sets", nargs="*", default=list(SETS), help="names of sets")
    arguments = parser.parse_args()
    library = Library(arguments.work)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(arguments.sets):
        content, used = build(arguments.work, library, name)
        (arguments.out / f"{name}.zip").write_bytes(content)
        record_checksums(arguments.out)
        tqdm.write(f"{name}: {len(content) / 1e6:.2f} MB, pictures {dict(used)}")


def record_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` for all sets in a folder, as `sha256sum -c` reads it."""
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.glob("*.zip"))]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
