"""Choose the drawings of icons-11 by the rules of `suite.toml`: `python -m tools.icons.concepts --work DIR`.

Writes `DIR/choice.json`: the drawings of each class, and how many each rule removed. The rules, in this order:

1. A drawing is a candidate of a class where its cleaned name is the class or one of its synonyms.
2. A candidate that is a near-duplicate of a candidate of another class is ambiguous, and dropped.
3. Each artist (the author, with all his or her icon sets) gives a class one drawing. Artists whose candidates are
   near-duplicates of one another's come last, and no two chosen drawings are near-duplicates.
4. Some drawings are left to the pretraining. From those of the classes with most drawings, the generic set takes its
   own.

`tools.icons.suite` renders the chosen drawings, applies the rules about near-duplicates again to what ships, and deals
the drawings to the splits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.icons.duplicates import SAME, clusters, correlation, normalised, thumbs_of
from tools.icons.names import clean
from tools.icons.render import read_set
from tools.icons.sources import artist_of, draws_for_the_suite, icon_sets

RULES = Path(__file__).with_name("suite.toml")
PER_ARTIST = 8
"""So many candidates of one artist are looked at, per class: the first by a hash of their names."""

MOST = 26
"""Drawings of a class at most."""

LEFT = 10
"""Of a class with plenty of drawings so many are left to the pretraining and to the generic set."""

SPARE = 5
"""Drawings that the generic set leaves to the pretraining."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One icon, with the artist who drew it."""

    artist: str
    prefix: str
    name: str

    @property
    def label(self) -> str:
        """`style:name`, which is how files name a drawing."""
        return f"{self.prefix}:{self.name}"

    @property
    def order(self) -> bytes:
        """A hash: the order in which drawings are looked at has nothing to do with what they show."""
        return hashlib.sha256(self.label.encode()).digest()


@dataclass(slots=True)
class Concept:
    """A class of the suite with its candidates."""

    dataset: str
    name: str
    least: int
    withheld: bool
    candidates: list[Drawing] = field(default_factory=list)
    thumbs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 32, 32), np.float32))

    def part(self, rows: list[int]) -> Concept:
        """The same class with these candidates only."""
        return replace(self, candidates=[self.candidates[row] for row in rows], thumbs=self.thumbs[rows])


def read_rules() -> dict[str, Any]:
    """The rules: `least`, and per set `theme`, `classes` (name -> synonyms), `least`, `withheld`, `most`."""
    return tomllib.loads(RULES.read_text(encoding="utf-8"))


