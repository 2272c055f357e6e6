"""One run, from the recipe to its result: the path that every protocol takes."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Predictors, Stage
from maotune.data.sets.catalog import names
from maotune.data.sets.dataset import Dataset, Sample
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.methods import ZEROSHOT, build_stages, predictors_of
from maotune.mao.pseudo_labels import PSEUDO_LABELS, PseudoLabels, PseudoLabelStore
from maotune.mao.selection import label_quality
from maotune.mao.stages import Task, count_candidates, hard_negative_table
from maotune.printable import without_folders
from maotune.protocols.protocol import Splits
from maotune.recipe.paper import Departures, departures, in_words
from maotune.recipe.schema import Recipe
from maotune.runs.build import build_clip, build_learner, build_splits, labeler_templates, templates_of, with_own_texts
from maotune.runs.calibration import Calibration
from maotune.runs.clip_choice import warn_of_domain
from maotune.runs.estimate import CostMeter, uses_pool
from maotune.runs.events import Callback, RunPlan
from maotune.runs.fingerprint import DataRecord, record_data
from maotune.runs.folder import check_data, hold, identity, keep_recipe
from maotune.runs.labeler_alone import score_labeler
from maotune.runs.pipeline import Pipeline
from maotune.runs.predictions import Scoring
from maotune.runs.provenance import environment
from maotune.runs.readable import Drawn
from maotune.runs.result import Result, StageResult
from maotune.runs.saved import PROMPTS, StagePrompts
from maotune.runs.tuned import Run, open_run
from maotune.train.evaluate import Evaluation
from maotune.train.history import History
from maotune.train.loop import fit
from maotune.train.session import CHECKPOINT, restore_prompts

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
    start = time.monotonic()
    pipeline = Pipeline(clip, recipe, callback or (lambda event: None))
    drawn = build_splits(recipe, own)
    splits = drawn.splits
    skipped = [without_folders(item.name, recipe.data.own_paths) for item in drawn.skipped]
    data = record_data(splits, skipped, recipe.mao.pool == "train")
    if folder is not None and resume:
        check_data(folder, recipe, data)
    if recipe.data.source not in names() and (warning := warn_of_domain(recipe, pipeline, splits)):
        drawn.remarks.append(warning)
    departing = departures(recipe.shareable())
    recipe = with_own_texts(recipe, splits.templates[0])
    torch.manual_seed(recipe.seed)
    learner = build_learner(recipe, clip, splits.classes, open_run)
    pseudo_labels = _pseudo_label_store(folder)
    task = mao_task(recipe, pipeline, splits, pseudo_labels)
    stages = build_stages(recipe.method, replace(task, epochs=0) if learner.closed_form else task, recipe.mao)
    candidates = None
    if any(stage.batch_candidates for stage in stages):
        candidates = count_candidates(splits.classes, splits.shots, recipe.mao, pipeline.bank.folder)
    if callback and stages and estimates:
        said = in_words([recipe.name], departing)
        callback(_run_plan(pipeline, learner, stages, drawn, candidates, said))
    else:
        for remark in drawn.remarks:
            log.warning("%s: %s", splits.name, remark)
    history = History()
    if stages:
        history = fit(
            learner,
            stages,
            recipe.train,
            folder=folder,
            resume=resume,
            seed=recipe.seed,
            scale_loss=clip.dtype == torch.float16,
            metadata={
                "recipe": recipe.shareable().model_dump(mode="json"),
                "clip": clip.fingerprint,
                "preprocess": clip.preprocess.fingerprint,
                "data": data,
            },
            deciding=identity,
            on_event=pipeline.callback,
        )
    evaluations = _score(recipe, pipeline, splits, learner, stages, history)
    calibration = {}
    if recipe.data.source not in names():
        calibration = _calibrate(recipe, pipeline, splits, learner, stages, history)
    labels = None
    if splits.unlabelled is not None:
        labels = pseudo_labels.get([sample.image.name for sample in splits.unlabelled.samples])
    alone = {}
    if labels is not None:
        alone = score_labeler(recipe, pipeline, splits, labels, evaluations[ZEROSHOT])
    result = _result(
        recipe,
        departing,
        pipeline,
        drawn,
        data,
        history,
        evaluations,
        predictors_of(recipe.method, task, recipe.mao),
        labels,
        alone,
        calibration,
        learner if stages else None,
        start,
    )
    prompts = {
        stage.name: StagePrompts(stage.classes, record.prompts or {})
        for stage, record in zip(stages, history.stages, strict=True)
    }
    if not prompts:
        known = recipe.protocol_in_use.known_classes([splits.classes, splits.new_classes or splits.classes])
        prompts = {ZEROSHOT: StagePrompts(known, {})}
    neighbours = None
    if candidates is not None:
        k = recipe.mao.b_and_k(len(splits.classes))[1]
        neighbours = hard_negative_table(splits.classes, recipe.mao, pipeline.bank.folder)[:, :k]
    return Outcome(recipe, result, prompts, Scoring.of(splits, {**evaluations, **alone}, labels, neighbours), history)


def mao_task(recipe: Recipe, pipeline: Pipeline, splits: Splits, pseudo_labels: PseudoLabelStore) -> Task:
    """Return the data and means of a run in MAO's terms."""
    return Task(
        classes=splits.classes,
        shots=splits.shots,
        new_classes=splits.new_classes,
        unlabelled=splits.unlabelled,
        new_stage=splits.new_stage,
        train=splits.train,
        make_batches=pipeline.make_batches,
        foundation=lambda: ZeroShot(
            pipeline.clip, splits.new_classes, templates=labeler_templates(recipe, splits.templates)
        ),
        epochs=recipe.epochs,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        views=pipeline.views,
        seed=recipe.seed,
        cache=pipeline.bank.folder,
        pseudo_labels=pseudo_labels,
    )


