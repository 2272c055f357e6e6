"""``maotune run`` and ``maotune status``: the experiments of the paper, and their progress."""

import contextlib
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maotune.cli.common import Activation, AsJson, ClipName, Root, Settings, Yes, app, name_clip, out, print_json
from maotune.cli.results import show_results, write_figures
from maotune.cli.sweep_tables import (
    say,
    settings_in_words,
    show_averages,
    show_plan,
    show_status,
    status_document,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from maotune.experiments.catalog import PlannedRun
    from maotune.runs.result import Result
    from maotune.sweep.engine import Engine
    from maotune.sweep.local import LocalEngine
    from maotune.sweep.manifest import Trial

ENGINES = {
    "local": "processes on this machine, on its GPUs in turn",
    "ray": "tasks on a Ray cluster",
    "slurm": "jobs of Slurm, through submitit",
}
"""Back ends by name."""
POLL, PATIENCE = 2.0, 120.0
"""Seconds between two looks of `status --watch`, and without any running trial until it gives up."""
FEW = 3
"""Largest number of data sets with a table each on the terminal."""


@app.command()
def run(
    context: typer.Context,
    experiment: Annotated[str, typer.Argument(help="`maotune list experiments`.")],
    settings: Settings = None,
    suite: Annotated[str, typer.Option(help="A suite of data sets.")] = "icons-11",
    data: Annotated[str | None, typer.Option(help="Data sets instead of a suite: a b or a,b.")] = None,
    learners: Annotated[str | None, typer.Option("--learners", "--learner", help="Default: the experiment's.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", "--method", help="Default: the experiment's.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", "--seed", help="1 2 3 or 1,2,3.")] = "1,2,3",
    shots: Annotated[int | None, typer.Option(help="Labelled images per class.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all; MAO splits them between its stages.")] = None,
    root: Root = None,
    clip: ClipName = None,
    yes: Yes = False,
    activation: Activation = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the sweep; default: runs/EXPERIMENT.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at a time; default: one per GPU, else per core; on a cluster, all that fit."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where trials run: local, ray or slurm.")] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="ray: auto, HOST:PORT or ray://HOST:PORT. slurm: `local` tries it without Slurm."),
    ] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Resources of a trial on the cluster. ray: num_cpus, num_gpus, memory. "
            "slurm: partition, timeout_min, mem_gb, cpus_per_task, gpus_per_node, account, ... May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment of the paper: a trial per data set, learner, method and seed.

    After a kill or a stop at any time, the same command resumes; what is finished is not run again.
    """
    from maotune.experiments.catalog import EXPERIMENTS, plan_runs
    from maotune.recipe import RecipeError, load_recipe
    from maotune.recipe.load import SHORT, parse_override
    from maotune.recipe.schema import choose
    from maotune.recipe.suites import find_suite
    from maotune.runs.result import is_finished
    from maotune.sweep.engine import run_trials
    from maotune.sweep.inference import measure
    from maotune.sweep.manifest import Sweep

    chosen = EXPERIMENTS[choose("experiment", experiment, EXPERIMENTS)]
    choose("engine", engine, ENGINES)
    sources = _names(data) if data else list(chosen.sets(suite, find_suite(suite)))
    _check_sources(sources, root)
    options: dict[str, Any] = {
        "data.shots": shots,
        "epochs": epochs,
        "data.root": root,
        "clip.source": clip,
        "clip.activation": activation,
    }
    overrides = {SHORT.get(key, key): value for key, value in map(parse_override, settings or ())}
    overrides |= {key: value for key, value in options.items() if value is not None}
    if chosen.make_figure is None:  # figures of batches take no image for a class
        overrides |= name_clip((load_recipe(None, {**overrides, "data.source": source}) for source in sources), yes)
    planned = plan_runs(
        chosen,
        sources,
        learners=_names(learners),
        methods=_names(methods),
        seeds=_seeds(seeds),
        settings=overrides,
    )
    target = folder or Path("runs") / experiment
    if chosen.make_figure is not None:
        if learners or methods:
            raise RecipeError(f"{experiment} tunes nothing: leave out --learners and --methods")
        recipes = [trial.recipe for trial in planned]
        write_figures(chosen.make_figure, recipes, target, dry_run, as_json)
        return
    trials = _trials(planned, target.absolute(), experiment)
    if not trials:
        raise RecipeError(f"nothing to run: {experiment} with these learners and methods has no trial")
    if dry_run:
        _show_plan(trials, target, overrides, engine, jobs, as_json)
        return
    sweep = Sweep.plan(target, trials, shlex.join(["maotune", *context.obj]) if context.obj else "")
    usable = [trial for trial in trials if trial.folder not in sweep.refused]
    missing = list(dict.fromkeys(trial.folder for trial in usable if not is_finished(trial.folder)))
    say(f"{len(trials)} trials in {target}, {len(missing)} of them to run")
    for sentence in settings_in_words(trials, overrides):
        say(sentence)
    failed = {trial.folder: sweep.refused[trial.folder] for trial in trials if trial not in usable}
    if missing:
        to_watch = [trial for trial in trials if trial.folder in {*missing}]
        with (
            _engine(engine, target, jobs, address, ask or (), trials) as runner,
            watching(to_watch, runner.jobs) as listen,
        ):
            failed |= run_trials(runner, missing, listen).failed
    finished, failed = _read_results(usable, failed)
    if chosen.inference:
        measure(trial for trial in trials if trial.folder in finished)
    _show_results(trials, finished, failed, as_json)
    if failed:
        _say_failed(failed, len(trials))
        raise typer.Exit(1)
    say(f"All about it: maotune report {shlex.quote(str(target))}")


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a sweep.")],
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until all trials have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a sweep: what runs where, what failed, how long the rest may take. Only reads."""
    from rich.live import Live

    from maotune.recipe import RecipeError
    from maotune.sweep.manifest import Sweep
    from maotune.sweep.status import StatusReader

    if watch and as_json:
        raise RecipeError("--watch shows a table again and again, --json prints one document: give one of them")
    sweep = Sweep.read(folder)
    looking = StatusReader(sweep.trials)
    states = looking.read()
    if as_json:
        print_json(status_document(states, folder, sweep.commands))
        return
    if not watch:
        out.print(show_status(states, folder))
        return
    with Live(show_status(states, folder, top=True), console=out, auto_refresh=False, vertical_overflow="crop") as live:
        idle = 0.0
        while any(trial.state in ("running", "waiting") for trial in states) and idle < PATIENCE:
            time.sleep(POLL)
            states = looking.read()
            idle = 0.0 if any(trial.state == "running" for trial in states) else idle + POLL
            live.update(show_status(states, folder, top=True), refresh=True)
    if any(trial.state == "waiting" for trial in states):
        say(f"nothing has run here for {PATIENCE:.0f} s; resume with: {'; '.join(sweep.commands)}")


