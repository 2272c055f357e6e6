"""``maotune data``: show data sets, check them, prepare public ones, export them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from maotune.cli.common import AsJson, Root, app, out, print_json, progress
from maotune.printable import printable

data_app = typer.Typer(no_args_is_help=True, help="Look at data sets, check and prepare them, write them to a folder.")
app.add_typer(data_app, name="data")


@data_app.command()
def show(
    source: Annotated[str, typer.Argument(help="A data set.")], root: Root = None, as_json: AsJson = False
) -> None:
    """Count the classes and images of a data set."""
    from maotune.data.export import describe
    from maotune.data.sets.catalog import load_dataset

    results = describe(load_dataset(source, root))
    if as_json:
        print_json(asdict(results))
        return
    table = Table(title=f"{escape(printable(results.name))}: {len(results.classes)} classes", title_justify="left")
    for column in ("split", "images", "fewest a class", "most a class"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, size in results.splits.items():
        table.add_row(split, str(size.images), str(size.smallest), str(size.largest))
    out.print(table)
    out.print(", ".join(map(printable, results.classes)), markup=False, highlight=False)


@data_app.command()
def check(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Data sets, of which every image is read.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 where anything is left out or a copy, or a public set is not complete."
        ),
    ] = False,
    classes: Annotated[Path | None, typer.Option(help="A text file of class names.")] = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Read every image of a data set and show what is in it and what is wrong. Without SOURCE: what is below --root.

    For a data set: classes, images by split, what is left out and why, images that cannot be read, copies in two splits
    or under two labels, pictures that show nothing, names that a text model cannot read.

    For the public data sets of the paper in CoOp's layout: what is there, what is missing, where it belongs and where
    it comes from, and whether the counts are the original's. No image is read for that.
    """
    if not sources:
        _overview(root, strict, as_json)
        return
    from maotune.data.sets.catalog import load_dataset
    from maotune.data.sets.inspection import inspect_dataset

    results = []
    for dataset in [load_dataset(source, root, classes, announce=False) for source in sources]:
        with progress() as listen:
            from maotune.runs.events import Progress

            results.append(inspect_dataset(dataset, lambda done, total: listen(Progress("images", done, total))))
    if as_json:
        skipped = [item._asdict() for result in results for item in result.skipped]
        readable = sum(result.readable for result in results)
        print_json({"readable": readable, "skipped": skipped, "sets": [result.document() for result in results]})
    else:
        text = "\n".join(line for result in results for line in result.lines())
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    if strict and not all(result.faultless for result in results):
        raise typer.Exit(1)


def _overview(root: Path | None, strict: bool, as_json: bool) -> None:
    if root is None:
        raise typer.BadParameter(
            "give a data set to read its images, or --root FOLDER to look through the public data sets in it"
        )
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    from maotune.data.sets.check import check as check_set
    from maotune.data.sets.named import named_sets

    results = [check_set(name, root) for name in named_sets()]
    if as_json:
        counts = [
            {
                what: dataset and dataset._asdict()
                for what, dataset in (("expected", each.expected), ("found", each.found))
            }
            for each in results
        ]
        rows = [
            {**asdict(each), **counted, "advice": each.advice(root)}
            for each, counted in zip(results, counts, strict=True)
        ]
        print_json({"root": str(root), "sets": rows})
    else:
        table = Table(title=f"public data sets in {root}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        for column in ("data set", "state", "classes", "train", "val", "test"):
            table.add_column(column, justify="left" if column in ("data set", "state") else "right")
        for each in results:
            table.add_row(each.name, each.state, *(f"{count:,}" for count in each.found or ()))
        out.print(table)
        for each in results:
            if advice := each.advice(root):
                out.print(
                    "\n  ".join([f"{each.name}: {each.state}", *advice]), markup=False, highlight=False, soft_wrap=True
                )
    if strict and any(each.state != "complete" for each in results):
        raise typer.Exit(1)


@data_app.command()
def prepare(
    root: Annotated[Path, typer.Option(help="The folder of all public data sets.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Public data sets; default: all of them.")
    ] = None,
    archives: Annotated[
        Path | None, typer.Option(help="Where the archives are; default: in the data set's own folder or in --root.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make CoOp's layout of a public data set from the archives that its authors offer. Nothing is downloaded.

    `maotune data check --root FOLDER` says which archives these are and where to get them. What is there already is
    left alone. Exit code 1 where a data set that is named is still not complete.
    """
    from maotune.data.sets.named import named_sets
    from maotune.data.sets.prepare import prepare as make
    from maotune.recipe.schema import choose

    prepared = []
    for name in [choose("data set", name, named_sets()) for name in names or named_sets()]:
        with progress() as listen:
            from maotune.runs.events import Progress

            prepared.append(make(name, root, archives, lambda at, total: listen(Progress("unpacking", at, total))))
    if as_json:
        print_json({"root": str(root), "sets": [asdict(each) for each in prepared]})
    else:
        for each in prepared:
            if not names and not each.made:
                continue
            lines = [f"new in {each.folder}: {', '.join(each.made)}"] if each.made else []
            lines += [f"there already: {', '.join(each.present)}"] if each.present else []
            lines += map(str, each.missing)
            if each.missing:
                original = named_sets()[each.name]
                lines.append(f"get this from {original.page}" + (f"; {original.note}" if original.note else ""))
            out.print("\n  ".join([f"{each.name}:", *lines]), markup=False, highlight=False, soft_wrap=True)
        if not names and not any(each.made for each in prepared):
            out.print("nothing to do: `maotune data check --root FOLDER` says what is missing", highlight=False)
    if names and any(each.missing for each in prepared):
        raise typer.Exit(1)


@data_app.command()
def export(
    source: Annotated[str, typer.Argument(help="A data set.")],
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")],
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set as a plain folder of images, to look at it or to use it elsewhere."""
    from maotune.data.export import export as write
    from maotune.data.sets.catalog import load_dataset

    with progress() as listen:
        from maotune.runs.events import Progress

        count = write(load_dataset(source, root), folder, lambda done, total: listen(Progress("images", done, total)))
    if as_json:
        print_json({"folder": str(folder), "images": count})
    else:
        out.print(f"{count} images in {folder}")