def _run_plan(
    pipeline: Pipeline,
    learner: AbstractLearner,
    stages: Sequence[Stage],
    drawn: Drawn,
    candidates: float | None,
    recipe: str,
) -> RunPlan:
    splits = drawn.splits
    uses_bank = (learner.uses_frozen_features or learner.uses_unprojected_features) and not learner.tunes_image_tower
    return RunPlan(
        recipe=recipe,
        stages=stages,
        shots=len(splits.shots),
        unlabelled=len(splits.unlabelled.samples) if splits.unlabelled and uses_pool(stages) else 0,
        tests={name: len(test.samples) for name, test in splits.tests.items()},
        views=pipeline.views if uses_bank else 0,
        candidates=candidates,
        parameters=_parameters(learner),
        remarks=drawn.remarks,
        estimate=CostMeter().estimate(pipeline, learner, stages, splits),
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


def _score(
    recipe: Recipe,
    pipeline: Pipeline,
    splits: Splits,
    learner: AbstractLearner,
    stages: Sequence[Stage],
    history: History,
) -> Evaluations:
    """Score every test with the prompts of every stage, and by zero-shot CLIP."""
    evaluations: dict[str, dict[str, Evaluation]] = {}
    tests = splits.tests if recipe.protocol_in_use.joint else {}
    rivals = {name: {other: tests[other].classes for other in tests if other != name} for name in splits.tests}
    for stage, record in zip(stages, history.stages, strict=True):
        restore_prompts(learner, record.prompts or {}, stage.classes)
        evaluations[record.name] = {
            name: pipeline.score(learner, test, rivals[name]) for name, test in splits.tests.items()
        }
    zeroshot = ZeroShot(pipeline.clip, splits.classes, templates=templates_of(recipe, splits.templates))
    evaluations[ZEROSHOT] = {}
    for name, test in splits.tests.items():
        zeroshot.templates = templates_of(recipe, test.templates or splits.templates)
        evaluations[ZEROSHOT][name] = pipeline.score(zeroshot, test, rivals[name])
    return evaluations


def _calibrate(
    recipe: Recipe,
    pipeline: Pipeline,
    splits: Splits,
    learner: AbstractLearner,
    stages: Sequence[Stage],
    history: History,
) -> dict[str, Calibration]:
    """Learn from the held-out images of one's own how far the probabilities of all prompts can be trusted."""
    classes, samples = _held_out(splits)
    if not samples:
        return {}
    labels = torch.tensor([sample.label for sample in samples])
    zeroshot = ZeroShot(pipeline.clip, classes, templates=templates_of(recipe, splits.templates))
    calibration = {}
    for stage, record in zip(stages, history.stages, strict=True):
        restore_prompts(learner, record.prompts or {}, stage.classes)
        learner.bind(classes)
        calibration[record.name] = Calibration.of(pipeline.logits(learner, samples), labels)
    return {**calibration, ZEROSHOT: Calibration.of(pipeline.logits(zeroshot, samples), labels)}


def _held_out(splits: Splits) -> tuple[tuple[str, ...], list[Sample]]:
    """Return the labelled images that are scored, and their classes, where all tests choose among the same."""
    tests = [*splits.tests.values()]
    if not tests or any(test.classes != tests[0].classes for test in tests):
        return (), []
    return tests[0].classes, [sample for test in tests for sample in test.samples]


def _result(
    recipe: Recipe,
    departing: Departures,
    pipeline: Pipeline,
    drawn: Drawn,
    data: DataRecord,
    history: History,
    evaluations: Evaluations,
    predictors: Predictors,
    labels: PseudoLabels | None,
    alone: Evaluations,
    calibration: dict[str, Calibration],
    learner: AbstractLearner | None,
    start: float,
) -> Result:
    splits, protocol = drawn.splits, recipe.protocol_in_use
    own = recipe.data.own_paths
    accuracies = {
        prompts: {name: evaluation.accuracy for name, evaluation in by_test.items()}
        for prompts, by_test in evaluations.items()
    }
    predictors = protocol.choose(predictors, accuracies)
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
        learner=recipe.title,
        method=recipe.method,
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
        parameters=_parameters(learner) if learner else 0,
        peak_memory=history.peak_memory,
        seconds=time.monotonic() - start,
        environment=environment(pipeline.clip, data),
        recipe=recipe.shareable().model_dump(mode="json"),
        departures=departing,
    )


def _parameters(learner: AbstractLearner) -> int:
    return sum(parameter.numel() for parameter in learner.parameters())
