"""``maotune report``: the report on a folder of runs."""

from pathlib import Path
from typing import Annotated

import typer

from maotune.cli.common import AsJson, app, err, out, print_json


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="A folder of `maotune run` or `maotune train`, or a folder of such folders.")
    ],
    formats: Annotated[
        str | None, typer.Option("--format", "--formats", help="html,markdown,latex,csv,text. Default: all.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of the files; default: FOLDER/report, or FOLDER/claims.")
    ] = None,
    claims: Annotated[
        bool, typer.Option("--claims", help="Only what held of the paper's claims and what did not, on one page.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report whether MAO helped: tables beside published numbers, figures, classes; on the terminal and as a page."""
    from maotune.recipe.schema import choose
    from maotune.report.batches import batch_sections
    from maotune.report.build import build_report
    from maotune.report.claims import claims_report
    from maotune.report.compare import comparison_records
    from maotune.report.frame import has_sweeps, read_experiments, read_sweeps
    from maotune.report.render import FORMATS, terminal, write_report

    wanted = [choose("format", name, (*FORMATS, "text")) for name in formats.split(",")] if formats else [*FORMATS]
    batches = [] if claims else batch_sections(folder)
    sweeps = [] if batches and not has_sweeps(folder) else read_sweeps(folder)
    experiments = read_experiments(*sweeps)
    commands = list(dict.fromkeys(command for sweep in sweeps for command in sweep.commands))
    title = folder.resolve().name
    content = (
        claims_report(experiments, commands, title) if claims else build_report(experiments, commands, title, batches)
    )
    to = to or folder / ("claims" if claims else "report")
    paths = write_report(content, experiments, to, [name for name in wanted if name != "text"])
    if as_json:
        print_json(
            {
                "answer": content.answer,
                "evidence": content.evidence,
                "warnings": content.warnings,
                "comparisons": [record for runs in experiments for record in comparison_records(runs)],
                "rows": [{"experiment": runs.name, **row} for runs in experiments for row in runs.scores.rows()],
                "files": list(map(str, paths)),
            }
        )
        return
    out.print(terminal(content))
    for path in paths:
        err.print(str(path), markup=False, highlight=False, soft_wrap=True)
