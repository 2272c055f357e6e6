"""Predictions of a run for images, and how good they are where the true classes are known."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
from torch import Tensor

from maotune.data.sets.dataset import Skipped
from maotune.files import open_atomic, write_atomic
from maotune.printable import printable_cell
from maotune.train.evaluate import Evaluation

UNKNOWN = "unknown"
"""The answer for an image that is left to a person."""
BINS = 15
"""Of a reliability diagram."""

Answer = tuple[str, list[tuple[str, float]]]
"""Name of an image, and its classes with their probabilities, most probable first."""


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Answer]):
    """Predicted classes of N images."""

    classes: tuple[str, ...]
    """The C classes to choose from."""
    images: tuple[str, ...]
    """Names of the images."""
    probabilities: Tensor
    """(N, C) float32, calibrated where the run has learned how."""
    top_k: int
    """Classes per image in what is listed and written."""
    skipped: tuple[Skipped, ...]
    """What was left out of folders, and images that could not be read."""
    prompts: str
    """The stage whose prompts were used, a mixture of several, or ``zeroshot``."""
    answered: Tensor
    """(N,) bool: whether the most probable class is the answer; False where the image is left to a person."""
    resemblance: Tensor
    """(N,) float32: how much an image resembles its nearest class; low for images of no class (``--reject``)."""
    note: str = ""
    """A sentence on the images that are left to a person, where this was asked for."""
    changed: int | None = None
    """Number of answers that were changed by looking at all images at once; None where this was not asked for."""

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        """Return ``(name of the image, [(class, probability), ...])``, most probable class first."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        best = self.probabilities[index].topk(min(self.top_k, len(self.classes)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return self.images[index], [(self.classes[number], probability) for number, probability in pairs]

    def __iter__(self) -> Iterator[Answer]:
        return (self[number] for number in range(len(self)))

    @property
    def labels(self) -> list[str]:
        """The answer for each image: a class, or ``unknown``."""
        best = self.probabilities.argmax(dim=1).tolist()
        return [
            self.classes[number] if sure else UNKNOWN for number, sure in zip(best, self.answered.tolist(), strict=True)
        ]

    def corrected(self, probabilities: Tensor) -> "Predictions":
        """Return the predictions by other ``probabilities`` of the same classes, with the number of changed answers."""
        changed = int((probabilities.argmax(dim=1) != self.probabilities.argmax(dim=1)).sum())
        return replace(self, probabilities=probabilities, changed=changed)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per image: ``image``, ``label`` (the answer), and the ``top_k`` classes with probabilities."""
        count = min(self.top_k, len(self.classes))
        best = self.probabilities.topk(count, dim=1)
        columns: dict[str, list[str] | np.ndarray] = {"image": [*self.images], "label": self.labels}
        for rank in range(count):
            columns[f"class_{rank + 1}"] = [self.classes[number] for number in best.indices[:, rank].tolist()]
            columns[f"probability_{rank + 1}"] = best.values[:, rank].numpy()
        return pd.DataFrame(columns)

    def write(self, path: str | Path) -> None:
        """Write ``to_frame`` to a file: ``.csv``, ``.jsonl`` or ``.parquet`` (for which pyarrow is needed).

        In CSV, names that a spreadsheet takes for a formula, and line breaks, are written as ``predict`` shows them.

        Raises:
            ValueError: another ending, or pyarrow is not installed.
        """
        path = Path(path)
        frame = self.to_frame()
        if path.suffix.lower() == ".csv":
            write_atomic(path, frame.map(printable_cell).to_csv(index=False))
        elif path.suffix.lower() == ".jsonl":
            write_atomic(path, frame.to_json(orient="records", lines=True, double_precision=6))
        else:
            check_output(path)
            with open_atomic(path) as file:
                frame.to_parquet(file, index=False)


def check_output(path: str | Path) -> None:
    """Refuse a file that ``Predictions.write`` cannot write, before any image is looked at.

    Raises:
        ValueError: another ending than .csv, .jsonl and .parquet; or pyarrow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".jsonl", ".parquet"):
        raise ValueError(f"{path}: predictions are written to a .csv, .jsonl or .parquet file")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f'{path}: parquet needs pyarrow: pip install "maotune[parquet]", or write .csv or .jsonl')


