"""``maotune train``: tune prompts and score them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maotune.cli.common import AsJson, Root, Settings, app, each, err, progress
from maotune.cli.results import show_results

if TYPE_CHECKING:
    pass


@app.command()
def train(
    settings: Settings = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="A YAML recipe; `maotune list recipes`.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A shipped set, a folder of images, a CSV/JSONL/split file, hub:PATH_OR_ID.")
    ] = None,
    learner: Annotated[
        str | None, typer.Option("--learner", "--learners", help="`maotune list learners`. Several: a,b or a b.")
    ] = None,
    mao: Annotated[bool, typer.Option("--mao", help="Short for --method mao.")] = False,
    method: Annotated[
        str | None, typer.Option("--method", "--methods", help="`maotune list methods`. Several: a,b or a b.")
    ] = None,
    dept: Annotated[bool, typer.Option("--dept", help="Hold the learner in DePT.")] = False,
    seeds: Annotated[str | None, typer.Option("--seeds", "--seed", help="1,2,3 or 1 2 3.")] = None,
    shots: Annotated[int | None, typer.Option(help="Labelled images a class.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all; MAO splits them between its stages.")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Unlabelled images (own data): a folder, tar shards, or hub:PATH_OR_ID.")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="A text file of class names (own data).")] = None,
    root: Root = None,
    clip: Annotated[str | None, typer.Option(help="iconclip, a folder, a hub id, a .pt file.")] = None,
    folder: Annotated[Path, typer.Option(help="Where runs are written, a folder each.")] = Path("runs"),
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with unfinished runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tune prompts and score them: one run for each learner, method and seed, and a table at the end."""
    from maotune.recipe import RecipeError, load_recipe
    from maotune.recipe.load import parse_override
    from maotune.runs.build import build_clip
    from maotune.runs.folder import find_run_folder, reusable_result
    from maotune.runs.result import Result
    from maotune.runs.tune import tune_recipe
    from maotune.train.session import CHECKPOINT, CheckpointError

    if mao and method:
        raise RecipeError("--mao is short for --method mao: give one of them")
    given: dict[str, Any] = {
        "data.source": data,
        "data.shots": shots,
        "data.unlabelled": unlabelled,
        "data.classes": classes,
        "data.root": root,
        "data.strict": strict or None,
        "clip.source": clip,
        "epochs": epochs,
        "method": "mao" if mao else None,
        "dept": {} if dept else None,
    }
    said = dict(map(parse_override, settings or ())) | {k: v for k, v in given.items() if v is not None}
    recipes = [
        load_recipe(recipe, {**said, **named, **chosen, **seeded})
        for named in each("learner.name", learner)
        for chosen in each("method", method)
        for seeded in each("seed", seeds)
    ]
    folders = [find_run_folder(folder, one) for one in recipes]
    finished = [reusable_result(where, one) for where, one in zip(folders, recipes, strict=True)]
    for where, result in zip(folders, finished, strict=True):
        if result is None and not resume and (where / f"{CHECKPOINT}.safetensors").exists():
            raise CheckpointError(
                f"{where} holds an unfinished run of this recipe: add --resume to go on with it, or delete the folder"
            )
    model = None
    results: list[Result] = []
    for number, (one, where, before) in enumerate(zip(recipes, folders, finished, strict=True), 1):
        title = f"[{number}/{len(recipes)}] {one.title} {one.method}, seed {one.seed}"
        if before is not None:
            err.print(f"{title}: finished before, in {where}", markup=False, soft_wrap=True)
            results.append(before)
            continue
        model = model or build_clip(one.clip)
        err.print(f"{title} -> {where}", markup=False, soft_wrap=True)
        with progress() as listen:
            results.append(tune_recipe(one, where, resume=resume, clip=model, callback=listen).result)
    show_results(results, as_json, folders)