def _names(values: str | None) -> list[str]:
    return [value for value in (values or "").split(",") if value]


def _seeds(values: str) -> list[int]:
    from maotune.recipe import RecipeError

    try:
        seeds = [int(value) for value in _names(values)]
    except ValueError:
        raise RecipeError(f"--seeds {values}: give whole numbers, as in --seeds 1 2 3") from None
    if not seeds:
        raise RecipeError("--seeds has no number: give some, as in --seeds 1 2 3")
    return list(dict.fromkeys(seeds))


def _trials(planned: "Iterable[PlannedRun]", folder: Path, experiment: str) -> "list[Trial]":
    """Return the trials of planned runs, in the folders that hold them already where there are such."""
    from maotune.recipe import Recipe
    from maotune.runs.folder import find_run_folder
    from maotune.sweep.manifest import Trial
    from maotune.train.session import CheckpointError

    def folder_of(recipe: Recipe) -> Path:
        try:
            return find_run_folder(folder, recipe)
        except CheckpointError:
            return folder / recipe.slug  # what is there is refused, and the other trials go on

    trials = [Trial(folder_of(run.recipe), experiment, run.variant, run.recipe) for run in planned]
    _check_data(trials, folder)
    return trials


def _check_data(trials: "Sequence[Trial]", target: Path) -> None:
    """Refuse to extend a sweep after its data have changed: its rows would not be comparable.

    Raises:
        CheckpointError: the message says what has changed.
    """
    from maotune.runs.fingerprint import DataComparison
    from maotune.runs.folder import recorded_data
    from maotune.train.session import CheckpointError

    comparison = DataComparison()
    changes: dict[str, list[str]] = {}
    for trial in trials:
        with contextlib.suppress(CheckpointError):  # a damaged trial is refused when its turn comes
            if differences := comparison.differences(trial.recipe, recorded_data(trial.folder)):
                changes[trial.name] = differences
    for name, differences in changes.items():
        raise CheckpointError(
            f"the data have changed since {len(changes)} of the trials in {target} were run ({name}: "
            f"{'; '.join(differences)}): choose another --folder, or delete the folders of these trials"
        )


