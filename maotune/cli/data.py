"""``maotune data``: show data sets, check them, prepare public ones, export them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from maotune.cli.common import AsJson, Root, app, out, print_json, progress

data_app = typer.Typer(no_args_is_help=True, help="Look at data sets, check and prepare them, write them to a folder.")
app.add_typer(data_app, name="data")


@data_app.command()
def show(
    source: Annotated[str, typer.Argument(help="A data set.")], root: Root = None, as_json: AsJson = False
) -> None:
    """Count the classes and images of a data set."""
    from maotune.data.export import describe
    from maotune.data.sets.catalog import load_dataset

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
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Data sets, of which every image is read.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where an image cannot be read, or a data set is not complete.")
    ] = False,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Read every image of a data set and list those that cannot be used. Without SOURCE: what is below --root.

    The public data sets of the paper in CoOp's layout: what is there, what is missing, where it belongs and where it
    comes from, and whether the counts are the original's. No image is read for that.
    """
    if not sources:
        _overview(root, strict, as_json)
        return
    from maotune.data.images.scan import scan_images
    from maotune.data.sets.catalog import load_dataset

    datasets = [load_dataset(source, root) for source in sources]
    with progress() as listen:
        from maotune.runs.events import Progress

        found = scan_images(
            [sample for one in datasets for sample in (*one.train, *one.val, *one.test, *one.unlabelled)],
            progress=lambda done, total: listen(Progress("images", done, total)),
        )
    if as_json:
        print_json({"readable": len(found.kept), "skipped": [image._asdict() for image in found.skipped]})
    else:
        out.print(found.summary(most=100), markup=False, highlight=False)
    if strict and found.skipped:
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

    found = [check_set(name, root) for name in named_sets()]
    if as_json:
        counts = [
            {what: one and one._asdict() for what, one in (("expected", of.expected), ("found", of.found))}
            for of in found
        ]
        rows = [{**asdict(of), **counted, "advice": of.advice(root)} for of, counted in zip(found, counts, strict=True)]
        print_json({"root": str(root), "sets": rows})
    else:
        table = Table(title=f"public data sets in {root}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        for column in ("data set", "state", "classes", "train", "val", "test"):
            table.add_column(column, justify="left" if column in ("data set", "state") else "right")
        for of in found:
            table.add_row(of.name, of.state, *(f"{count:,}" for count in of.found or ()))
        out.print(table)
        for of in found:
            if advice := of.advice(root):
                out.print(
                    "\n  ".join([f"{of.name}: {of.state}", *advice]), markup=False, highlight=False, soft_wrap=True
                )
    if strict and any(of.state != "complete" for of in found):
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

    done = []
    for name in [choose("data set", name, named_sets()) for name in names or named_sets()]:
        with progress() as listen:
            from maotune.runs.events import Progress

            done.append(make(name, root, archives, lambda at, total: listen(Progress("unpacking", at, total))))
    if as_json:
        print_json({"root": str(root), "sets": [asdict(of) for of in done]})
    else:
        for of in done:
            if not names and not of.made:
                continue
            said = [f"new in {of.folder}: {', '.join(of.made)}"] if of.made else []
            said += [f"there already: {', '.join(of.present)}"] if of.present else []
            said += map(str, of.missing)
            if of.missing:
                original = named_sets()[of.name]
                said.append(f"get this from {original.page}" + (f"; {original.note}" if original.note else ""))
            out.print("\n  ".join([f"{of.name}:", *said]), markup=False, highlight=False, soft_wrap=True)
        if not names and not any(of.made for of in done):
            out.print("nothing to do: `maotune data check --root FOLDER` says what is missing", highlight=False)
    if names and any(of.missing for of in done):
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
