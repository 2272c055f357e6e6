"""Runs on one's own images: what to deploy, how good it is, and on which images and classes it is wrong."""

import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maotune.mao.methods import ZEROSHOT
from maotune.printable import without_folders
from maotune.protocols import PROTOCOLS
from maotune.protocols.adapt import deciding_test
from maotune.report.content import FigurePanels, Gallery, Picture, ReportTable, Section
from maotune.report.drawing import COLOURS, WIDTH, draw_panels, label_rows, styles
from maotune.report.frame import ExperimentRuns, FinishedTrial
from maotune.report.names import method_name
from maotune.report.pictures import DatasetPictures
from maotune.report.sentences import row_name, signed
from maotune.runs.comparison import wilson_interval
from maotune.runs.predictions import Scoring

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISTAKES = 36
"""Largest number of mistakes that are shown."""
CLASSES = 30
"""Largest number of classes of a confusion matrix: those with the most mistakes."""


@dataclass(frozen=True)
class OwnRun:
    """A run on one's own images with its predictions of the images that it is judged by."""

    run: FinishedTrial
    scoring: Scoring
    test: str
    """``test``; ``val`` or ``cv`` where there are no test images."""

    @property
    def prompts(self) -> str:
        """Whose prompts are used."""
        return self.run.result.scored_with[self.test]

    @property
    def title(self) -> str:
        """The name of what is used."""
        used = row_name(self.run.key).replace(" MAO", " with MAO")
        return method_name(ZEROSHOT).capitalize() + " CLIP" if self.prompts == ZEROSHOT else used

    def right(self, prompts: str) -> NDArray[np.bool_]:
        """Return for each image whether the prompts take it for its class."""
        right: NDArray[np.bool_] = np.equal(self.scoring.predicted[prompts][self.test], self.scoring.labels[self.test])
        return right

    @functools.cached_property
    def images(self) -> pd.DataFrame:
        """A row per image: its ``name``, ``label`` and predicted class (``taken``), as numbers of the classes."""
        labels = self.scoring.labels[self.test]
        names = (self.scoring.images or {}).get(self.test, [""] * len(labels))
        return pd.DataFrame({"name": names, "label": labels, "taken": self.scoring.predicted[self.prompts][self.test]})


def find_own_runs(runs: ExperimentRuns) -> list[OwnRun]:
    """Return the runs on one's own images that have kept their predictions, the one to deploy first.

    It is the best on the validation images, or in cross-validation; among equals, the first.
    """
    own = []
    measures = PROTOCOLS["adapt"].measures
    for run in runs.finished if runs.scores.measure in measures else ():
        scoring = run.trial.scoring()
        if scoring and run.result.stages:
            own.append(OwnRun(run, scoring, next(name for name in measures if name in scoring.labels)))
    return sorted(own, key=lambda each: -_deciding_accuracy(each.run.result.scores))


def _deciding_accuracy(scores: Mapping[str, float]) -> float:
    test = deciding_test(scores)
    return scores[test] if test is not None else 0.0


