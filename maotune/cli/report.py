"""``maotune report``: what a folder of runs says."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from maotune.cli.common import AsJson, app, err, out, print_json


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder of `maotune run` or `maotune train`.")],
    formats: Annotated[
        str | None, typer.Option("--format", "--formats", help="html,markdown,latex,csv,text. Default: all.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Where the files go; default: FOLDER/report.")] = None,
    as_json: AsJson = False,
) -> None:
    """Did MAO help? Tables beside the published numbers, figures, classes: on the terminal, and one page to keep."""
    from maotune.recipe.schema import choose
    from maotune.report.build import build, comparisons
    from maotune.report.study import read_studies
    from maotune.report.text import terminal
    from maotune.report.write import FORMATS, write
    from maotune.sweep.manifest import Sweep

    wanted = [choose("format", one, (*FORMATS, "text")) for one in formats.split(",")] if formats else [*FORMATS]
    sweep = Sweep.read(folder)
    studies = read_studies(sweep)
    made = build(studies, sweep.commands, folder.resolve().name)
    written = write(made, studies, to or folder / "report", [one for one in wanted if one != "text"])
    if as_json:
        print_json(
            {
                "answer": made.answer,
                "evidence": made.evidence,
                "warnings": made.warnings,
                "comparisons": comparisons(studies),
                "rows": [{"experiment": study.name, **asdict(row)} for study in studies for row in study.rows],
                "files": list(map(str, written)),
            }
        )
        return
    out.print(terminal(made))
    for path in written:
        err.print(str(path), markup=False, highlight=False, soft_wrap=True)
