"""Sweeps on the terminal: plan, progress, running and failed trials, results."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from maotune.cli.common import err, out

if TYPE_CHECKING:
    from maotune.report.frame import Scores
    from maotune.runs.result import Result
    from maotune.sweep.engine import SweepProgress
    from maotune.sweep.manifest import Trial
    from maotune.sweep.status import State, TrialState

SHARE = 0.05
"""Share of the driver's time that may be spent on reading the trials' files."""
MARKS = {"running": ("cyan", "running"), "failed": ("red", "failed")}


def say(text: str) -> None:
    """Print a line on stderr, unformatted."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _title(trial: "Trial") -> str:
    recipe = trial.recipe
    variant = f" {trial.variant}" if trial.variant else ""
    return f"{Path(recipe.data.source).name} {recipe.title} {recipe.method}{variant}, seed {recipe.seed}"


def scores_of(result: "Result") -> str:
    """Write the scores of a result on one line."""
    return ", ".join(f"{'H' if name == 'h' else name} {value:.2f}" for name, value in result.scores.items())


def time_left(states: "Sequence[TrialState]", jobs: int | None = None) -> str:
    """Write the estimated time left; empty where it is unknown or all is done."""
    from maotune.runs.events import duration
    from maotune.sweep.status import estimate_seconds_left

    left = estimate_seconds_left(states, jobs)
    return f"about {duration(left)} left".replace("about under", "under") if left else ""


@contextmanager
def watching(trials: "Sequence[Trial]", jobs: int | None) -> "Iterator[Callable[[SweepProgress], None]]":
    """Return a callback that reports trials as they end; on a terminal also the running ones, continuously."""
    from maotune.sweep.status import StatusReader, read_progress

    watch = StatusReader(trials)
    titles = {trial.folder: _title(trial) for trial in trials}
    reported: set[Path] = set()
    awaited: set[Path] = set()
    next_look = 0.0

    def listen(progress: "SweepProgress") -> None:
        nonlocal next_look
        if not progress.running and not progress.waiting:
            for folder in progress.foreign - awaited:
                awaited.add(folder)
                seen = read_progress(folder)
                who = f"process {seen['pid']} on {seen['host']}" if "host" in seen else "another process"
                say(f"waiting for {titles[folder]}, which {who} runs for another sweep")
        ended = [*progress.finished, *progress.failed]
        new = [folder for folder in ended if folder not in reported]
        if not new and (live is None or time.monotonic() < next_look):
            return
        before = time.monotonic()
        states = watch.read()
        left = time_left(states, jobs)
        by_folder = {state.trial.folder: state for state in states}
        for folder in new:
            reported.add(folder)
            result, reason = by_folder[folder].result, progress.failed.get(folder)
            what = f"failed: {reason}" if result is None else f"{scores_of(result)} ({result.seconds:.0f} s)"
            total = len(reported) + progress.remaining
            say(f"[{len(reported)}/{total}] {titles[folder]}: {what}{f'; {left}' if left else ''}")
        if live is not None:
            live.update(overview(states, jobs), refresh=True)
        now = time.monotonic()
        next_look = now + max(1.0, (now - before) / SHARE)

    live = Live(console=err, transient=True, auto_refresh=False) if err.is_terminal else None
    if live is None:
        yield listen
    else:
        with live:
            yield listen


def overview(states: "Sequence[TrialState]", jobs: int | None = None) -> RenderableType:
    """Show the progress of a sweep, with a line per running trial."""
    from maotune.sweep.status import count_states

    number = count_states(states)
    bar = Table.grid(padding=(0, 1))
    rest = ", ".join(f"{number[state]} {state}" for state in ("running", "failed", "waiting") if number[state])
    parts = [rest, time_left(states, jobs)]
    bar.add_row(
        f"{number['finished']} of {len(states)} finished",
        ProgressBar(total=len(states), completed=number["finished"], width=24),
        "; ".join(part for part in parts if part),
    )
    running = [state for state in states if state.state == "running"]
    return Group(bar, _running(running)) if running else bar


def _running(states: "Sequence[TrialState]") -> Table:
    """Show which trial runs where, and its progress."""
    from maotune.runs.events import duration

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="ellipsis", no_wrap=True)
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    for state in states:
        seen = state.progress
        done = f"{seen['stage']} {seen.get('done', 0)}/{seen.get('total', '?')}" if "stage" in seen else "begins"
        rate = f"{seen['images_a_second']:.0f} images/s" if "images_a_second" in seen else ""
        left = f"{duration(state.seconds_left)} left" if state.seconds_left is not None else ""
        where = f"{seen['host']}:{seen['pid']}" if "host" in seen else ""
        table.add_row(escape(_title(state.trial)), done, rate, left, where)
    return table


