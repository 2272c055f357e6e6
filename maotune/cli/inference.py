"""Zero-shot CLIP, tuned prompts at work, lists of choices, the cache."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from maotune.cli.assessment import show_assessment
from maotune.cli.common import Activation, AsJson, ClipName, Root, Yes, app, err, name_clip, out, print_json, progress
from maotune.cli.results import show_results
from maotune.printable import printable

if TYPE_CHECKING:
    from maotune.api import Run
    from maotune.runs.zeroshot import ZeroShotScores


@app.command()
def zeroshot(
    data: Annotated[str | None, typer.Option(help="Data sets: a b or a,b; default: the whole suite.")] = None,
    suite: Annotated[str, typer.Option(help="A suite of data sets.")] = "icons-11",
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    templates: Annotated[str, typer.Option(help="dataset, ensemble, or a text with {} for the class.")] = "dataset",
    clip: ClipName = None,
    yes: Yes = False,
    activation: Activation = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Score zero-shot CLIP: on all classes of a data set, on its base half and on its new half."""
    from maotune.recipe import load_recipe
    from maotune.recipe.schema import choose
    from maotune.recipe.suites import find_suite
    from maotune.runs.build import build_clip
    from maotune.runs.zeroshot import score_zeroshot

    choose("split", split, ("train", "val", "test"))
    sources = data.split(",") if data else find_suite(suite)
    options = {"templates": templates, "clip.source": clip, "data.root": root, "clip.activation": activation}
    given = {key: value for key, value in options.items() if value is not None}
    recipes = [load_recipe(None, {**given, "data.source": source}) for source in sources]
    if named := name_clip(recipes, yes):
        recipes = [load_recipe(None, {**given, **named, "data.source": source}) for source in sources]
    clip = recipes[0].clip.source
    model = build_clip(recipes[0].clip)
    with progress() as listen:
        rows = [score_zeroshot(recipe, model, split, listen) for recipe in recipes]
    mean = score_mean(rows)
    if as_json:
        entries = [{**asdict(row), "h": row.h} for row in rows]
        print_json({"split": split, "templates": templates, "clip": clip, "rows": entries, "mean": mean})
        return
    title = f"zero-shot {clip}, {split} images: accuracy in %; by class: mean over all classes"
    table = Table(title=title, title_justify="left")
    for column in ("data set", "classes", "images", "all", "by class", "base", "new", "H", "chance"):
        table.add_column(column, justify="left" if column == "data set" else "right")
    for row in rows:
        scores = (row.all, row.mean_per_class, row.base, row.new, row.h, 100 / row.classes)
        table.add_row(row.dataset, str(row.classes), str(row.images), *(f"{score:.2f}" for score in scores))
    if len(rows) > 1:
        table.add_section()
        values = (mean[name] for name in ("all", "mean_per_class", "base", "new", "h"))
        table.add_row("mean", "", "", *(f"{value:.2f}" for value in values))
    out.print(table)


def score_mean(rows: "list[ZeroShotScores]") -> dict[str, float]:
    """Return means of the scores over data sets; ``h`` is the H of the means of base and new."""
    from maotune.train.evaluate import harmonic_mean

    names = ("all", "mean_per_class", "base", "new")
    means = {name: sum(getattr(row, name) for row in rows) / len(rows) for name in names}
    return {**means, "h": harmonic_mean(means["base"], means["new"])}


