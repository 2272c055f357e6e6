"""``maotune run``: the experiments of the paper."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from maotune.cli.common import AsJson, Root, Settings, app, err
from maotune.cli.results import show_pictures, show_results


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="`maotune list experiments`.")],
    settings: Settings = None,
    suite: Annotated[str, typer.Option(help="A suite of data sets.")] = "icons-11",
    data: Annotated[str | None, typer.Option(help="Data sets instead of a suite: a,b or a b.")] = None,
    learners: Annotated[str | None, typer.Option("--learners", "--learner", help="Default: the experiment's.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", "--method", help="Default: the experiment's.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", "--seed", help="1,2,3 or 1 2 3.")] = "1,2,3",
    root: Root = None,
    clip: Annotated[str | None, typer.Option(help="iconclip, a folder, a hub id, a .pt file.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where trials are written; default: runs/EXPERIMENT.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time on this machine.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run an experiment of the paper: a trial for each data set, learner, method and seed. Run again, it goes on."""
    from maotune.protocols.experiments import EXPERIMENTS, plan_runs
    from maotune.recipe import choose, find_suite, parse_override
    from maotune.sweep.inference import measure
    from maotune.sweep.local import run_local
    from maotune.sweep.manifest import Sweep, Trial

    chosen = EXPERIMENTS[choose("experiment", experiment, EXPERIMENTS)]
    of_suite = find_suite(suite)
    given: dict[str, Any] = {"data.root": root, "clip.source": clip}
    said = dict(map(parse_override, settings or ())) | {key: value for key, value in given.items() if value is not None}
    planned = plan_runs(
        chosen,
        data.split(",") if data else chosen.sets(suite, of_suite.sets),
        learners=learners.split(",") if learners else (),
        methods=methods.split(",") if methods else (),
        seeds=[int(seed) for seed in seeds.split(",")],
        settings=said,
        defaults=of_suite.settings,
    )
    where = folder or Path("runs") / experiment
    if chosen.picture is not None:
        show_pictures((chosen.picture(one.recipe) for one in planned), where, as_json)
        return
    before = Sweep.read(where) if (where / "sweep.json").exists() else Sweep(where, ())
    trials = [Trial(where / one.recipe.slug, experiment, one.variant, one.recipe) for one in planned]
    before.extended(trials, shlex.join(["maotune", *sys.argv[1:]])).save()
    missing = [trial.folder for trial in trials if trial.result() is None]
    err.print(f"{len(trials)} trials in {where}, {len(missing)} of them to run", markup=False)
    done = 0

    def on_end(ended: Path) -> None:
        nonlocal done
        done += 1
        err.print(f"[{done}/{len(missing)}] {ended.name}", markup=False, highlight=False, soft_wrap=True)

    run_local(missing, jobs, on_end)
    if chosen.inference:
        measure(trial for trial in trials if trial.result() is not None)
    finished = [(trial.folder, result) for trial in trials if (result := trial.result()) is not None]
    if finished:
        show_results([result for _, result in finished], as_json, [one for one, _ in finished])
    if len(finished) < len(trials):
        err.print(f"{len(trials) - len(finished)} trials are not finished", markup=False)
        raise typer.Exit(1)
