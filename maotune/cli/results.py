"""Results of runs on the terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from maotune.cli.common import err, out, print_json
from maotune.printable import printable

if TYPE_CHECKING:
    from maotune.experiments.first_batches import BatchFigure
    from maotune.recipe import Recipe
    from maotune.runs.comparison import Comparison
    from maotune.runs.result import Result


def show_results(
    results: "list[Result]", as_json: bool, folders: list[Path], notes: Mapping[str, Any] | None = None
) -> None:
    """Print a table per data set, and a sentence on what MAO changed; or everything as JSON, with ``notes``."""
    from maotune.mao.methods import ZEROSHOT
    from maotune.recipe.schema import BEST
    from maotune.report.frame import Scores
    from maotune.report.sentences import verdicts
    from maotune.runs.pool_effect import pool_in_words

    scores = Scores((result, "") for result in results)
    rows = scores.rows()
    if as_json:
        runs = [{"folder": str(path), **asdict(result)} for path, result in zip(folders, results, strict=True)]
        print_json({"rows": rows, "runs": runs, **(notes or {})})
        return
    for dataset in scores.datasets:
        rows_of_set = [row for row in rows if row["dataset"] == dataset]
        tests = list(rows_of_set[0]["scores"])
        title = f"{escape(printable(dataset))}: accuracy in %, {_seeds(rows_of_set[-1]['seeds'])}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)  # fits 80 columns
        for column in ("method", *tests, "updates", "seconds"):
            justify: Literal["left", "right"] = "left" if column == "method" else "right"
            table.add_column("H" if column == "h" else column, justify=justify, no_wrap=True)
        for row in rows_of_set:
            cost = [f"{row['updates']:.0f}", f"{row['seconds']:.1f}"] if row["updates"] else ["", ""]
            spreads = scores.spreads[(row["learner"], row["method"], row["variant"]), dataset]
            name = f"{row['learner'] or 'CLIP'} {row['method']}"
            table.add_row(name, *(str(spreads[test]) for test in tests), *cost)
        out.print(table)
    for result in results:
        if result.comparison is not None:
            _show_comparison(result.comparison)
    if skipped := max(len(result.skipped) for result in results):
        err.print(f"{skipped} files or folders were left out: result.json and --json list them", markup=False)
    for result in results:
        if result.method not in (ZEROSHOT, BEST) and {*result.scored_with.values()} == {ZEROSHOT}:
            out.print(
                f"{result.dataset}, {result.learner} {result.method}, seed {result.seed}: no tuned prompts are better "
                "than zero-shot CLIP on images that were held out, so this run predicts with zero-shot CLIP.",
                markup=False,
                highlight=False,
            )
        if said := pool_in_words(result):
            name = printable(f"{result.dataset}, {result.learner} {result.method}, seed {result.seed}")
            out.print(f"{name}: {said}", markup=False, highlight=False)
    _show_means_over_classes(results)
    for sentence in verdicts(scores):
        out.print(sentence, markup=False, highlight=False)
    for sentence in dict.fromkeys(_recipe_in_words(result) for result in results if result.protocol != "adapt"):
        out.print(sentence, markup=False, highlight=False)


def _show_comparison(comparison: "Comparison") -> None:
    """Print the candidates, best first, those that were not tried last, and what is expected of the choice."""
    on = f"{comparison.folds} folds of" if comparison.folds else "the"
    kind = "labelled" if comparison.folds else "validation"
    table = Table(
        title=f"Compared on {on} {comparison.images} {kind} images",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("candidate")
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for row in sorted(comparison.candidates, key=lambda row: (row["accuracy"] is None, -(row["accuracy"] or 0))):
        shown = f"{row['accuracy']:.1f}" if row["accuracy"] is not None else ""
        name = f"{row['name']}: {row['note']}" if row["note"] else row["name"]
        table.add_row(escape(printable(name)), shown, f"{row['seconds']:.1f}")
    out.print(table)
    for sentence in comparison.sentences():
        out.print(sentence, markup=False, highlight=False)


def _show_means_over_classes(results: "Sequence[Result]") -> None:
    """Print the means over the classes, one line per method with means over its seeds, where they are not the top-1."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(f"{result.dataset}, {result.learner} {result.method}", []).append(result)
    for title, same in groups.items():
        differing = [name for name, mean in same[0].mean_per_class.items() if round(mean - same[0].scores[name], 2)]
        if differing:
            values = (f"{name} {fmean(each.mean_per_class[name] for each in same):.2f}" for name in differing)
            out.print(printable(f"{title}: mean over the classes: {', '.join(values)}"), markup=False, highlight=False)


def write_figures(
    make: "Callable[[Recipe], BatchFigure]", recipes: "Sequence[Recipe]", folder: Path, dry_run: bool, as_json: bool
) -> None:
    """Write the data of a figure per recipe into a folder; print a sentence on each, or the data as JSON."""
    documents: list[dict[str, Any]] = []
    for recipe in recipes:
        if dry_run:
            documents.append({"source": recipe.data.source, "seed": recipe.seed})
            continue
        picture = make(recipe)
        file = str(picture.save(folder))
        documents.append({"files": [file], **picture.document()})
        if not as_json:
            out.print(str(picture), markup=False, highlight=False, soft_wrap=True)
            err.print(file, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json({"pictures": documents})
    elif dry_run:
        out.print(f"the data of {len(documents)} figures, as JSON in {folder}", markup=False, soft_wrap=True)
    else:
        out.print(f"maotune report {folder} draws them", markup=False, highlight=False, soft_wrap=True)


def _recipe_in_words(result: "Result") -> str:
    """Say which recipe was run; departures are computed, as results of older versions have recorded none."""
    from maotune.recipe import Recipe
    from maotune.recipe.paper import departures, in_words

    recipe = Recipe.from_record(result.recipe)
    return in_words([recipe.name], departures(recipe))


def _seeds(seeds: list[int]) -> str:
    return f"mean ± std over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
