"""One run, from the recipe to its result: the path that every protocol takes."""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner
from maotune.data.sets.catalog import names
from maotune.data.sets.dataset import Dataset
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.methods import ZEROSHOT
from maotune.mao.pseudo_labels import PSEUDO_LABELS, PseudoLabels, PseudoLabelStore
from maotune.mao.selection import label_quality
from maotune.mao.stages import count_candidates, hard_negative_table
from maotune.printable import without_folders
from maotune.protocols.protocol import CROSS_VALIDATED, Splits, Test
from maotune.recipe.paper import Departures, departures, in_words
from maotune.recipe.schema import BEST, Recipe
from maotune.runs.build import build_clip, build_splits, templates_of
from maotune.runs.calibration import Calibration
from maotune.runs.choice import HeldOut, choose
from maotune.runs.clip_choice import warn_of_domain
from maotune.runs.estimate import CostMeter, uses_pool
from maotune.runs.events import Callback, RunPlan
from maotune.runs.fingerprint import DataRecord, record_data
from maotune.runs.fitting import Fitting, score_zeroshot
from maotune.runs.folder import check_data, hold, keep_recipe
from maotune.runs.labeler_alone import score_labeler
from maotune.runs.mixing import StagePrompts
from maotune.runs.pipeline import Pipeline
from maotune.runs.predictions import Scoring
from maotune.runs.provenance import environment
from maotune.runs.readable import Drawn
from maotune.runs.result import Result, StageResult
from maotune.runs.saved import PROMPTS
from maotune.runs.tuned import Run
from maotune.train.evaluate import Evaluation
from maotune.train.history import History
from maotune.train.session import CHECKPOINT

log = logging.getLogger(__name__)

Evaluations = Mapping[str, Mapping[str, Evaluation]]
"""By prompts (stages in order, then ``zeroshot``), then by test."""


@dataclass(frozen=True)
class Outcome:
    """All that a run produces."""

    recipe: Recipe
    """The recipe with the data set's own texts filled in."""
    result: Result
    prompts: Mapping[str, StagePrompts]
    """By stage; for zero-shot CLIP, which has none, without tensors under its name."""
    scoring: Scoring
    history: History


def tune_recipe(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    locked: bool = False,
    clip: FrozenCLIP | None = None,
    callback: Callback | None = None,
    estimates: bool = True,
    own: Dataset | None = None,
) -> Run:
    """``maotune.tune`` for a recipe that has been read already.

    ``locked``: the caller holds the lock of the folder; ``estimates``, ``own``: as in ``tune_and_score``.
    """
    path = Path(folder) if folder is not None else None
    with hold(path) if path is not None and not locked else nullcontext():
        if path is not None:
            keep_recipe(path, recipe)
        clip = clip or build_clip(recipe.clip)
        outcome = tune_and_score(
            recipe, path, clip=clip, resume=resume, callback=callback, estimates=estimates, own=own
        )
        run = Run(outcome.recipe, clip, outcome.prompts, outcome.result)
        if path is not None:
            run.save(path / PROMPTS)
            outcome.scoring.save(path)
            outcome.result.save(path)  # the last: where it is, all is
    return run


