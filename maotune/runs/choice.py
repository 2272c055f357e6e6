"""Choose by held-out images: the user's validation images, or cross-validation over the labelled ones."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.mao.methods import ZEROSHOT
from maotune.protocols.adapt import deciding_test
from maotune.protocols.protocol import Splits
from maotune.recipe.candidates import candidate_recipes
from maotune.recipe.schema import BEST, Recipe
from maotune.runs.comparison import CandidateResult, Comparison, compare
from maotune.runs.estimate import CostMeter
from maotune.runs.events import Callback, Progress, duration
from maotune.runs.fingerprint import DataRecord
from maotune.runs.fitting import Fitting, score_zeroshot
from maotune.runs.pipeline import Pipeline, evaluation_of
from maotune.train.evaluate import Evaluation

log = logging.getLogger(__name__)

FOLDS = "folds"
"""Folder within that of a run, while candidates are compared: what they tune is resumed there."""


@dataclass(frozen=True)
class Choice:
    """The recipe of the best candidate, and what led to it."""

    recipe: Recipe
    logits: Mapping[str, Tensor]
    """Scores (N, C) of the held-out images, by its stages."""
    comparison: Comparison


class HeldOut:
    """Scores recipes on the held-out images of a run, without tuning on them."""

    def __init__(self, clip: FrozenCLIP, splits: Splits, data: DataRecord, folder: Path | None, callback: Callback):
        self.clip, self.data, self.folder, self.callback = clip, data, folder / FOLDS if folder else None, callback
        self.test, self.folds = deciding_test(splits.tests) or "", max(splits.folds, default=-1) + 1
        self.whole = replace(splits, tests={self.test: splits.tests[self.test]} if self.test else {})
        self.parts = [splits.without_fold(fold) for fold in range(self.folds)] or [self.whole]

    def logits(self, recipe: Recipe) -> dict[str, Tensor]:
        """Tune a recipe, once for each fold; return the scores (N, C) of all held-out images by its stages."""
        pipeline = Pipeline(self.clip, recipe, lambda event: None)
        by_stage: dict[str, list[Tensor]] = {}
        for number, part in enumerate(self.parts):
            fitting = Fitting(recipe, pipeline, part)
            history = fitting.fit(self._folder(recipe, number), self.data, resume=True)
            for stage, logits in fitting.logits(history, part.tests[self.test]).items():
                by_stage.setdefault(stage, []).append(logits)
            self.callback(Progress(f"held-out images, {recipe.title} {recipe.method}", number + 1, len(self.parts)))
        return {stage: torch.cat(parts) for stage, parts in by_stage.items()}

    def evaluation(self, logits: Tensor) -> Evaluation:
        """Return the evaluation of the scores (N, C) of all held-out images."""
        return evaluation_of(self.whole.tests[self.test], logits)

    def zeroshot(self, recipe: Recipe) -> Evaluation:
        """Return the evaluation of zero-shot CLIP on all held-out images."""
        return score_zeroshot(recipe, Pipeline(self.clip, recipe), self.whole)[self.test]

    def seconds(self, recipe: Recipe, meter: CostMeter) -> float:
        """Estimate what ``evaluate`` and a fit on all images take."""
        fitting = Fitting(recipe, pipeline := Pipeline(self.clip, recipe), self.whole)
        cost = meter.estimate(pipeline, fitting.learner, fitting.stages, self.whole)
        return cost.encoding + cost.scoring + cost.tuning * (self.folds + 1)

    def forget(self) -> None:
        """Delete what was kept to resume."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _folder(self, recipe: Recipe, number: int) -> Path | None:
        if self.folder is None:
            return None
        data = sha256(f"{self.data['fingerprint']} {number}".encode()).hexdigest()[:8]
        return self.folder / f"{recipe.slug}-{data}"


def choose(recipe: Recipe, held_out: HeldOut) -> Choice:
    """Compare a recipe, or the candidates of the method best within its time, with zero-shot CLIP; return the best.

    Raises:
        ValueError: there is no image to compare on.
    """
    if not held_out.test:
        raise ValueError(
            f"{held_out.whole.name}: nothing can be compared, as no class has two labelled images and there are no "
            "validation images: label more, or set some aside (a folder val)"
        )
    begin, meter, best = time.monotonic(), CostMeter(), recipe.method == BEST
    zeroshot = held_out.zeroshot(recipe)
    rows = [(_row(ZEROSHOT, time.monotonic() - begin, accuracy=zeroshot.accuracy), zeroshot)]
    tried: dict[str, tuple[Recipe, dict[str, Tensor]]] = {}
    skipped: list[CandidateResult] = []
    for candidate in candidate_recipes(recipe, held_out.whole.unlabelled is not None) if best else [recipe]:
        name, tick = f"{candidate.title} {candidate.method}", time.monotonic()
        left = max(0.0, 60 * recipe.best.minutes - (tick - begin))
        try:
            if best and (needed := held_out.seconds(candidate, meter)) > left:
                note = f"not tried: about {duration(needed)}, of which {duration(left)} are left (best.minutes)"
                skipped.append(_row(name, needed, note))
                continue
            by_stage = held_out.logits(candidate)
        except (ValueError, ArithmeticError) as error:
            if not best:
                raise
            skipped.append(_row(name, time.monotonic() - tick, f"not possible: {error}"))
            continue
        seconds = time.monotonic() - tick
        for stage, logits in reversed(by_stage.items()):  # of two equal ones, the last counts
            evaluation = held_out.evaluation(logits)
            with_stage = f"{name}, {stage} stage" if len(by_stage) > 1 else name
            rows.append((_row(with_stage, seconds, accuracy=evaluation.accuracy), evaluation))
            tried[with_stage] = candidate, by_stage
    correct = [(row, evaluation.predictions == evaluation.labels) for row, evaluation in rows]
    comparison = compare(held_out.test, held_out.folds, correct, skipped)
    if not best:
        return Choice(recipe, by_stage, comparison)
    chosen, by_stage = tried.get(comparison.chosen, (recipe.model_copy(update={"method": ZEROSHOT}), {}))
    return Choice(chosen, by_stage, comparison)


def _row(name: str, seconds: float, note: str = "", accuracy: float | None = None) -> CandidateResult:
    return CandidateResult(name=name, accuracy=accuracy, seconds=seconds, note=note)