RunPath = Annotated[Path, typer.Argument(help="The folder of a run, or its prompts.safetensors.")]
ClipOf = Annotated[str | None, typer.Option(help="The CLIP that it was tuned on, if it is not where it was.")]
PromptsOf = Annotated[str, typer.Option(help="auto, a stage's, a mixture (0.8 plain + 0.2 parallel), or zeroshot.")]


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The folder of a run, or its prompts.safetensors.")],
    data: Annotated[str | None, typer.Option(help="A data set to score on; default: the run's own result.")] = None,
    prompts: PromptsOf = "auto",
    split: Annotated[
        str, typer.Option(help="test, val, train or all; auto: test where there is such a split, else all.")
    ] = "auto",
    classes: Annotated[Path | None, typer.Option(help="A text file of class names (own data).")] = None,
    root: Root = None,
    clip: ClipOf = None,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="A folder for predictions, classes, confusion and calibration as CSV, and figures."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score tuned prompts, on the data set of the run or on another one, over all of its classes.

    Without --data, --prompts, --split and --out, the scores that the run has recorded are shown.
    """
    from maotune.recipe import RecipeError

    run = runs[0]
    if len(runs) > 1:
        raise RecipeError(f"several runs were given, {', '.join(map(str, runs))}: name one of them")
    loaded = _load(run, clip)
    if data is None and prompts == "auto" and split == "auto" and to is None:
        show_results([loaded.result], as_json, [run])
        return
    source = data or loaded.recipe.data.source
    if data is None and source.startswith("hub:"):
        raise ValueError(f"the run was tuned on {source}; a run does not decide what is fetched: name it by --data")
    with progress() as listen:
        scored = loaded.score(source, root=root, classes=classes, prompts=prompts, split=split, callback=listen)
    if to is not None:
        from maotune.cli.assessment import write_assessment

        write_assessment(scored, to)
    show_assessment(scored, run, source, as_json)


@app.command()
def predict(
    run: RunPath,
    images: Annotated[list[str], typer.Argument(help="Image files, folders of them, or tables with a column path.")],
    classes: Annotated[str | None, typer.Option(help="Other class names: a text file, or a,b,c.")] = None,
    prompts: PromptsOf = "auto",
    top_k: Annotated[int, typer.Option(min=1, help="Classes per image.")] = 1,
    precision: Annotated[
        float | None,
        typer.Option(help="Answer `unknown` below the confidence at which this share of the answers is right: 0.95."),
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="Answer `unknown` for images that resemble none of the classes.")
    ] = False,
    transduce: Annotated[
        str | None,
        typer.Option(
            metavar="LABELER",
            help="Look at all images at once: stata (for any folder), transclip, zlap, sinkhorn or adjusted.",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write a .csv, .jsonl or .parquet file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    clip: ClipOf = None,
    as_json: AsJson = False,
) -> None:
    """Classify images with tuned prompts, among the classes tuned on or any others."""
    if to is not None:
        from maotune.runs.answers import check_output

        check_output(to)
    loaded = _load(run, clip)
    with progress() as listen:
        predictions = loaded.predict(
            images,
            classes,
            top_k=top_k,
            prompts=prompts,
            precision=precision,
            reject=reject,
            transduce=transduce,
            strict=strict,
            callback=listen,
        )
    if to is not None:
        predictions.write(to)
    if as_json:
        print_json(
            {
                "prompts": predictions.prompts,
                "images": [
                    {"image": name, "label": label, "classes": [{"class": c, "probability": p} for c, p in best]}
                    for (name, best), label in zip(predictions, predictions.labels, strict=True)
                ],
                "left_to_a_person": predictions.note or None,
                "changed": predictions.changed,
                "skipped": [{"image": image.name, "reason": image.reason} for image in predictions.skipped],
            }
        )
        return
    for (name, best), answered in zip(predictions if to is None else (), predictions.answered.tolist(), strict=False):
        cells = [printable(name), *(() if answered else ("unknown",))]
        cells += (f"{printable(of)} {probability:.3f}" for of, probability in best)
        typer.echo("\t".join(cells))  # not by rich, which turns tabs into spaces
    if to is not None:
        err.print(f"{len(predictions)} images: {to}", markup=False, soft_wrap=True)
    if predictions.note:
        err.print(predictions.note, markup=False, soft_wrap=True)
    if predictions.changed is not None:
        err.print(
            f"{transduce} changed {predictions.changed} of {len(predictions)} answers", markup=False, soft_wrap=True
        )
    for image in predictions.skipped:
        err.print(f"skipped: {image.reason}", markup=False)


def _load(path: Path, clip: str | None) -> "Run":
    import maotune

    return maotune.load(path, clip=clip)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="learners, methods, protocols, experiments, suites, data, recipes or settings.")
    ],
    as_json: AsJson = False,
) -> None:
    """List what there is to choose from."""
    from maotune.experiments.catalog import list_experiments
    from maotune.recipe.describe import DEFAULTS, listings
    from maotune.recipe.schema import choose

    lists = {**listings(), "experiments": list_experiments}
    entries = lists[choose("list", what, lists)]()
    if as_json:
        print_json(entries)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for name, summary in entries.items():
        table.add_row(name, escape(summary))
    if what == "settings":
        err.print(DEFAULTS, markup=False, highlight=False)
    out.print(table)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all kept features.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show, or clear, the feature bank on disk."""
    from maotune.data.cache import clear_cache, default_folder, measure_cache

    folder = default_folder()
    size = clear_cache(folder) if clear else measure_cache(folder)
    if as_json:
        print_json({"folder": str(folder), "cleared": clear, "shards": size.shards, "bytes": size.bytes})
    else:
        out.print(f"{'deleted from' if clear else 'in'} {folder}: {size.shards} files, {size.bytes / 1e6:.1f} MB")
