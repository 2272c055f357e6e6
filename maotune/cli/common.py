"""Shared by all commands: the application, consoles, common options, progress bars, JSON on stdout."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from maotune.printable import escape_controls

if TYPE_CHECKING:
    from maotune.recipe import Recipe
    from maotune.runs.events import Callback

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tune the prompts of a frozen CLIP with a handful of images. MAO tunes any prompt learner in two stages.",
)


class SafeConsole(Console):
    """A console that obeys no escape sequence in what it prints: names of files and classes may hold some."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the segments of ``renderable``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_controls(segment.text, keep="\n"))


out = SafeConsole()
err = SafeConsole(stderr=True)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout; everything else goes to stderr.")
]
Root = Annotated[Path | None, typer.Option(help="Folder of the data (CoOp's layout, tables).")]
Activation = Annotated[
    str | None, typer.Option(help="quick_gelu or gelu, where the files of a CLIP do not tell; default: as they say.")
]
ClipName = Annotated[
    str | None,
    typer.Option(
        help="ViT-B/16 and the like (downloaded once), a folder, a hub id, a .pt file, or iconclip, which ships with "
        "maotune. Default: iconclip for the shipped icons; else a CLIP of the local cache."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Use IconCLIP for one's own images, without being asked.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings of the recipe, with dotted keys: learner.context_length=4. shots=4 is short for data.shots=4.",
    ),
]


def name_clip(recipes: "Iterable[Recipe]", yes: bool) -> dict[str, str]:
    """Return the CLIP, as an override, for the first recipe whose images are no icons and that names none.

    Where only IconCLIP is here, and ``yes`` is not set, the user is asked on a terminal, and refused without one.

    Raises:
        RecipeError: see there.
    """
    from maotune.runs.clip_choice import choose_clip

    def accept_icons(warning: str) -> bool:
        if not (yes or sys.stdin.isatty()):
            return False
        err.print(f"{warning}.", markup=False, highlight=False, soft_wrap=True)
        return yes or typer.confirm("Use IconCLIP all the same?", err=True)

    clips = (choose_clip(recipe, accept_icons) for recipe in recipes)
    return next(({"clip.source": clip} for clip in clips if clip), {})


def each(key: str, values: str | None) -> list[dict[str, str]]:
    """Return one override per value of an option that takes several; one without it where none is given."""
    return [{key: value} for value in values.split(",") if value] if values else [{}]


@contextmanager
def progress() -> "Iterator[Callback]":
    """Show the events of runs as progress bars on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from maotune.runs import events
    from maotune.train import history

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, Any] = {}
        batches: dict[str, int] = {}

        def bar(name: str, total: int, done: int = 0) -> Any:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, completed=done, note="")
            return tasks[name]

        def callback(event: Any) -> None:
            if isinstance(event, events.Progress):
                bars.update(bar(event.what, event.total), completed=event.done, total=event.total)
            elif isinstance(event, events.RunPlan):
                bars.console.print(str(event), markup=False, highlight=False, soft_wrap=True)
            elif isinstance(event, history.StageStarted):
                batches[event.stage] = event.batches
                bar(f"stage {event.stage}", event.epochs * event.batches, event.done)
            elif isinstance(event, history.StepDone):
                note = f"loss {sum(event.losses.values()):.3f}"
                done = event.epoch * batches[event.stage] + event.step
                bars.update(tasks[f"stage {event.stage}"], completed=done, note=note)

        yield callback


@contextmanager
def show_notes() -> "Iterator[None]":
    """Show the log on stderr, each note once: the runs of a command may read the same data many times."""
    from rich.logging import RichHandler

    shown: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        new = (message := record.getMessage()) not in shown
        shown.add(message)
        return new

    notes = RichHandler(console=err, show_time=False, show_level=False, show_path=False)
    notes.setFormatter(logging.Formatter("note: %(message)s"))
    notes.addFilter(is_new)
    logging.getLogger("maotune").setLevel(logging.INFO)
    logging.getLogger().addHandler(notes)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(notes)


def print_json(document: Any) -> None:
    """Print the document of ``--json``."""
    sys.stdout.write(json.dumps(document, indent=1, default=str, allow_nan=False) + "\n")