@dataclass(frozen=True, eq=False)
class Assessment:
    """How good the predictions for labelled images are. Accuracies are in percent."""

    source: str
    split: str
    """test, val, train, or all."""
    predictions: Predictions
    labels: Tensor
    """(N,) int64, the true classes."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"Assessment({self.source}, {self.split}: {self.accuracy:.2f} % of {len(self.labels)} images, "
            f"ECE {self.ece:.2f} %)"
        )

    @cached_property
    def evaluation(self) -> Evaluation:
        """The most probable classes beside the true ones, with their probabilities for scores."""
        probabilities = self.predictions.probabilities
        return Evaluation(self.predictions.classes, self.labels, probabilities.argmax(dim=1), probabilities.amax(dim=1))

    @property
    def accuracy(self) -> float:
        """Share of correct images."""
        return self.evaluation.accuracy

    @property
    def mean_per_class(self) -> float:
        """Mean of the accuracies of the classes that have images."""
        return self.evaluation.mean_per_class

    @property
    def confusion(self) -> pd.DataFrame:
        """Number of images of the row's class that were taken for the column's."""
        classes = self.predictions.classes
        return pd.DataFrame(self.evaluation.confusion.numpy(), index=classes, columns=classes)

    @property
    def per_class(self) -> pd.DataFrame:
        """A row per class: ``images``, ``accuracy``, and the class that it is ``taken_for`` most often, if any."""
        counts = self.confusion.to_numpy()
        images, wrong = counts.sum(axis=1), counts - np.diag(np.diag(counts))
        classes = np.array(self.predictions.classes, dtype=object)
        return pd.DataFrame(
            {
                "images": images,
                "accuracy": [*self.evaluation.per_class.values()],
                "taken_for": np.where(wrong.any(axis=1), classes[wrong.argmax(axis=1)], ""),
                "wrong": wrong.max(axis=1),
            },
            index=classes,
        )

    @property
    def reliability(self) -> pd.DataFrame:
        """A row per bin of confidence that has images: their number, mean ``confidence`` and ``accuracy``, 0 to 1."""
        frame = self._answers
        bins = pd.cut(frame["confidence"], np.linspace(0, 1, BINS + 1), include_lowest=True)
        table = frame.groupby(bins, observed=True).agg(
            images=("correct", "size"), confidence=("confidence", "mean"), accuracy=("correct", "mean")
        )
        return table.reset_index(drop=True)

    @property
    def ece(self) -> float:
        """Expected calibration error in percent: mean distance of confidence and accuracy over the bins."""
        table = self.reliability
        distance = (table["confidence"] - table["accuracy"]).abs()
        return 100 * float((distance * table["images"]).sum() / table["images"].sum())

    @property
    def risk_coverage(self) -> pd.DataFrame:
        """For the most confident images, one more a row: ``coverage``, ``risk`` (share of errors), ``confidence``."""
        frame = self._answers.sort_values("confidence", ascending=False, kind="stable")
        answers = np.arange(1, len(frame) + 1)
        return pd.DataFrame(
            {
                "coverage": answers / len(frame),
                "risk": (~frame["correct"]).cumsum().to_numpy() / answers,
                "confidence": frame["confidence"].to_numpy(),
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """Return ``Predictions.to_frame`` with the ``true`` classes."""
        classes = self.predictions.classes
        return self.predictions.to_frame().assign(true=[classes[label] for label in self.labels.tolist()])

    @property
    def _answers(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "confidence": self.evaluation.highest.numpy().astype(float),
                "correct": (self.evaluation.predictions == self.labels).numpy(),
            }
        )
