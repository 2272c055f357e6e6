"""``maotune data``: look at data sets, check them, write them to a folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from maotune.cli.common import AsJson, Root, app, out, print_json, progress

data_app = typer.Typer(no_args_is_help=True, help="Look at data sets, check them, write them to a folder.")
app.add_typer(data_app, name="data")


@data_app.command()
def show(
    source: Annotated[str, typer.Argument(help="A data set.")], root: Root = None, as_json: AsJson = False
) -> None:
    """Count the classes and images of a data set."""
    from maotune.data.catalog import load_dataset
    from maotune.data.export import describe

    found = describe(load_dataset(source, root))
    if as_json:
        print_json(asdict(found))
        return
    table = Table(title=f"{found.name}: {len(found.classes)} classes", title_justify="left")
    for column in ("split", "images", "fewest a class", "most a class"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, size in found.splits.items():
        table.add_row(split, str(size.images), str(size.smallest), str(size.largest))
    out.print(table)
    out.print(", ".join(found.classes), markup=False, highlight=False)


@data_app.command()
def check(
    source: Annotated[str, typer.Argument(help="A data set.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where an image cannot be read.")] = False,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Read every image of a data set and list those that cannot be used."""
    from maotune.data.catalog import load_dataset
    from maotune.data.images import scan

    dataset = load_dataset(source, root)
    with progress() as listen:
        from maotune.protocols.run import Progress

        found = scan(
            [*dataset.train, *dataset.val, *dataset.test, *dataset.unlabelled],
            progress=lambda done, total: listen(Progress("images", done, total)),
        )
    if as_json:
        print_json({"readable": len(found.kept), "skipped": [image._asdict() for image in found.skipped]})
    else:
        out.print(found.summary(most=100), markup=False, highlight=False)
    if strict and found.skipped:
        raise typer.Exit(1)


@data_app.command()
def export(
    source: Annotated[str, typer.Argument(help="A data set.")],
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")],
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set as a plain folder of images, to look at it or to use it elsewhere."""
    from maotune.data.catalog import load_dataset
    from maotune.data.export import export as write

    with progress() as listen:
        from maotune.protocols.run import Progress

        count = write(load_dataset(source, root), folder, lambda done, total: listen(Progress("images", done, total)))
    if as_json:
        print_json({"folder": str(folder), "images": count})
    else:
        out.print(f"{count} images in {folder}")