def show_status(states: "Sequence[TrialState]", folder: Path, *, top: bool = False) -> RenderableType:
    """Show the whole status of a sweep; what changes comes last, or first at the ``top`` of a screen."""
    parts: list[RenderableType] = [_counts(states), overview(states)]
    failed = [state for state in states if state.state == "failed"]
    if failed:
        parts.append(Text(f"failed (the whole story is in {folder}/TRIAL/error.txt; the next run tries them again):"))
        parts += [Text(f"  {state.trial.name}: {state.reason}") for state in failed]
    return Group(*parts[1:], parts[0]) if top else Group(*parts)


def _counts(states: "Sequence[TrialState]") -> Table:
    """Count trials: a row per data set and learner, a column per method."""
    methods = list(dict.fromkeys(state.trial.recipe.method for state in states))
    groups: dict[tuple[str, ...], dict[str, list[State]]] = {}
    for state in states:
        recipe = state.trial.recipe
        of = (
            state.trial.variant,
            Path(recipe.data.source).name,
            recipe.title if recipe.method != "zeroshot" else "CLIP",
        )
        groups.setdefault(of, {}).setdefault(recipe.method, []).append(state.state)
    varied = any(variant for variant, _, _ in groups)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in (*(("variant",) if varied else ()), "data set", "learner"):
        table.add_column(column, no_wrap=True)
    for method in methods:
        table.add_column(method, justify="right")
    for key in sorted(groups):
        cells = [_cell(groups[key].get(method, ())) for method in methods]
        table.add_row(*map(escape, key if varied else key[1:]), *cells)
    return table


def _cell(states: "Sequence[State]") -> str:
    if not states:
        return ""
    text = f"{states.count('finished')}/{len(states)}"
    for state, (colour, word) in MARKS.items():
        if count := states.count(state):
            text = f"[{colour}]{count} {word}[/] {text}"
    return text


def status_document(states: "Sequence[TrialState]", folder: Path, commands: Sequence[str]) -> dict[str, Any]:
    """Return the document of ``maotune status --json``."""
    from maotune.sweep.status import count_states, estimate_seconds_left

    return {
        "folder": str(folder),
        "commands": list(commands),
        **{str(state): number for state, number in count_states(states).items()},
        "seconds_left": estimate_seconds_left(states),
        "trials": [
            {
                "name": state.trial.name,
                "experiment": state.trial.experiment,
                "variant": state.trial.variant,
                "dataset": state.trial.recipe.data.source,
                "learner": state.trial.recipe.title,
                "method": state.trial.recipe.method,
                "seed": state.trial.recipe.seed,
                "state": state.state,
                "scores": state.result.scores if state.result else None,
                "reason": state.reason or None,
                "progress": state.progress or None,
                "seconds_left": state.seconds_left,
            }
            for state in states
        ],
    }


def show_plan(states: "Sequence[TrialState]", folder: Path, overrides: Mapping[str, Any], time: str) -> None:
    """Print what a sweep would run: number of trials, settings, estimated time."""
    from maotune.sweep.status import count_states

    trials = [state.trial for state in states]
    out.print(_counts(states))
    seeds = sorted({trial.recipe.seed for trial in trials})
    number = count_states(states)
    print_line = f"{len(trials)} trials, seeds {', '.join(map(str, seeds))}, in {folder}"
    out.print(
        f"{print_line}: {number['finished']} finished, {len(states) - number['finished']} to run", highlight=False
    )
    for sentence in settings_in_words(trials, overrides):
        out.print(sentence, markup=False, highlight=False)
    if time:
        out.print(time, markup=False, highlight=False)


def settings_in_words(trials: "Sequence[Trial]", overrides: Mapping[str, Any]) -> list[str]:
    """Say which recipes are run, where all trials depart from them and from the paper, and why."""
    from maotune.recipe.paper import departures, in_words

    sentences = []
    if overrides:
        sentences.append("your settings: " + " ".join(f"{key}={value}" for key, value in overrides.items()))
    departing = [departures(recipe) for recipe in {trial.recipe.title: trial.recipe for trial in trials}.values()]
    shared = {key: pair for key, pair in departing[0].items() if all(each.get(key) == pair for each in departing)}
    return [*sentences, in_words((trial.recipe.name for trial in trials), shared)]


def show_averages(scores: "Scores") -> None:
    """Print averages over the data sets that all rows have."""
    from maotune.mao.methods import ZEROSHOT

    keys, cells = scores.compared
    if not cells:
        return
    title = (
        f"mean over {len(cells)} data sets, accuracy in %" if len(cells) > 1 else f"{next(iter(cells))}: accuracy in %"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    tests = list(scores.average(keys[0]))
    table.add_column("method", no_wrap=True)
    for test in tests:
        table.add_column("H" if test == "h" else test, justify="right", no_wrap=True)
    for key in keys:
        means = scores.average(key)
        name = "zero-shot CLIP" if key[1] == ZEROSHOT else " ".join(filter(None, key))
        table.add_row(escape(name), *(str(means.get(test, "")) for test in tests))
    out.print(table)
