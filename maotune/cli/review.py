"""``maotune review`` and ``maotune suggest``: what a person should look at in a pool of unlabelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maotune.cli.common import AsJson, ClipName, Yes, app, err, name_clip, out, print_json, progress
from maotune.printable import printable, printable_cell

if TYPE_CHECKING:
    import numpy as np

    from maotune.data.sets.dataset import Sample


@app.command()
def review(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    pool: Annotated[
        Path | None, typer.Argument(help="Unlabelled images; default: those that the run was tuned with.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="The page; default: review.html in the run's folder.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Images per class, the least sure ones.")] = 24,
    clip: Annotated[str | None, typer.Option(help="The CLIP that it was tuned on, if it is not where it was.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a page of the pool, a row a class, on which labels are checked; it saves a table for `train --labels`."""
    import maotune
    from maotune.review.page import write_review
    from maotune.review.pool import label_pool

    loaded = maotune.load(run, clip=clip)
    folder = run if run.is_dir() else run.parent
    with progress() as listen:
        images = label_pool(loaded, folder, pool, listen)
    page = to or folder / "review.html"
    title = f"Pool of {printable(loaded.result.dataset)}, {loaded.result.learner} {loaded.result.method}"
    write_review(images, loaded.known_classes, title, page, most)
    suspects = sum(image.suspect for image in images)
    if as_json:
        rows = [
            {
                "image": image.sample.image.name,
                "label": image.label,
                "confidence": image.confidence,
                "predicted": image.predicted,
                "suspect": image.suspect,
            }
            for image in images
        ]
        print_json({"page": str(page), "images": rows})
        return
    out.print(f"{len(images)} images, {suspects} of them perhaps of no class: {page}", markup=False, soft_wrap=True)


@app.command()
def suggest(
    pool: Annotated[Path, typer.Argument(help="Unlabelled images: a folder, tar shards, a pattern.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Images to label.")] = 20,
    run: Annotated[Path | None, typer.Option(help="The folder of a run, which says what it is unsure of.")] = None,
    classes: Annotated[str | None, typer.Option(help="Without a run: class names, a text file or a,b,c.")] = None,
    clip: ClipName = None,
    yes: Yes = False,
    to: Annotated[Path, typer.Option("--out", help="A folder for list and contact sheet.")] = Path("suggestions"),
    as_json: AsJson = False,
) -> None:
    """Choose the images of a pool that are worth a label: uncertain ones that differ from one another.

    Fill in the labels in list.csv and give it to `train --labels`.
    """
    import pandas as pd

    from maotune.files import write_atomic
    from maotune.review.page import write_sheet
    from maotune.review.suggest import choose_images

    samples, features, probabilities, names = _look(pool, run, classes, clip, yes)
    chosen = choose_images(features, probabilities, count)
    table = pd.DataFrame({"image": [samples[number].image.name for number in chosen], "label": ""})
    if probabilities is not None:
        table["guess"] = [names[int(probabilities[number].argmax())] for number in chosen]
        table["confidence"] = [round(float(probabilities[number].max()), 4) for number in chosen]
    to.mkdir(parents=True, exist_ok=True)
    write_atomic(to / "list.csv", table.map(printable_cell).to_csv(index=False))
    guesses = table["guess"] if "guess" in table else [""] * len(table)
    captions = [f"{rank}. {guess}".strip() for rank, guess in enumerate(guesses, 1)]
    write_sheet([samples[number] for number in chosen], captions, to / "sheet.png")
    if as_json:
        print_json({"list": str(to / "list.csv"), "sheet": str(to / "sheet.png"), "images": table.to_dict("records")})
        return
    for name in table["image"]:
        typer.echo(printable(name))
    err.print(
        f"{len(table)} of {len(samples)} images: {to / 'list.csv'}, {to / 'sheet.png'}", markup=False, soft_wrap=True
    )


def _look(
    pool: Path, run: Path | None, classes: str | None, clip: str | None, yes: bool
) -> "tuple[list[Sample], np.ndarray, np.ndarray | None, tuple[str, ...]]":
    """Return the readable images of a pool, their features, and the probabilities of classes, where any are known."""
    import maotune
    from maotune.data.images.scan import scan_images
    from maotune.data.sets.catalog import load_unlabelled
    from maotune.recipe import RecipeError, load_recipe
    from maotune.runs.build import build_clip
    from maotune.runs.given import class_names_of
    from maotune.runs.zeroshot import embed_zeroshot

    if run is not None and classes is not None:
        raise RecipeError("--run knows its classes: leave out --classes, or name no run")
    readable = scan_images(load_unlabelled(pool).unlabelled)
    for image in readable.skipped:
        err.print(f"skipped: {image.reason}", markup=False)
    if not readable.kept:
        raise ValueError(f"{pool} has no image that can be read")
    samples = [*readable.kept]
    with progress() as listen:
        if run is not None:
            loaded = maotune.load(run, clip=clip)
            refs = [sample.image for sample in samples]
            predictions = loaded.predict(refs, bank=True, callback=listen)
            return samples, loaded.embed(refs, bank=True), predictions.probabilities.numpy(), loaded.known_classes
        given = {"data.source": str(pool)} | ({"clip.source": clip} if clip else {})
        recipe = load_recipe(None, given)
        recipe = load_recipe(None, {**given, **name_clip([recipe], yes)})
        names = class_names_of(classes) if classes is not None else ()
        return samples, *embed_zeroshot(recipe, build_clip(recipe.clip), samples, names, listen), names
