"""Build the pretraining corpus from the renders: `python -m tools.icons.corpus --work DIR`.

Writes to `DIR/corpus`: `mono.npy` (N, 64, 64) alpha, `color.npy` (M, 64, 64, 4) RGBA with premultiplied colours, and
`index.json`: the captions, and for each row its caption, set and name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tools.icons.concepts import names_of, read_rules
from tools.icons.duplicates import SAME, copies, normalised, read_thumbs, thumbs_of
from tools.icons.names import clean, emoji_slug, split_joined
from tools.icons.render import read_set
from tools.icons.sources import (
    EMOJI_STYLES,
    FLAG_STYLES,
    HELD_OUT,
    MONO_EMOJI,
    NO_WORDS,
    SHIFT_STYLES,
    IconSet,
    artist_of,
    emoji_names,
    icon_sets,
)

VARIANTS = 2
"""Of the variants of one thing in one set (outline, solid, sizes, ...) so many are kept, drawn by a hash of the name;
four of what is a class of the suite, eight of an emoji."""


def aliases(work: Path, prefix: str) -> dict[str, set[str]]:
    """Every name of a set's icon: icon name -> its own and its alias names."""
    data = json.loads((work / "iconify" / "json" / f"{prefix}.json").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {name: {name} for name in data["icons"]}
    for alias, entry in data.get("aliases", {}).items():
        found.setdefault(entry["parent"], {entry["parent"]}).add(alias)
    return found


def country_names(work: Path) -> dict[str, str]:
    """Two-letter country code -> name as in the Unicode flag emoji ("France")."""
    raw = json.loads((work / "emoji" / "data-by-emoji.json").read_text(encoding="utf-8"))
    codes = {}
    for emoji, entry in raw.items():
        if entry["slug"].startswith("flag_") and len(emoji) == 2:
            codes["".join(chr(ord(sign) - 0x1F1E6 + ord("a")) for sign in emoji)] = entry["name"].removeprefix("flag ")
    return codes


def flag_caption(country: str) -> str:
    """The caption of a country's flag."""
    return f"flag of {country}"


class EmojiNamer:
    """Maps the icons of an emoji set to the Unicode names, through spelling rules and the aliases that the sets
    list."""

    def __init__(self, work: Path, words: Counter[str]) -> None:
        self.names = emoji_names(work)
        self.known: dict[str, str] = {slug: name for slug, (name, _) in self.names.items()}
        for prefix in ("emojione", "emojione-v1", "noto-v1", "noto", "twemoji", "openmoji", "emojione-monotone"):
            for group in aliases(work, prefix).values():  # an alias of a known name is a known name
                hits = [self.known[slug] for slug in sorted(map(emoji_slug, group)) if slug in self.known]
                if hits:
                    for name in group:
                        self.known.setdefault(emoji_slug(name), hits[0])
        self.joined = {slug.replace("-", ""): name for slug, name in self.known.items()}
        total = sum(words.values())
        self.cost = {word: math.log(total / count) for word, count in words.items() if len(word) > 1 or word == "a"}

    def __call__(self, name: str) -> str:
        """The caption of an emoji icon."""
        slug = emoji_slug(name)
        if slug not in self.known and "-" not in slug:
            caption = self.joined.get(slug) or " ".join(split_joined(slug, self.cost))
        else:
            caption = self.known.get(slug, slug.replace("-", " "))
        if caption.startswith("flag "):
            return flag_caption(caption.removeprefix("flag ").removeprefix("of "))
        return caption.replace(":", "").replace(",", "").lower()


def colored_thumbnails(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Normalised 16 x 16 thumbnails in colour on white, one row per picture, so that a product of rows is a
    correlation."""
    if pictures.ndim == 3:
        shown = 255.0 - pictures[:, :, :, None].astype(np.float32)
    else:
        shown = pictures[..., :3].astype(np.float32) + 255.0 - pictures[..., 3:].astype(np.float32)
    small = shown.reshape(len(shown), 16, 4, 16, 4, -1).mean(axis=(2, 4)).reshape(len(shown), -1)
    small -= small.mean(axis=1, keepdims=True)
    unit: np.ndarray[Any, np.dtype[np.float32]] = small / (np.linalg.norm(small, axis=1, keepdims=True) + 1e-6)
    return unit


def captions_of(work: Path, sets: dict[str, IconSet]) -> dict[str, list[str]]:
    """Caption of each icon of the sets that the pretraining may see: set -> captions, `""` where there is none."""
    countries = country_names(work)
    captions: dict[str, list[str]] = {}
    emoji_like = {*EMOJI_STYLES, MONO_EMOJI}
    for prefix, entry in sets.items():
        if not entry.free or prefix in HELD_OUT | NO_WORDS | emoji_like:
            continue
        names = read_set(work, prefix)[1]
        if prefix in FLAG_STYLES:
            codes = [name.split("-")[0] for name in names]
            captions[prefix] = [flag_caption(countries[code]) if code in countries else "" for code in codes]
        else:
            captions[prefix] = [clean(name) for name in names]
    counts = Counter(word for rows in captions.values() for caption in rows for word in caption.split())
    for name, _ in emoji_names(work).values():
        counts.update({word: 50 for word in name.lower().replace(":", "").split()})
    namer = EmojiNamer(work, Counter({word: count for word, count in counts.items() if count > 3}))
    for prefix in sorted(emoji_like):
        captions[prefix] = [namer(name) for name in read_set(work, prefix)[1]]
    return captions


class HoldOut:
    """What of the suite the pretraining must not see: its drawings, their copies, and the withheld classes by name."""

    def __init__(self, work: Path, sets: dict[str, IconSet]) -> None:
        rules = read_rules()
        self.sets, self.owner = sets, names_of(rules)
        withheld = [entry["classes"] for entry in rules.values() if isinstance(entry, dict) and entry.get("withheld")]
        self.phrases = {f" {name} " for classes in withheld for name in classes}
        self.synonyms = {text for classes in withheld for names in classes.values() for text in names}
        chosen = json.loads((work / "choice.json").read_text(encoding="utf-8"))["sets"]
        self.taken: set[tuple[str, str]] = set()
        drawings: set[str] = set()
        for classes in chosen.values():
            for name, chosen_of_class in classes.items():
                for drawing in chosen_of_class:
                    self.taken.add((name, artist_of(sets, drawing.split(":")[0])))
                    drawings.add(drawing)
        self.rows = normalised(thumbs_of(work, sorted(drawings)))
        styles = sorted(style for side in SHIFT_STYLES.values() for style in side)
        self.shift = np.concatenate([colored_thumbnails(read_set(work, s)[0]) for s in styles if sets[s].colored]).T

    def by_name(self, prefix: str, caption: str) -> str:
        """Why an icon must not be seen for its name: `withheld`, `artist` (the suite has this drawing or a sister of
        it), or `""`."""
        if caption in self.synonyms or any(phrase in f" {caption} " for phrase in self.phrases):
            return "withheld"
        concept = self.owner.get(caption)
        return "artist" if concept and (concept[1], artist_of(self.sets, prefix)) in self.taken else ""

    def by_content(self, work: Path, prefix: str, rows: list[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell which renders of a set are near-duplicates of a drawing of the suite or of a style of another domain."""
        same = copies(self.rows, read_thumbs(work, prefix)[rows].astype(np.float32))
        pictures = read_set(work, prefix)[0]
        if pictures.ndim == 4 and prefix not in FLAG_STYLES:  # a flag is the same design in every set
            for start in range(0, len(rows), 2048):
                marks = colored_thumbnails(np.asarray(pictures[rows[start : start + 2048]]))
                same[start : start + 2048] |= (marks @ self.shift).max(axis=1) >= SAME
        return same


def corpus_drawings(work: Path) -> list[str]:
    """All pictures of the corpus as `style:name`, sorted by style and name."""
    index = json.loads((work / "corpus" / "index.json").read_text(encoding="utf-8"))
    pairs = (pair for kind in ("mono", "color") for pair in zip(index[kind]["set"], index[kind]["name"], strict=True))
    return [f"{prefix}:{name}" for prefix, name in sorted(pairs)]


def _order(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def choose(work: Path, prefix: str, captions: list[str], hold: HoldOut, counts: Counter[str]) -> list[int]:
    """Rows of a set that the corpus takes; what is refused is counted by reason."""
    names = read_set(work, prefix)[1]
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row, caption in enumerate(captions):
        if caption:
            reason = hold.by_name(prefix, caption)
            counts[reason] += bool(reason)
            if not reason:
                groups[caption].append(row)
    chosen = []
    for caption, group in groups.items():
        limit = 8 if prefix in {*EMOJI_STYLES, MONO_EMOJI} else 4 if caption in hold.owner else VARIANTS
        chosen += sorted(group, key=lambda row: _order(f"{prefix}:{names[row]}"))[:limit]
    chosen.sort()
    same = hold.by_content(work, prefix, chosen)
    counts["near-duplicate"] += int(same.sum())
    return [row for row, drop in zip(chosen, same, strict=True) if not drop]


def main() -> None:
    """Choose, name and copy the icons of the corpus; report what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/icons"), help="where the fetched sources and the renders are"
    )
    work: Path = parser.parse_args().work
    sets = icon_sets(work)
    captions = captions_of(work, sets)
    hold = HoldOut(work, sets)
    folder = work / "corpus"
    folder.mkdir(exist_ok=True)
    rows: dict[bool, list[tuple[str, str, str]]] = {True: [], False: []}
    chunks: dict[bool, list[np.ndarray[Any, Any]]] = {True: [], False: []}
    refused: Counter[str] = Counter()
    for prefix in tqdm(sorted(captions), disable=None):
        pictures, names = read_set(work, prefix)
        chosen = choose(work, prefix, captions[prefix], hold, refused)
        chunks[pictures.ndim == 4].append(np.asarray(pictures[chosen]))
        rows[pictures.ndim == 4] += [(captions[prefix][row], prefix, names[row]) for row in chosen]
    concepts = {text: name for text, (_, name) in hold.owner.items()}
    vocabulary = sorted({caption for side in rows.values() for caption, _, _ in side} | set(concepts.values()))
    number = {caption: index for index, caption in enumerate(vocabulary)}
    index: dict[str, Any] = {"captions": vocabulary, "refused": refused}
    for colored, file in ((False, "mono"), (True, "color")):
        np.save(folder / f"{file}.npy", np.concatenate(chunks[colored]))
        index[file] = {
            "caption": [number[caption] for caption, _, _ in rows[colored]],
            "concept": [number.get(concepts.get(caption, ""), -1) for caption, _, _ in rows[colored]],
            "set": [prefix for _, prefix, _ in rows[colored]],
            "name": [name for _, _, name in rows[colored]],
        }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    print(
        f"{len(rows[False])} one-colour and {len(rows[True])} coloured icons of {len(captions)} sets, "
        f"{len(vocabulary)} captions; refused: {dict(refused)}"
    )


if __name__ == "__main__":
    main()
