"""What the icon work is made of: the packages, the licences that are refused, and the styles that are held out.

Everything that decides *which* pictures may be seen where stands in this file, so that the hold-out can be read (and
tested) in one place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = {"iconify": "@iconify/json@2.2.535", "emoji": "unicode-emoji-json@0.9.0"}
"""npm packages, pinned: another version renders other pictures, and the suite's checksums would no longer match."""

SIZE = 64
"""Side of every render, in pixels."""

SHIFT_STYLES: dict[str, tuple[str, ...]] = {
    "train": ("noto", "openmoji", "circle-flags", "devicon"),
    "val": ("fluent-emoji", "fluent-emoji-flat", "flagpack", "skill-icons"),
    "test": ("twemoji", "meteocons", "logos"),
}
"""The styles (iconify prefixes) that the sets of another domain are drawn from: coloured emoji, flags, logos."""

RELATIVES = ("fluent-emoji-high-contrast", "devicon-plain", "selfhst", "thesvg", "thesvg-color")
"""Sets that re-draw or re-package the art of these styles: kept out of the pretraining as well."""

HELD_OUT = frozenset(style for side in SHIFT_STYLES.values() for style in side) | frozenset(RELATIVES)
"""No render of these sets is ever part of the pretraining corpus: pictures of these styles are a shift of domain."""

NO_WORDS = frozenset(
    {"arcticons", "token", "token-branded", "cryptocurrency", "cryptocurrency-color", "svg-spinners", "dinkie-icons"}
)
"""Sets whose names say little about what is drawn (app and coin brands, glyphs): left out of the pretraining corpus."""

NO_DRAWINGS = frozenset({"gcp", "k8s", "academicons"})
"""Sets whose icons are signs of products."""

EMOJI_STYLES = ("emojione", "emojione-v1", "fxemoji", "noto-v1", "streamline-emojis")
"""The coloured emoji styles that the pretraining may see."""

LOGO_STYLES = (
    "simple-icons", "streamline-logos", "cib", "bxl", "fa-brands", "fa6-brands", "fa7-brands", "file-icons",
    "vscode-icons", "material-icon-theme", "catppuccin", "unjs", "nonicons", "brandico", "entypo-social",
)  # fmt: skip
"""Sets with logos of brands that the pretraining may see."""

FLAG_STYLES = ("flag", "cif")
"""The flag sets that the pretraining may see."""

MONO_EMOJI = "emojione-monotone"
"""The emoji set in one colour."""


def draws_for_the_suite(prefix: str) -> bool:
    """Tell whether an icon set may draw for icons-11: none of brands, flags and emoji, and none whose names say
    little."""
    return prefix not in HELD_OUT | NO_WORDS | {*EMOJI_STYLES, *LOGO_STYLES, *FLAG_STYLES, MONO_EMOJI, *NO_DRAWINGS}


@dataclass(frozen=True, slots=True)
class IconSet:
    """One set of the iconify collection.

    Attributes:
        prefix: its short name, as in `noto:cat`.
        title: its full name.
        author: name and, where given, address of its author.
        license: SPDX identifier.
        license_url: where the licence can be read.
        colored: whether the pictures carry their own colours.
    """

    prefix: str
    title: str
    author: str
    license: str
    license_url: str
    colored: bool

    @property
    def free(self) -> bool:
        """Whether the licence allows shipping derived pictures and weights with this package (no GPL, no NC)."""
        return "GPL" not in self.license and "-NC" not in self.license and bool(self.license)


def icon_sets(work: Path) -> dict[str, IconSet]:
    """All sets of the fetched collection by prefix, in alphabetical order."""
    raw = json.loads((work / "iconify" / "collections.json").read_text(encoding="utf-8"))
    sets = {}
    for prefix in sorted(raw):
        entry: dict[str, Any] = raw[prefix]
        author = entry["author"]["name"]
        if url := entry["author"].get("url"):
            author = f"{author} ({url})"
        sets[prefix] = IconSet(
            prefix=prefix,
            title=entry["name"],
            author=author,
            license=entry["license"].get("spdx", ""),
            license_url=entry["license"].get("url", ""),
            colored=bool(entry.get("palette")),
        )
    return sets


def artist_of(sets: dict[str, IconSet], prefix: str) -> str:
    """The author of a set by name: all his or her sets count as one artist's."""
    return sets[prefix].author.split(" (")[0]


def emoji_names(work: Path) -> dict[str, tuple[str, str]]:
    """The Unicode emoji: name with hyphens -> (name as English words, group)."""
    raw = json.loads((work / "emoji" / "data-by-emoji.json").read_text(encoding="utf-8"))
    return {entry["slug"].replace("_", "-"): (entry["name"], entry["group"]) for entry in raw.values()}
