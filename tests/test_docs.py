"""What the documents show is what happens."""

import re
from pathlib import Path
from typing import Any

import pytest

from maotune.cli.common import app
from maotune.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_quickstart_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path / "cache"))
    page = ROOT / "docs" / "quickstart.md"
    shown: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), shown)
    assert set(shown["run"].result.scores) == {"base", "new", "h"}
    assert (tmp_path / "weather.safetensors").stat().st_size < 100_000, "a file of a few kilobytes"
    assert shown["again"].result == shown["run"].result
    printed = capsys.readouterr().out
    assert "'h'" in printed
    assert re.search(r"storm|sunshine|a cat", printed)


def test_pages_link_to_what_exists() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands(page: Path) -> list[list[str]]:
    """The maotune commands of a page's shell blocks, without comments."""
    text = "\n".join(blocks(page, "(?:sh)?"))
    return [line.partition("#")[0].split() for line in re.findall(r"maotune ((?:\w|-).*)", text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_commands_options_and_settings_that_exist(page: Path) -> None:
    import typer

    group: Any = typer.main.get_command(app)
    for words in commands(page):
        command, given = group, iter(words)
        while hasattr(command, "commands"):
            word = next(given)
            assert word in command.commands, f"{page.name}: maotune {' '.join(words)}"
            command = command.commands[word]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        rest = list(given)
        for before, word in zip(["", *rest], rest, strict=False):
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{page.name}: {word}"
            elif before != "--ask" and re.fullmatch(r"[a-z_.]+=.*", word):  # what is asked of a cluster is no setting
                load_recipe(None, [word])
