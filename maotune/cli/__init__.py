"""The command line: parse, call, print, exit code. Nothing here imports torch before a command needs it."""

import io
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from maotune import __version__
from maotune.cli import data, experiments, inference, report, review, train  # noqa: F401 - they add their commands
from maotune.cli.common import app, err, out, print_json, show_notes


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of maotune itself."""


SEVERAL = {
    "train": ("--learner", "--learners", "--method", "--methods", "--seed", "--seeds"),
    "zeroshot": ("--data",),
    "report": ("--format", "--formats"),
    "run": ("--data", "--learner", "--learners", "--method", "--methods", "--seed", "--seeds"),
}
"""Command -> options that take several values, separated by commas or spaces. The singular name is an alias."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as of shells."""


def join_values(arguments: list[str]) -> list[str]:
    """``--seeds 1 2 3`` becomes ``--seeds 1,2,3``: values end at an option, KEY=VALUE, or the positional argument."""
    command = arguments[0] if arguments else ""
    joined: list[str] = []
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("-") or "=" in argument or (values and _is_positional(command, argument)):
            option = ""
        if option:
            joined[-1:] = [f"{joined[-1]},{argument}"] if values else [joined[-1], argument]
            values += 1
            continue
        joined.append(argument)
        option, values = argument if argument in SEVERAL.get(command, ()) else "", 0
    return joined


def _is_positional(command: str, argument: str) -> bool:
    """Whether an argument after the values of an option is not another value, but the command's own argument."""
    if command == "run":
        from maotune.experiments.catalog import EXPERIMENTS

        return argument in EXPERIMENTS
    if command == "report":
        return not argument.replace(",", "").isalpha() or Path(argument).is_dir()
    return False


def call(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are one sentence on stderr and, with --json, JSON on stdout."""
    as_json = "--json" in arguments
    with show_notes():
        return _call(arguments, as_json)


def _call(arguments: list[str], as_json: bool) -> int:
    for before, argument in zip(["maotune", *arguments], arguments, strict=False):
        if not argument.strip() or (argument.startswith("--") and argument.endswith("=")):
            message = f"{argument.strip() or before} is followed by nothing: is a shell variable unset? Give a value"
            return _failed(message, 2, as_json)
    try:
        code = app(join_values(arguments), standalone_mode=False, obj=arguments)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _failed(_stopped(arguments), INTERRUPTED, as_json)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of click, of which typer may vendor its own copy
            error.show()  # type: ignore[attr-defined]
            return _failed(error.format_message(), 2, as_json, shown=True)
        if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
            advice = "use a smaller batch_size, fewer data.views, or a smaller --clip"
            return _failed(f"out of memory: {advice}. {error}", 1, as_json)
        if not isinstance(error, ValueError | OSError | ArithmeticError):  # a bug: show the traceback
            if as_json:
                print_json({"error": f"{type(error).__name__}: {error}"})
            raise
        return _failed(str(error), 2 if type(error).__name__ == "RecipeError" else 1, as_json)


def _stopped(arguments: list[str]) -> str:
    if arguments[0] not in ("train", "run"):
        return "stopped"
    needs = arguments[0] == "train" and "--resume" not in arguments  # a sweep always resumes
    again = shlex.join([*arguments, *(("--resume",) if needs else ())])
    return f"stopped; what was done is kept. Resume with: maotune {again}"


def _failed(message: str, code: int, as_json: bool, shown: bool = False) -> int:
    if not shown:
        err.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    if as_json:
        print_json({"error": message})
    return code


def main() -> None:
    """The ``maotune`` command: exit code 0, 1 for a failure, 2 for a usage error, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the code page cannot write does not end the command
            stream.reconfigure(errors="backslashreplace")
    sys.exit(call(sys.argv[1:]))