def tune_and_score(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    clip: FrozenCLIP,
    resume: bool = False,
    callback: Callback | None = None,
    estimates: bool = True,
    own: Dataset | None = None,
) -> Outcome:
    """Tune as ``recipe`` says and score.

    Args:
        recipe: all that decides the result.
        folder: for checkpoints and the prompts of stages; None: nothing is written.
        clip: the frozen model that ``recipe.clip`` names.
        resume: continue from what is in the folder.
        callback: called with the plan, stages, steps and progress.
        estimates: estimate the cost of the run before it begins, and report the plan.
        own: the data set, where it is in memory.

    Raises:
        ValueError: data, recipe and folder do not fit together; the message says how.
        TrainingDiverged: the loss became infinite.
    """
    start, asked, on_event = time.monotonic(), recipe, callback or (lambda event: None)
    drawn = build_splits(recipe, own)
    splits = drawn.splits
    skipped = [without_folders(item.name, recipe.data.own_paths) for item in drawn.skipped]
    data = record_data(splits, skipped, recipe.mao.pool == "train")
    if folder is not None and resume:
        check_data(folder, recipe, data)
    pipeline = Pipeline(clip, recipe, on_event)
    if warning := warn_of_domain(recipe, pipeline, splits):
        drawn.remarks.append(warning)
    held_out, choice = HeldOut(clip, splits, data, folder, on_event), None
    if recipe.method == BEST:
        choice = choose(recipe, held_out)
        recipe = choice.recipe
        pipeline = Pipeline(clip, recipe, on_event)
    departing = departures(recipe.shareable())
    pseudo_labels = _pseudo_label_store(folder)
    fitting = Fitting(recipe, pipeline, splits, pseudo_labels)
    candidates = _count_candidates(fitting)
    if callback and fitting.stages and estimates:
        fits = 1 if choice is not None else 1 + held_out.folds
        callback(_run_plan(fitting, drawn, candidates, in_words([recipe.name], departing), fits))
    else:
        for remark in drawn.remarks:
            log.warning("%s: %s", splits.name, remark)
    if fitting.stages and held_out.folds and choice is None:
        choice = choose(recipe, held_out)
    history = fitting.fit(folder, data, resume=resume, on_event=on_event)
    folds = choice.logits if choice is not None and held_out.folds else {}
    evaluations = fitting.score(history)
    for stage, logits in folds.items():
        evaluations[stage][CROSS_VALIDATED] = held_out.evaluation(logits)
    evaluations[ZEROSHOT] = score_zeroshot(fitting.recipe, fitting.pipeline, splits)
    labels = None
    if splits.unlabelled is not None:
        labels = pseudo_labels.get([sample.image.name for sample in splits.unlabelled.samples])
    calibration = _calibrate(fitting, history, folds) if recipe.data.source not in names() else {}
    alone = {}
    if labels is not None:
        alone = score_labeler(fitting.recipe, fitting.pipeline, splits, labels, evaluations[ZEROSHOT])
    result = _result(asked, departing, fitting, drawn, data, history, evaluations, labels, alone, calibration, start)
    if choice is not None:
        result = replace(result, comparison=choice.comparison)
    held_out.forget()
    neighbours = None
    if candidates is not None:
        k = recipe.mao.b_and_k(len(splits.classes))[1]
        neighbours = hard_negative_table(splits.classes, recipe.mao, fitting.pipeline.bank.folder)[:, :k]
    scoring = Scoring.of(splits, {**evaluations, **alone}, labels, neighbours)
    return Outcome(fitting.recipe, result, _prompts(fitting, history), scoring, history)


def _prompts(fitting: Fitting, history: History) -> dict[str, StagePrompts]:
    """Return the prompts of each stage; for zero-shot CLIP, which has none, its classes."""
    splits = fitting.splits
    if not fitting.stages:
        protocol = fitting.recipe.protocol_in_use
        return {
            ZEROSHOT: StagePrompts(protocol.known_classes([splits.classes, splits.new_classes or splits.classes]), {})
        }
    return fitting.prompts(history)


def _count_candidates(fitting: Fitting) -> float | None:
    """Return the mean number of classes in a batch of MAO's base stage, where the loss is over these alone."""
    if not any(stage.batch_candidates and stage.name == "base" for stage in fitting.stages):
        return None
    splits = fitting.splits
    return count_candidates(splits.classes, splits.shots, fitting.recipe.mao, fitting.pipeline.bank.folder)


def _run_plan(fitting: Fitting, drawn: Drawn, candidates: float | None, recipe: str, fits: int) -> RunPlan:
    """Plan a run that tunes ``fits`` times: once for each fold of a cross-validation, and on all images."""
    learner, splits, stages = fitting.learner, drawn.splits, fitting.stages
    uses_bank = (learner.uses_frozen_features or learner.uses_unprojected_features) and not learner.tunes_image_tower
    estimate = CostMeter().estimate(fitting.pipeline, learner, stages, splits)
    return RunPlan(
        recipe=recipe,
        stages=stages,
        shots=len(splits.shots),
        unlabelled=len(splits.unlabelled.samples) if splits.unlabelled and uses_pool(stages) else 0,
        tests={name: len(test.samples) for name, test in splits.tests.items() if name != CROSS_VALIDATED},
        views=fitting.pipeline.views if uses_bank else 0,
        candidates=candidates,
        parameters=_parameters(learner),
        remarks=drawn.remarks,
        estimate=replace(estimate, tuning=fits * estimate.tuning),
        folds=fits - 1,
    )