def accuracy_interval(right: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the share of ``right`` in percent and its 95 % interval (Wilson's) where images are drawn anew."""
    low, high = wilson_interval(int(right.sum()), len(right))
    return 100 * float(right.mean()), 100 * low, 100 * high


def own_answer(own: Sequence[OwnRun]) -> str:
    """Say which run to deploy, and how often it is right."""
    best = own[0]
    share, low, high = accuracy_interval(best.right(best.prompts))
    kinds = {"test": "test images", "val": "validation images"}
    images = f"{len(best.images)} {kinds.get(best.test, 'labelled images, in cross-validation,')}"
    accuracy = f"{share:.1f} % of the {images} right (95 % interval {low:.1f} to {high:.1f} %)"
    if best.prompts == ZEROSHOT:
        return f"No tuned prompts are better than zero-shot CLIP on held-out images; it classifies {accuracy}."
    return f"{best.title} classifies {accuracy}, zero-shot CLIP {100 * best.right(ZEROSHOT).mean():.1f} %."


def plot_accuracies(own: Sequence[OwnRun]) -> FigurePanels:
    """Accuracy of zero-shot CLIP and of each run, with intervals."""
    rows = [("zero-shot CLIP", ZEROSHOT, own[0].right(ZEROSHOT))]
    for each in own:
        stage = each.run.result.stages[-1]["name"] if each.prompts == ZEROSHOT else each.prompts
        seed = f", seed {each.run.result.seed}" if len({of.run.result.seed for of in own}) > 1 else ""
        rows.append((row_name(each.run.key) + seed, each.run.result.method, each.right(stage)))
    drawn = styles(method for _, method, _ in rows)

    def paint(axes: "Axes") -> None:
        for y, (_, method, right) in enumerate(rows):
            share, low, high = accuracy_interval(right)
            shade = COLOURS[drawn[method].colour]
            axes.plot((low, high), (y, y), color=shade, linewidth=2.2, solid_capstyle="round")
            axes.plot(share, y, drawn[method].marker, color=shade, markersize=5)
        label_rows(axes, [name for name, *_ in rows])
        axes.grid(axis="x")
        axes.set(xlabel="images classified right, %")

    label = "; ".join(f"{name}: {100 * right.mean():.1f} % right" for name, _, right in rows)
    return draw_panels(
        "own-accuracies",
        f"Share of the {len(own[0].images)} images that are classified right by the tuned prompts of each run and by "
        "zero-shot CLIP, with 95 % intervals.",
        [(label, paint, 0.9 + 0.3 * len(rows))],
        {},
    )


def own_section(own: Sequence[OwnRun]) -> Section:
    """Report on the run to deploy: its classes, its mistakes, and the command that uses it."""
    best = own[0]
    folder = f"{best.run.trial.folder.parent.name}/{best.run.trial.name}"
    return Section(
        "own",
        f"Deploy this: {best.title}",
        (f"It is in the folder {folder}, of which only prompts.safetensors is needed, a file of a few kilobytes.",),
        [_class_table(best), _plot_confusions(best), Gallery("Mistakes", [*_mistakes(best)])],
        code=f"maotune predict {shlex.quote(folder)} new_photos/",
    )


def _class_table(own: OwnRun) -> ReportTable:
    """Accuracy of each class, the worst first, and what its images are taken for."""
    names = own.scoring.classes[own.test]
    images = own.images.assign(zeroshot=own.right(ZEROSHOT), right=own.right(own.prompts))
    rows = []
    for label, of_class in images.groupby("label"):
        wrong = of_class.loc[~of_class["right"], "taken"].value_counts()
        taken = f"{names[wrong.index[0]]} ({wrong.iloc[0]})" if len(wrong) else ""
        before, now = (100 * of_class[column].mean() for column in ("zeroshot", "right"))
        cells = (str(len(of_class)), f"{before:.0f}", f"{now:.0f}", signed(now - before, 0), taken)
        rows.append((now, ((names[label],), cells)))
    return ReportTable(
        "own-classes",
        "Accuracy of each class in percent, the lowest first.",
        ("class",),
        ("images", "zero-shot", "used", "change", "most often taken for"),
        [row for _, row in sorted(rows, key=lambda entry: entry[0])],
        ("Few images a class: a change of one image more or less may be chance.",),
    )


def _plot_confusions(own: OwnRun) -> FigurePanels:
    """What the images of each class are taken for."""
    names = own.scoring.classes[own.test]
    wrong = own.images[own.images["label"] != own.images["taken"]]
    mistaken = pd.concat([wrong["label"], wrong["taken"]]).value_counts()
    shown = sorted(mistaken.index[:CLASSES]) if len(names) > CLASSES else [*range(len(names))]
    counts = pd.crosstab(own.images["label"], own.images["taken"]).reindex(index=shown, columns=shown, fill_value=0)
    shares = counts.div(own.images["label"].value_counts().reindex(shown), axis=0).fillna(0).to_numpy()

    def paint(axes: "Axes") -> None:
        from matplotlib.patches import Rectangle

        for (y, x), count in np.ndenumerate(counts.to_numpy()):
            if count:
                cell = {"facecolor": COLOURS["green" if x == y else "orange"], "alpha": 0.1 + 0.65 * shares[y, x]}
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0, **cell))
                axes.text(x, y, str(count), ha="center", va="center", fontsize=6.5)
        labels = [names[label] if len(names[label]) < 22 else f"{names[label][:20]}…" for label in shown]
        label_rows(axes, labels)
        axes.set_xticks(range(len(shown)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.5, len(shown) - 0.5)
        axes.tick_params(axis="x", length=0)
        axes.set(xlabel="taken for", ylabel="is")
        axes.spines[:].set_visible(False)

    fewer = f"; the {len(shown)} of {len(names)} classes with the most mistakes" if len(shown) < len(names) else ""
    return draw_panels(
        "own-confusions",
        f"Confusions: how many images of each class (rows) are taken for which class (columns){fewer}. "
        "Green: right; orange: mistakes; the stronger, the larger the share of the row.",
        [(f"confusion matrix of {len(shown)} classes", paint, 1.4 + 0.2 * len(shown))],
        {},
        width=WIDTH if len(shown) < 13 else 2 * WIDTH,
    )


def _mistakes(own: OwnRun) -> Iterator[Picture]:
    """Yield images that are taken for another class, the most frequent confusions first."""
    names = own.scoring.classes[own.test]
    wrong = own.images[own.images["label"] != own.images["taken"]]
    often = wrong.groupby(["label", "taken"])["name"].transform("size")
    recipe = own.run.trial.recipe
    pictures = DatasetPictures(recipe)
    for row in (
        wrong.assign(often=often).sort_values(["often", "label", "taken"], ascending=False).head(MISTAKES).itertuples()
    ):
        name = without_folders(row.name, recipe.data.own_paths)
        lines = (f"is {names[row.label]}", *([name] if name else []))
        yield Picture(functools.partial(pictures.show, [row.name]), f"taken for {names[row.taken]}", lines)
