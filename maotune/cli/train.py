"""``maotune train``: tune prompts and score them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maotune.cli.common import Activation, AsJson, ClipName, Root, Settings, Yes, app, each, err, name_clip, progress
from maotune.cli.results import show_results

if TYPE_CHECKING:
    from maotune.runs.folder import RunFolder
    from maotune.runs.result import Result


@app.command()
def train(
    settings: Settings = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", help="A YAML file, or a name of `maotune list recipes`."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A shipped set, a folder of images, a CSV/JSONL/split file, hub:PATH_OR_ID.")
    ] = None,
    learner: Annotated[
        str | None, typer.Option("--learners", "--learner", help="`maotune list learners`; several: a b or a,b.")
    ] = None,
    mao: Annotated[bool, typer.Option("--mao", help="Short for --methods mao.")] = False,
    method: Annotated[
        str | None, typer.Option("--methods", "--method", help="`maotune list methods`; several: a b or a,b.")
    ] = None,
    dept: Annotated[bool, typer.Option("--dept", help="Wrap the learner in DePT.")] = False,
    seeds: Annotated[str | None, typer.Option("--seeds", "--seed", help="1 2 3 or 1,2,3.")] = None,
    shots: Annotated[int | None, typer.Option(help="Labelled images per class.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all; MAO splits them between its stages.")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Pool of unlabelled images (own data): a folder, tar shards, or hub:PATH_OR_ID.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="More labels, image,label: what `review` and `suggest` write (own data).")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="A text file of class names (own data).")] = None,
    root: Root = None,
    clip: ClipName = None,
    yes: Yes = False,
    activation: Activation = None,
    folder: Annotated[Path, typer.Option(help="Folder of runs, in which each has a folder of its own.")] = Path("runs"),
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume unfinished runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tune prompts and score them: one run per learner, method and seed, and a table at the end."""
    from maotune.recipe import RecipeError, load_recipe
    from maotune.recipe.load import parse_override
    from maotune.runs.build import build_clip
    from maotune.runs.fingerprint import DataComparison
    from maotune.runs.folder import choose_run_folder
    from maotune.runs.tune import tune_recipe

    if mao and method:
        raise RecipeError("--mao is short for --methods mao: give one of them")
    options: dict[str, Any] = {
        "data.source": data,
        "data.shots": shots,
        "data.unlabelled": unlabelled,
        "data.labels": labels,
        "data.classes": classes,
        "data.root": root,
        "data.strict": strict or None,
        "clip.source": clip,
        "clip.activation": activation,
        "epochs": epochs,
        "method": "mao" if mao else None,
        "dept": {} if dept else None,
    }
    overrides = dict(map(parse_override, settings or ())) | {k: v for k, v in options.items() if v is not None}
    variants = [
        {**with_learner, **with_method, **with_seed}
        for with_learner in each("learner.name", learner)
        for with_method in each("method", method)
        for with_seed in each("seed", seeds)
    ]
    recipes = [load_recipe(recipe, {**overrides, **change}) for change in variants]
    if named := name_clip(recipes, yes):
        recipes = [load_recipe(recipe, {**overrides, **named, **change}) for change in variants]
    comparison = DataComparison()
    chosen = [choose_run_folder(folder, each_recipe, comparison) for each_recipe in recipes]
    for run in chosen:
        _check_unfinished(run, resume)
    model = None
    results: list[Result] = []
    for number, (planned, run) in enumerate(zip(recipes, chosen, strict=True), 1):
        title = f"[{number}/{len(recipes)}] {planned.title} {planned.method}, seed {planned.seed}"
        if run.result is not None:
            err.print(f"{title}: finished before, in {run.path}", markup=False, soft_wrap=True)
            results.append(run.result)
            continue
        if run.before is not None:
            changes = "; ".join(run.differences)
            err.print(f"{title}: the data have changed since {run.before}: {changes}", markup=False, soft_wrap=True)
        model = model or build_clip(planned.clip)
        err.print(f"{title} -> {run.path}", markup=False, soft_wrap=True)
        with progress() as callback:
            results.append(tune_recipe(planned, run.path, resume=resume, clip=model, callback=callback).result)
    changed = [
        {"folder": str(run.path), "before": str(run.before), "differences": run.differences}
        for run in chosen
        if run.before is not None
    ]
    show_results(results, as_json, [run.path for run in chosen], {"data_changed": changed} if changed else {})


def _check_unfinished(run: "RunFolder", resume: bool) -> None:
    """Refuse to begin a run that is unfinished, or to resume one on other data.

    Raises:
        CheckpointError: see there.
    """
    from maotune.runs.result import is_finished
    from maotune.train.session import CHECKPOINT, CheckpointError

    if run.result is None and not resume and (run.path / f"{CHECKPOINT}.safetensors").exists():
        raise CheckpointError(
            f"{run.path} holds an unfinished run of this recipe: add --resume to finish it, or delete the folder"
        )
    if resume and run.before is not None and not is_finished(run.before):
        raise CheckpointError(
            f"{run.before} holds an unfinished run of this recipe on other data: {'; '.join(run.differences)}. It "
            "cannot be resumed: leave out --resume to tune on what is there now, in a folder of its own"
        )