def _pseudo_label_store(folder: Path | None) -> PseudoLabelStore:
    """Return the store of a run in ``folder``; a file that belongs to no checkpoint is of no use and is deleted."""
    if folder is None:
        return PseudoLabelStore()
    path = folder / PSEUDO_LABELS
    if not (folder / f"{CHECKPOINT}.safetensors").exists():
        for file in folder.glob(f"{path.stem}*"):
            file.unlink()
    return PseudoLabelStore(path)


def _calibrate(fitting: Fitting, history: History, folds: Mapping[str, Tensor]) -> dict[str, Calibration]:
    """Learn from the held-out images of one's own how far the probabilities of all prompts can be trusted.

    ``folds``: scores of the images of the test ``cv`` by stage, each by prompts that were not tuned on the image.
    """
    held_out = _held_out(fitting.splits)
    if held_out is None:
        return {}
    labels = torch.tensor([sample.label for sample in held_out.samples])
    by_stage = folds if fitting.splits.folds else fitting.logits(history, held_out)
    calibration = {stage: Calibration.of(logits, labels) for stage, logits in by_stage.items()}
    zeroshot = ZeroShot(
        fitting.pipeline.clip, held_out.classes, templates=templates_of(fitting.recipe, fitting.splits.templates)
    )
    return {**calibration, ZEROSHOT: Calibration.of(fitting.pipeline.logits(zeroshot, held_out.samples), labels)}


def _held_out(splits: Splits) -> Test | None:
    """Return the labelled images that are scored and not tuned on, where all tests choose among the same classes."""
    if splits.folds:
        return splits.tests[CROSS_VALIDATED]
    tests = [*splits.tests.values()]
    if not tests or any(test.classes != tests[0].classes for test in tests):
        return None
    return Test(tests[0].classes, [sample for test in tests for sample in test.samples])


def _result(
    asked: Recipe,
    departing: Departures,
    fitting: Fitting,
    drawn: Drawn,
    data: DataRecord,
    history: History,
    evaluations: Evaluations,
    labels: PseudoLabels | None,
    alone: Evaluations,
    calibration: dict[str, Calibration],
    start: float,
) -> Result:
    splits, recipe = drawn.splits, fitting.recipe
    protocol = recipe.protocol_in_use
    own = recipe.data.own_paths
    accuracies = {
        prompts: {name: evaluation.accuracy for name, evaluation in by_test.items()}
        for prompts, by_test in evaluations.items()
    }
    predictors = protocol.choose(fitting.predictors, accuracies)
    scored_with = {name: predictors.of(test.classes, splits.classes) for name, test in splits.tests.items()}
    stages: list[StageResult] = [
        {
            "name": record.name,
            "updates": record.updates,
            "images": record.images,
            "seconds": record.seconds,
            "losses": [epoch.losses for epoch in record.epochs],
            "accuracy": protocol.means(splits, accuracies[record.name]),
        }
        for record in history.stages
    ]
    return Result(
        dataset=without_folders(splits.name),
        protocol=protocol.name,
        learner=recipe.title if fitting.stages or asked.method != BEST else "clip",
        method=asked.method,
        seed=recipe.seed,
        shots=recipe.data.shots,
        scores=protocol.means(splits, {name: accuracies[prompts][name] for name, prompts in scored_with.items()}),
        scored_with=scored_with,
        predictors=predictors,
        mean_per_class={name: evaluations[prompts][name].mean_per_class for name, prompts in scored_with.items()},
        zeroshot=protocol.means(splits, accuracies[ZEROSHOT]),
        labeler_alone={
            name: protocol.means(splits, {test: evaluation.accuracy for test, evaluation in by_test.items()})
            for name, by_test in alone.items()
        },
        stages=stages,
        pseudo_labels=label_quality(labels, recipe.mao, splits.unlabelled.true_labels)
        if labels and splits.unlabelled
        else None,
        skipped=[
            {
                "name": without_folders(item.name, own),
                "kind": item.kind,
                "reason": without_folders(item.reason, own),
            }
            for item in drawn.skipped
        ],
        remarks=[without_folders(remark, own) for remark in drawn.remarks],
        calibration=calibration,
        templates=list(templates_of(recipe, splits.templates)),
        parameters=_parameters(fitting.learner) if fitting.stages else 0,
        peak_memory=history.peak_memory,
        seconds=time.monotonic() - start,
        environment=environment(fitting.pipeline.clip, data, fitting.encoder),
        recipe=(asked if asked.method == BEST else recipe).shareable().model_dump(mode="json"),
        departures=departing,
    )


def _parameters(learner: AbstractLearner) -> int:
    return sum(parameter.numel() for parameter in learner.parameters())
