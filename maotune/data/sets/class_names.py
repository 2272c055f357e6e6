"""Names of classes: from a file, or from folders and labels, written as words that a text model can read."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maotune.files import read_text

_NUMBER = re.compile(r"(\d+)[\s._)-]+(?=[^\W\d_])")
_WORDNET = re.compile(r"n\d{8}[\s._-]+(?=[^\W\d_])")
_DASH = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")
_PLACEHOLDER = re.compile(r"(class|cls|label|category|type|group|id|folder|item|object)[\s._-]*\d+", re.IGNORECASE)


def normalised(name: str) -> str:
    """Return a name in Unicode's composed form: macOS stores accents apart from their letters."""
    return unicodedata.normalize("NFC", name)


def read_class_names(path: Path) -> dict[str, str]:
    """Read a class names file: per line ``name`` or ``folder_name<TAB>display name``; blank lines are skipped.

    Returns:
        Display name by folder name, in the order of the file, which is the order of the labels.

    Raises:
        ValueError: no such file, not UTF-8 text, a name twice, or no names.
    """
    if not is_file(path):
        raise ValueError(f"{str(path)!r} is not a file of class names{did_you_mean(path)}: give one, one name a line")
    names: dict[str, str] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        folder, _, display = (normalised(part.strip()) for part in line.partition("\t"))
        display = display or folder
        if not folder:
            raise ValueError(f"{path}, line {number}: a display name without a name before it")
        if folder in names:
            raise ValueError(f"{path}, line {number}: {folder!r} stands there twice")
        if display in names.values():
            raise ValueError(f"{path}, line {number}: {display!r} names two classes: no model can tell them apart")
        names[folder] = display
    if not names:
        raise ValueError(f"{path} holds no class names: write one a line")
    return names


def is_file(path: Path) -> bool:
    """Whether a file is there; a text that can be no path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def did_you_mean(path: Path) -> str:
    """Return a hint at the files beside ``path``, which is none, with similar names; empty where there are none."""
    try:
        there = [entry.name for entry in path.expanduser().parent.iterdir() if entry.is_file()]
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, there, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def names_as_words(labels: Sequence[str]) -> dict[str, str]:
    """Return each label with the name that a text model can read: ``009.LadyBeetle`` becomes ``Lady Beetle``.

    Words that are joined by capitals are split. A number in front is cut where it only counts the classes: where it
    begins with 0, or where all labels have one, no two the same, and not all are years; so is a WordNet id. Labels that
    would become equal stay as they are. Dashes between words become spaces where no label has a space or underscore.
    """
    numbers = [match[1] for label in labels if (match := _NUMBER.match(label))]
    years = all(number.startswith(("19", "20")) and len(number) == 4 for number in numbers)
    counted = len(labels) > 1 and len(numbers) == len(labels) == len({*numbers}) and not years

    dashed = not any(separator in label for label in labels for separator in " _")

    def words(label: str) -> str:
        match = _NUMBER.match(label)
        if (match and (counted or match[1].startswith("0"))) or (match := _WORDNET.match(label)):
            label = label[match.end() :]
        label = _DASH.sub(" ", label) if dashed else label
        return re.sub(r"[^\W\d_]+", lambda letters: _split_capitals(letters[0]), label)

    named = {label: words(label) for label in labels}
    counts = Counter(name.casefold() for name in named.values())
    return {label: name if counts[name.casefold()] == 1 else label for label, name in named.items()}


def _split_capitals(word: str) -> str:
    """Split ``LadyBeetle`` and ``HTMLPage``; not ``iPhone``, ``McDonald`` and ``DVDs``."""
    out = word[:1]
    for at in range(1, len(word)):
        before, letter, after = word[:at], word[at], word[at + 1 : at + 3]
        begins = before[-1].islower() and at > 1 and before not in ("Mc", "Mac")
        begins |= before[-1].isupper() and len(after) == 2 and after.islower()
        out += f" {letter}" if letter.isupper() and begins else letter
    return out


def unreadable_names(names: Sequence[str]) -> list[str]:
    """Return the names that say nothing to a text model: codes, numbers, placeholders such as ``class_3``."""
    return [name for name in names if _is_code(name)]


def _is_code(name: str) -> bool:
    letters = [letter for letter in name if letter.isalpha()]
    if any(not letter.isascii() for letter in letters):
        return False
    if _PLACEHOLDER.fullmatch(name.strip()) or sum(map(str.isdigit, name)) > len(letters):
        return True
    if len(letters) > 1 and not any(map(str.isdigit, name)):
        return False
    return not any(set(word) & set("aeiouy") for word in re.findall(r"[^\W\d_]{2,}", name.lower()))


def foreign_names(names: Sequence[str]) -> list[str]:
    """Return the names in other letters than Latin ones, which most CLIPs cannot read."""
    return [
        name
        for name in names
        if any(letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN") for letter in name)
    ]


def remarks_on_names(names: Sequence[str], renamed: Sequence[tuple[str, str]]) -> list[str]:
    """Return what a user should know about the class names, one sentence each: changed ones, and unreadable ones."""
    remarks = []
    advice = "the text model cannot know what they mean: write display names into a file (--classes)"
    if renamed:
        label, name = renamed[0]
        remarks.append(
            f"{_count(renamed)} written as words for the model, such as {label!r} as {name!r} "
            "(data.as_words=false: as they are; --classes FILE: as you like)"
        )
    if codes := unreadable_names(names):
        remarks.append(f"{_count(codes)} like codes, such as {codes[0]!r}; {advice}")
    if foreign := foreign_names(names):
        remarks.append(f"{_count(foreign)} in letters that most CLIPs cannot read, such as {foreign[0]!r}")
    return remarks


def _count(names: Sequence[object]) -> str:
    return "1 class name is" if len(names) == 1 else f"{len(names)} class names are"