def _check_sources(sources: "Sequence[str]", root: Path | None) -> None:
    """Refuse a misspelt data set once, instead of once per trial."""
    from maotune.data.sets.catalog import load_dataset, names

    for source in sources:
        if source not in names() and not (Path(source).exists() or (root and (root / source).exists())):
            load_dataset(source, root)  # says what there is, and what is nearest


def _asked(pairs: "Sequence[str]") -> dict[str, Any]:
    from maotune.recipe.load import parse_override

    return dict(map(parse_override, pairs))


def _engine(
    name: str, folder: Path, jobs: int | None, address: str | None, ask: "Sequence[str]", trials: "Sequence[Trial]"
) -> "Engine":
    """Return the engine that the options name."""
    from maotune.recipe import RecipeError

    if name == "ray":
        from maotune.sweep.ray import RayEngine

        return RayEngine(address or "auto", jobs, _asked(ask), gpus=_may_use_gpus(trials))
    if name == "slurm":
        from maotune.sweep.slurm import SlurmEngine

        return SlurmEngine(folder.absolute(), jobs, _asked(ask), address or "slurm")
    if address or ask:
        raise RecipeError("--address and --ask are for --engine ray and --engine slurm")
    return _local_engine(jobs, trials)


def _local_engine(jobs: int | None, trials: "Sequence[Trial]") -> "LocalEngine":
    from maotune.sweep.local import LocalEngine, visible_devices

    return LocalEngine(jobs, visible_devices() if _may_use_gpus(trials) else ())


def _may_use_gpus(trials: "Sequence[Trial]") -> bool:
    return any(trial.recipe.clip.device in ("auto", "cuda") for trial in trials)


def _show_plan(
    trials: "list[Trial]",
    folder: Path,
    overrides: dict[str, Any],
    engine: str,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Print the trials and the time that they will take: by those that are finished, else as measured now."""
    from maotune.runs.events import duration
    from maotune.sweep.status import estimate_seconds_left, forecast_states, planned_states

    states = planned_states(trials, folder)
    runner = _local_engine(jobs, trials) if engine == "local" else None
    at_a_time, basis = runner.jobs if runner else jobs, "going by those that are finished"
    left = estimate_seconds_left(states, at_a_time)
    if left is None:
        try:
            states = forecast_states(states, runner.threads if runner else None)
            basis = "going by a few images and updates, measured just now"
        except (ValueError, OSError) as error:
            basis = f"how long it takes is not known: {error}"
        left = estimate_seconds_left(states, at_a_time)
    if as_json:
        print_json({**status_document(states, folder, ()), "seconds_left": left, "settings": overrides})
        return
    at_once = f" with {at_a_time} at a time" if at_a_time else ""
    show_plan(states, folder, overrides, f"about {duration(left)}{at_once}, {basis}" if left else basis)


def _say_failed(failed: dict[Path, str], count: int) -> None:
    say(f"{len(failed)} of {count} trials failed; the same command tries them again:")
    for path, reason in failed.items():
        say(f"  {path / 'error.txt'}: {reason}")


def _read_results(trials: "Sequence[Trial]", failed: dict[Path, str]) -> "tuple[dict[Path, Result], dict[Path, str]]":
    """Return the results of finished trials, and the failed ones with those whose results cannot be read."""
    from maotune.train.session import CheckpointError

    finished, unreadable = {}, {}
    for trial in trials:
        try:
            if (result := trial.result()) is not None:
                finished[trial.folder] = result
        except CheckpointError as error:
            unreadable[trial.folder] = str(error)
    return finished, failed | unreadable


def _show_results(
    trials: "list[Trial]", finished: "dict[Path, Result]", failed: dict[Path, str], as_json: bool
) -> None:
    """Print tables per data set where these are few and nothing is varied, else averages; or everything as JSON."""
    from maotune.report.frame import Scores

    scores = Scores((finished[trial.folder], trial.variant) for trial in trials if trial.folder in finished)
    if as_json:
        rows = scores.rows()
        runs = [
            {"folder": str(trial.folder), "variant": trial.variant, **asdict(finished[trial.folder])}
            for trial in trials
            if trial.folder in finished
        ]
        lost = [{"folder": str(folder), "reason": reason} for folder, reason in failed.items()]
        print_json({"rows": rows, "runs": runs, "failed": lost})
    elif finished:
        results = list(finished.values())
        if len({result.dataset for result in results}) <= FEW and not any(trial.variant for trial in trials):
            show_results(results, as_json, list(finished))
        else:
            show_averages(scores)
