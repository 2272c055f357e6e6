"""How names from elsewhere are shown: of files, classes and data sets, whatever characters are in them."""

import unicodedata
from typing import Any

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters (escape sequences, reversed writing), bytes of other encodings, line separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indian languages and emoji are written with."""
_FORMULA = ("=", "+", "-", "@")
"""First characters that make a formula of a spreadsheet's cell."""


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
