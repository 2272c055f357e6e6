"""Names of any origin, as they are printed."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from maotune.cli.common import SafeConsole
from maotune.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a red car", "a red car"),
        ("Große Möwe (juv.) #2", "Große Möwe (juv.) #2"),
        ("山田　太郎 👩‍👧 می‌خواهم", "山田　太郎 👩‍👧 می‌خواهم"),
        (r"a\b", r"a\b"),
        ("\x1b[2J\x1b]0;owned\x07cat", r"\x1b[2J\x1b]0;owned\x07cat"),
        ("\x9b31mcat", r"\x9b31mcat"),
        ("cat\nerror: all is lost\tdog\r", r"cat\nerror: all is lost\tdog\r"),
        ("\u202egpj.cat\u2028\u200b", r"\u202egpj.cat\u2028\u200b"),
        ("caf\udce9.png", r"caf\udce9.png"),
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("\t=1+1", r"\t=1+1"),
    ],
)
def test_what_a_terminal_or_a_spreadsheet_would_obey_is_shown_instead(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text())
def test_a_printable_name_is_one_line_and_one_cell_in_utf8(name: str) -> None:
    shown = printable(name)
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert [*csv.reader(io.StringIO(f"{shown}\tx\n"), delimiter="\t", quoting=csv.QUOTE_NONE)] == [[shown, "x"]]


def test_no_escape_sequence_of_a_text_reaches_the_terminal() -> None:
    """The console's own colours do; tables, messages and several lines alike."""
    told = {}
    for kind in (Console, SafeConsole):
        file = io.StringIO()
        console = kind(file=file, force_terminal=True, color_system="standard", width=60)
        table = Table("name")
        table.add_row("[red]a\x1b[2J[/red]")
        console.print(table)
        console.print("first \x1b[8m\nsecond", markup=False, highlight=False)
        told[kind] = file.getvalue()
    assert "\x1b[2J" in told[Console]
    assert "\x1b[8m" in told[Console]
    assert not {"\x1b[2J", "\x1b[8m"} & {told[SafeConsole][at : at + 4] for at in range(len(told[SafeConsole]))}
    assert "\x1b[31ma\\x1" in told[SafeConsole]
    assert "first \\x1b[8m\nsecond\n" in told[SafeConsole]
