"""How names from elsewhere are shown: of files, classes and data sets, whatever characters are in them."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters (escape sequences, reversed writing), bytes of other encodings, line separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indian languages and emoji are written with."""
_FORMULA = ("=", "+", "-", "@")
"""First characters that make a formula of a spreadsheet's cell."""
_PATH = re.compile(r"(?<![\w.~/})\]])/(?=[^\s/])")
"""The beginning of what may be an absolute path; no address, and nothing like and/or, 1/2 or {}/{}."""
_FOLDERS = re.compile(r"/(?:[^\s/:]+/)+(?=[^\s/])")
"""The folders of a path without spaces, up to its last name. A single name, such as /s, has none."""


def printable(name: str) -> str:
    r"""Return a name as it can be printed in a line or a cell, with ``\x1b`` in place of an escape character.

    A quote is put before what a spreadsheet would take for a formula. A name that is harmless stays as it is.
    """
    text = escape_controls(name)
    return f"'{text}" if text.startswith(_FORMULA) else text


def printable_cell(cell: Any) -> Any:
    """Return the value of a cell of a table; texts are printable."""
    return printable(cell) if isinstance(cell, str) else cell


def escape_controls(text: str, keep: str = "") -> str:
    r"""Return a text in which characters that a terminal would obey are written as ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: of any origin.
        keep: such characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSAFE and character not in _JOINERS + keep
        else character
        for character in text
    )


def without_folders(text: str, own: Iterable[str | Path] = ()) -> str:
    """Return a text without the folders of this machine, which tell who works on what.

    Args:
        text: a path, or a text with paths in it.
        own: folders and files; what is below them keeps its path from their name on.
    """
    for folder in (*(Path(path).absolute().parent for path in own), Path.home()):
        text = text.replace(f"{folder}{os.sep}", "")
    for start in reversed([match.start() for match in _PATH.finditer(text)]):
        line = text[start:].partition("\n")[0]
        plain = _FOLDERS.match(line)
        ends = [slash.end() for slash in re.finditer("/", line) if " " in line[: slash.start()]]
        spaced = [end for end in ends if os.path.isdir(line[:end])]  # only the disk tells where such a path ends
        text = text[:start] + text[start + max([plain.end() if plain else 0, *spaced]) :]
    return text