def names_of(rules: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Every name of the rules -> (set, class).

    Raises:
        ValueError: a name stands for two classes.
    """
    owner: dict[str, tuple[str, str]] = {}
    for dataset, entry in rules.items():
        for name, synonyms in entry.get("classes", {}).items() if isinstance(entry, dict) else ():
            for text in (name, *synonyms):
                if owner.setdefault(text, (dataset, name)) != (dataset, name):
                    raise ValueError(f"{text!r} is a name of {owner[text]} and of {(dataset, name)}")
    return owner


def gather(work: Path, rules: dict[str, Any]) -> list[Concept]:
    """All classes of the rules with their candidates, at most `PER_ARTIST` per artist."""
    owner, sets = names_of(rules), icon_sets(work)
    drawings: defaultdict[tuple[str, str], list[Drawing]] = defaultdict(list)
    for prefix in sorted(sets):
        if sets[prefix].free and draws_for_the_suite(prefix):
            artist = artist_of(sets, prefix)
            for name in read_set(work, prefix)[1]:
                if (key := owner.get(clean(name))) is not None:
                    drawings[key].append(Drawing(artist, prefix, name))
    concepts = []
    for dataset, entry in rules.items():
        for name in entry.get("classes", {}) if isinstance(entry, dict) else ():
            concept = Concept(dataset, name, entry.get("least", rules["least"]), entry.get("withheld", False))
            seen: Counter[str] = Counter()
            for drawing in sorted(drawings[dataset, name], key=lambda drawing: drawing.order):
                seen[drawing.artist] += 1
                if seen[drawing.artist] <= PER_ARTIST:
                    concept.candidates.append(drawing)
            if concept.candidates:
                concept.thumbs = thumbs_of(work, (one.label for one in concept.candidates))
            concepts.append(concept)
    return concepts


def drop_ambiguous(concepts: list[Concept]) -> int:
    """Drop candidates that look like a candidate of another of these classes; return their number."""
    rows = np.concatenate([normalised(concept.thumbs) for concept in concepts if concept.candidates])
    label = np.concatenate([np.full(len(concept.candidates), place) for place, concept in enumerate(concepts)])
    keep = np.ones(len(rows), bool)
    for start in range(0, len(rows), 2048):
        near = rows[start : start + 2048] @ rows.T >= SAME
        near &= label[None] != label[start : start + 2048, None]
        keep[start : start + 2048] = ~near.any(1)
    for place, concept in enumerate(concepts):
        own = keep[label == place]
        concept.candidates = [one for one, kept in zip(concept.candidates, own, strict=True) if kept]
        concept.thumbs = concept.thumbs[own]
    return int((~keep).sum())


def distinct(concept: Concept) -> tuple[list[int], int]:
    """Rows of one drawing per artist, no two of them near-duplicates, artists who copy no one first; number of
    artists."""
    candidates = concept.candidates
    if not candidates:
        return [], 0
    alike = correlation(concept.thumbs, concept.thumbs) >= SAME
    artists = sorted({one.artist for one in candidates})
    place = np.asarray([artists.index(one.artist) for one in candidates])
    first, second = np.nonzero(alike)
    group = clusters(len(artists), [(int(place[a]), int(place[b])) for a, b in zip(first, second, strict=True)])
    chosen: list[int] = []
    drawn: set[str] = set()
    groups: set[int] = set()
    for again in (False, True):
        for row, one in enumerate(candidates):
            family = int(group[place[row]])
            if one.artist in drawn or (not again and family in groups) or alike[row, chosen].any():
                continue
            chosen.append(row)
            drawn.add(one.artist)
            groups.add(family)
    return chosen, len(artists)


def deal(drawings: list[str], key: str) -> dict[str, list[str]]:
    """Deal drawings (`style:name`) to the splits by a hash: 1 to 4 to validate, 4 to 8 to test, the rest to train."""
    count = len(drawings)
    val = 1 if count < 22 else 2 if count < 26 else 4
    test = max(4, min(8, count - 16 - val))
    shuffled = sorted(drawings, key=lambda drawing: hashlib.sha256(f"{key}:{drawing}".encode()).digest())
    return {"train": shuffled[val + test :], "val": shuffled[:val], "test": shuffled[val : val + test]}


def share(available: int, least: int) -> int:
    """How many of the available drawings a class takes: `least` or more, `MOST` at most, `LEFT` of them left where
    possible."""
    return max(least, min(MOST, available - LEFT))


def choose(concepts: list[Concept]) -> tuple[dict[str, list[str]], list[Concept], int]:
    """Choose the drawings of one set's classes.

    Returns:
        class -> drawings; what is left of the classes; how many artists' drawings were another's.
    """
    classes: dict[str, list[str]] = {}
    rest: list[Concept] = []
    copied = 0
    for concept in concepts:
        rows, artists = distinct(concept)
        copied += artists - len(rows)
        if len(rows) < concept.least:
            continue
        taken = min(len(rows), MOST) if concept.withheld else share(len(rows), concept.least)
        classes[concept.name] = [concept.candidates[row].label for row in rows[:taken]]
        if not concept.withheld:
            rest.append(concept.part(rows[taken:]))
    return classes, rest, copied


def main() -> None:
    """Choose, deal, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/icons"), help="where the renders are")
    work: Path = parser.parse_args().work
    rules = read_rules()
    concepts = gather(work, rules)
    generic = rules["icons-generic"]
    sets: dict[str, Any] = {}
    removed: dict[str, dict[str, int]] = {}
    rest: list[Concept] = []
    for name in sorted({concept.dataset for concept in concepts}):
        own = [concept for concept in concepts if concept.dataset == name]
        ambiguous = drop_ambiguous(own)
        sets[name], left, copied = choose(own)
        removed[name] = {"ambiguous candidates": ambiguous, "artists whose drawing is another's": copied}
        rest += [concept for concept in left if len(concept.candidates) >= rules["least"] + SPARE]
    ambiguous = drop_ambiguous(rest)
    rest.sort(key=lambda concept: (-len(concept.candidates), concept.name))
    sets["icons-generic"] = {
        concept.name: [one.label for one in concept.candidates[: share(len(concept.candidates), rules["least"])]]
        for concept in rest
        if len(concept.candidates) >= rules["least"] + SPARE
    }
    sets["icons-generic"] = dict(list(sets["icons-generic"].items())[: generic["most"]])
    removed["icons-generic"] = {"ambiguous candidates": ambiguous}
    for name, entry in sets.items():
        sizes = [len(drawings) for drawings in entry.values()]
        print(
            f"{name}: {len(entry)} classes, {sum(sizes)} drawings, {min(sizes)} to {max(sizes)} per class",
            removed[name],
        )
    available = {f"{concept.dataset} {concept.name}": len(distinct(concept)[0]) for concept in concepts}
    (work / "choice.json").write_text(
        json.dumps({"sets": sets, "removed": removed, "available": available}, indent=1), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
