"""Tune one recipe on given images, and score what its stages have tuned."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from maotune.contract import AbstractLearner, mixture_weights
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.methods import ZEROSHOT, build_stages, check_learner, predictors_of
from maotune.mao.name_encoder import find_encoder
from maotune.mao.pseudo_labels import PseudoLabelStore
from maotune.mao.stages import Task
from maotune.protocols.protocol import CROSS_VALIDATED, Splits, Test
from maotune.recipe.schema import Recipe
from maotune.runs.build import build_learner, labeler_templates, templates_of, with_own_texts
from maotune.runs.fingerprint import DataRecord
from maotune.runs.folder import identity
from maotune.runs.mixing import StagePrompts, with_prompts
from maotune.runs.pipeline import Pipeline
from maotune.runs.tuned import open_run
from maotune.train.evaluate import Evaluation
from maotune.train.history import Event, History
from maotune.train.loop import fit


class Fitting:
    """The learner and the stages of a recipe, on given images."""

    def __init__(
        self, recipe: Recipe, pipeline: Pipeline, splits: Splits, pseudo_labels: PseudoLabelStore | None = None
    ) -> None:
        self.recipe = recipe = with_own_texts(recipe, splits.templates[0])
        self.pipeline, self.splits = pipeline, splits
        torch.manual_seed(recipe.seed)
        self.learner = build_learner(recipe, pipeline.clip, splits.classes, open_run)
        check_learner(recipe.method, self.learner)
        self.task = mao_task(recipe, pipeline, splits, pseudo_labels or PseudoLabelStore())
        task = replace(self.task, epochs=0) if self.learner.closed_form else self.task
        self.stages = build_stages(recipe.method, task, recipe.mao)
        self.predictors = predictors_of(recipe.method, task, recipe.mao)
        compares = any(stage.name == "base" for stage in self.stages)
        self.encoder = find_encoder(recipe.mao.name_encoder) if compares else None
        """Of class names, where a stage compares them."""

    def fit(
        self,
        folder: Path | None,
        data: DataRecord,
        *,
        resume: bool = False,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> History:
        """Tune stage by stage; see ``train.loop.fit``. ``data`` describes the images, for the files that are saved."""
        if not self.stages:
            return History()
        clip = self.pipeline.clip
        return fit(
            self.learner,
            self.stages,
            self.recipe.train,
            folder=folder,
            resume=resume,
            seed=self.recipe.seed,
            scale_loss=clip.dtype == torch.float16,
            metadata={
                "recipe": self.recipe.shareable().model_dump(mode="json"),
                "clip": clip.fingerprint,
                "preprocess": clip.preprocess.fingerprint,
                "data": data,
                **({"name_encoder": self.encoder.content} if self.encoder else {}),
            },
            deciding=identity,
            on_event=on_event,
        )

    def score(self, history: History) -> dict[str, dict[str, Evaluation]]:
        """Score every test with all prompts (``tuned``), but for one that the fits of its folds score."""
        tests = {
            name: test
            for name, test in self.splits.tests.items()
            if not (self.splits.folds and name == CROSS_VALIDATED)
        }
        rivals = _rivals(self.recipe, self.splits)
        return {
            prompts: {name: self.pipeline.score(learner, test, rivals[name]) for name, test in tests.items()}
            for prompts, learner in self.tuned(history)
        }

    def logits(self, history: History, test: Test) -> dict[str, Tensor]:
        """Return the scores (N, C) of the images of a test with all prompts (``tuned``)."""
        scores = {}
        for prompts, learner in self.tuned(history):
            learner.bind(test.classes)
            scores[prompts] = self.pipeline.logits(learner, test.samples)
        return scores

    def prompts(self, history: History) -> dict[str, StagePrompts]:
        """Return what each stage has tuned."""
        return {
            stage.name: StagePrompts(stage.classes, record.prompts or {})
            for stage, record in zip(self.stages, history.stages, strict=True)
        }

    def tuned(self, history: History) -> Iterator[tuple[str, AbstractLearner]]:
        """Yield the learner with the prompts of each stage and, after the last of its stages, of each mixture."""
        stages = self.prompts(history)
        order = [*stages]
        for prompts in (self.predictors.base, self.predictors.new) if stages else ():
            if prompts not in (*order, ZEROSHOT):  # a mixture that predicts
                order.insert(1 + max(order.index(name) for name in mixture_weights(prompts)), prompts)
        for prompts in order:
            yield prompts, with_prompts(self.learner, prompts, stages)


def score_zeroshot(recipe: Recipe, pipeline: Pipeline, splits: Splits) -> dict[str, Evaluation]:
    """Score every test by zero-shot CLIP."""
    rivals = _rivals(recipe, splits)
    zeroshot = ZeroShot(pipeline.clip, splits.classes, templates=templates_of(recipe, splits.templates))
    evaluations: dict[str, Evaluation] = {}
    for name, test in splits.tests.items():
        zeroshot.templates = templates_of(recipe, test.templates or splits.templates)
        evaluations[name] = pipeline.score(zeroshot, test, rivals[name])
    return evaluations


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
        dpc=recipe.dpc,
    )


def _rivals(recipe: Recipe, splits: Splits) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return for each test the classes of the others, where the protocol has a joint vocabulary."""
    tests = splits.tests if recipe.protocol_in_use.joint else {}
    return {name: {other: tests[other].classes for other in tests if other != name} for name in splits.tests}
