"""The command line: parse, call, print, exit code. Nothing here imports torch before a command needs it."""

import logging
import shlex
import sys
from typing import Annotated

import typer
from rich.markup import escape

from maotune import __version__
from maotune.cli import data, experiments, inference, report, train  # noqa: F401 - they add their commands
from maotune.cli.common import app, err, out, print_json


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    """Options of maotune itself."""


SEVERAL = {
    "train": ("--learner", "--learners", "--method", "--methods", "--seed", "--seeds"),
    "zeroshot": ("--data",),
    "report": ("--format", "--formats"),
    "run": ("--data", "--learner", "--learners", "--method", "--methods", "--seed", "--seeds"),
}
"""By command, the options that take several values, with commas or spaces between them."""


INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def join_values(arguments: list[str]) -> list[str]:
    """``--seeds 1 2 3`` becomes ``--seeds 1,2,3``: values run to the next option or KEY=VALUE."""
    several = SEVERAL.get(arguments[0], ()) if arguments else ()
    joined: list[str] = []
    taking = first = False
    for argument in arguments:
        if taking and not argument.startswith("-") and "=" not in argument:
            if first:
                joined.append(argument)
            else:
                joined[-1] += f",{argument}"
            first = False
            continue
        joined.append(argument)
        taking = first = argument in several
    return joined


def call(arguments: list[str]) -> int:
    """Run one command and return its exit code; an error is told in a sentence, on stderr and, with --json, as JSON."""
    from rich.logging import RichHandler

    notes = RichHandler(console=err, show_time=False, show_level=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="note: %(message)s", handlers=[notes])
    logging.getLogger("maotune").setLevel(logging.INFO)
    as_json = "--json" in arguments
    try:
        code = app(join_values(arguments), standalone_mode=False, obj=arguments)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _failed(_stopped(arguments), 1, as_json)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's, of which typer may bring its own copy
            error.show()  # type: ignore[attr-defined]
            return _failed(error.format_message(), 2, as_json, told=True)
        if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
            advice = "take a smaller batch_size or fewer data.views, or a smaller --clip"
            return _failed(f"out of memory: {advice}. {error}", 1, as_json)
        if not isinstance(error, ValueError | OSError | ArithmeticError):  # a fault of ours shows where it is
            if as_json:
                print_json({"error": f"{type(error).__name__}: {error}"})
            raise
        return _failed(str(error), 2 if type(error).__name__ == "RecipeError" else 1, as_json)


def _stopped(arguments: list[str]) -> str:
    if arguments[0] not in ("train", "run"):
        return "stopped"
    needs = arguments[0] == "train" and "--resume" not in arguments  # a sweep always goes on
    again = shlex.join([*arguments, *(("--resume",) if needs else ())])
    return f"stopped; what was done is kept. Go on with: maotune {again}"


def _failed(message: str, code: int, as_json: bool, told: bool = False) -> int:
    if not told:
        err.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    if as_json:
        print_json({"error": message})
    return code


def main() -> None:
    """The ``maotune`` command: exit code 0, 1 for a failure, 2 for a usage error."""
    sys.exit(call(sys.argv[1:]))
