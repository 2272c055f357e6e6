"""What ``maotune evaluate`` shows and writes of predictions for labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from maotune.cli.common import err, out, print_json
from maotune.printable import printable, printable_cell

if TYPE_CHECKING:
    from maotune.runs.answers import Assessment

FEW = 30
"""Largest number of classes that are listed on the terminal: those with the lowest accuracies."""


def show_assessment(scored: "Assessment", run: Path, source: str, as_json: bool) -> None:
    """Print accuracy, calibration and a table of the classes; or everything as JSON."""
    predictions, classes = scored.predictions, scored.per_class
    if as_json:
        print_json({"run": str(run), "data": source, **_document(scored)})
        return
    out.print(
        f"{source}, {scored.split}: {scored.accuracy:.2f} % of {len(predictions)} images with prompts "
        f"{predictions.prompts}; mean over the classes {scored.mean_per_class:.2f} %; expected calibration error "
        f"{scored.ece:.2f} %",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for column in ("class", "images", "right in %", "most often taken for"):
        table.add_column(column, justify="right" if column in ("images", "right in %") else "left")
    shown = classes[classes["images"] > 0].sort_values("accuracy", kind="stable")
    for name, row in shown.head(FEW).iterrows():
        mistake = f"{escape(printable(row['taken_for']))} ({row['wrong']})" if row["wrong"] else ""
        table.add_row(escape(printable(str(name))), str(row["images"]), f"{row['accuracy']:.1f}", mistake)
    out.print(table)
    if len(shown) > FEW:
        out.print(f"the {FEW} classes with the lowest accuracies of {len(shown)}; --json and --out have all")
    for image in predictions.skipped:
        err.print(f"skipped: {image.reason}", markup=False)


def _document(scored: "Assessment") -> dict[str, Any]:
    def rows(table: Any) -> Any:
        return table.astype(object).where(table.notna(), None).to_dict(orient="records")

    return {
        "split": scored.split,
        "prompts": scored.predictions.prompts,
        "images": len(scored.predictions),
        "accuracy": scored.accuracy,
        "mean_per_class": scored.mean_per_class,
        "ece": scored.ece,
        "classes": rows(scored.per_class.rename_axis("class").reset_index()),
        "confusion": scored.confusion.to_numpy().tolist(),
        "reliability": rows(scored.reliability),
        "risk_coverage": rows(scored.risk_coverage),
        "skipped": [{"image": image.name, "reason": image.reason} for image in scored.predictions.skipped],
    }


def write_assessment(scored: "Assessment", folder: Path) -> None:
    """Write the tables as CSV, and figures of reliability and of risk against coverage, into a folder."""
    from matplotlib.figure import Figure

    from maotune.files import open_atomic, write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "predictions": scored.to_frame(),
        "classes": scored.per_class.rename_axis("class").reset_index(),
        "confusion": scored.confusion.rename_axis("class").rename(columns=printable).reset_index(),
        "reliability": scored.reliability,
        "risk_coverage": scored.risk_coverage,
    }
    for name, table in tables.items():
        write_atomic(folder / f"{name}.csv", table.map(printable_cell).to_csv(index=False))
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins, risks = scored.reliability, scored.risk_coverage
    left.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    left.plot(bins["confidence"], bins["accuracy"], marker="o", markersize=4)
    left.set(xlabel="confidence", ylabel="accuracy", title=f"reliability, ECE {scored.ece:.1f} %", xlim=(0, 1))
    left.set_ylim(0, 1)
    right.plot(100 * risks["coverage"], 100 * risks["risk"], drawstyle="steps-post")
    right.set(xlabel="images that are answered, in %", ylabel="wrong answers, in %", title="risk against coverage")
    right.set_xlim(0, 100)
    right.set_ylim(bottom=0)
    with open_atomic(folder / "calibration.png") as file:
        figure.savefig(file, format="png", dpi=150)
    err.print(f"written: {folder}", markup=False, soft_wrap=True)
