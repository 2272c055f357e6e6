"""The training loop."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from maotune.contract import AbstractLearner, Batch, Batches, Stage
from maotune.train.averaging import GaussianAverage, RunningAverage
from maotune.train.device import device_of, peak_memory
from maotune.train.history import EpochDone, Event, History, StageDone, StageRecord, StageStarted, StepDone
from maotune.train.interrupt import deferred_interrupt
from maotune.train.optimizer import build_optimizer, check_optimizer
from maotune.train.schedule import Decay, learning_rate
from maotune.train.session import Run, Training, restore_prompts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitSettings:
    """How prompts are tuned, apart from the epochs and the learning rate, which are the stage's."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    optimizer: str = "SGD"
    """A class of ``torch.optim``; SGD has momentum 0.9 and weight decay 5e-4 unless the options say otherwise."""
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments, for instance ``{weight_decay: 0}``."""
    decay: Decay = "cosine"
    """What the learning rate does after the warm-up: ``cosine`` (epoch-wise) or ``constant``."""
    warmup_epochs: int = 1
    """Epochs at ``warmup_lr``, at the beginning of each stage."""
    warmup_lr: float = 1e-5
    """The learning rate of these epochs."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one update."""
    average: GaussianAverage | None = None
    """Average the prompts over the epochs, as PromptSRC does."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints within an epoch; there is one at the end of each epoch anyway."""

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer, self.optimizer_options)
        if self.warmup_epochs < 0 or self.warmup_lr < 0:
            raise ValueError(f"warm-up of {self.warmup_epochs} epochs at {self.warmup_lr}: both must be 0 or more")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}: give the number of batches for an update, 1 or more")

    def rate(self, base: float, epoch: int, epochs: int) -> float:
        """The learning rate of ``epoch`` (from 0) in a stage of ``epochs`` with learning rate ``base``."""
        return learning_rate(
            base, epoch, epochs, warmup_epochs=self.warmup_epochs, warmup_lr=self.warmup_lr, decay=self.decay
        )


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient became infinite or NaN. The last checkpoint, from before, is kept.

    Attributes:
        stage, epoch, step: where (epoch from 0, batch of the epoch from 1).
        losses: the terms of the loss.
        names: the images of the batch.
    """

    def __init__(self, what: str, at: StepDone, names: tuple[str, ...]) -> None:
        self.stage, self.epoch, self.step, self.losses, self.names = at.stage, at.epoch, at.step, at.losses, names
        terms = ", ".join(f"{name} {value:.4g}" for name, value in at.losses.items())
        super().__init__(
            f"{what} is not finite in stage {at.stage!r}, epoch {at.epoch + 1}, batch {at.step} (learning rate "
            f"{at.lr:.3g}; {terms}). Images of the batch: {', '.join(names) or 'not named'}. "
            "Try a lower learning rate, bf16 or fp32 instead of fp16, or look at these images"
        )


def fit(
    learner: AbstractLearner,
    stages: Sequence[Stage],
    settings: FitSettings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    seed: int = 1,
    scale_loss: bool = False,
    metadata: Mapping[str, Any] | None = None,
    deciding: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    on_event: Callable[[Event], None] = lambda event: None,
) -> History:
    """Tune the prompts of ``learner``, one stage after the other, each with a fresh optimizer and schedule.

    A stage begins with the prompts of the one before. The learner is left with those of the last stage, bound to its
    classes; the prompts of every stage are in the history, and in ``folder/STAGE.safetensors``.

    Args:
        learner: on the device on which it shall be tuned.
        stages: one for a published learner, two for MAO.
        settings: optimizer, schedule, averaging.
        folder: for checkpoints and prompts; None: nothing is written.
        resume: go on from the checkpoint in ``folder``, where there is one, to the same numbers (bit for bit on a CPU
            in fp32) as without the interruption.
        seed: of torch's random numbers within the stages; the state outside is left as it was.
        scale_loss: scale the loss so that small gradients survive; needed where the frozen weights are fp16.
        metadata: what the run is (recipe, learner, CLIP), as JSON can hold it: saved with prompts and checkpoints, and
            the same when a run is resumed.
        deciding: what of the metadata decides the result, and so must be the same when a run is resumed; default: all.
        on_event: called with each event; a progress bar, for instance.

    Raises:
        TrainingDiverged: the loss or a gradient is not finite.
        CheckpointError: the folder holds a run (and ``resume`` is off), another run, or damaged files.
        KeyboardInterrupt: Ctrl-C, after the update under way and a checkpoint.
    """
    device = device_of(learner)
    identity = {"learner": type(learner).__name__, **asdict(settings), "seed": seed, "scale_loss": scale_loss}
    del identity["checkpoint_seconds"]  # decides nothing about the result
    run = Run(
        folder, stages, identity, metadata or {}, resume=resume, every=settings.checkpoint_seconds, deciding=deciding
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for index, stage in enumerate(stages):
            torch.manual_seed(seed + index)
            learner.bind(stage.classes)
            record = run.record(index, stage)
            if record.prompts is not None:  # finished before an interruption
                restore_prompts(learner, record.prompts)
                continue
            batches = stage.batches(learner.eval())
            _check_stage(stage, len(batches), settings)
            training = _training(learner, stage, settings, scale_loss)
            run.restore(training)
            on_event(StageStarted(stage.name, len(stage.classes), stage.epochs, len(batches), record.batches))
            learner.train()
            with deferred_interrupt() as interrupted:
                while len(record.epochs) < stage.epochs:
                    for step in _steps(training, stage, batches, record, settings):
                        on_event(step)
                        if interrupted() or run.due():
                            run.save(training)
                        if interrupted():
                            raise KeyboardInterrupt
                    if training.average:
                        training.average.add(len(record.epochs))
                    record.close_epoch()
                    run.save(training)
                    on_event(EpochDone(stage.name, len(record.epochs) - 1, record.epochs[-1]))
            if training.average:
                training.average.apply()
            run.history.peak_memory = max(run.history.peak_memory, peak_memory(device))
            run.finish(stage, learner.eval())
            on_event(StageDone(stage.name, record))
    return run.history


def _steps(
    training: Training, stage: Stage, batches: Batches, record: StageRecord, settings: FitSettings
) -> Iterator[StepDone]:
    """Update by update through what is left of the epoch under way."""
    learner, optimizer, scaler = training.learner, training.optimizer, training.scaler
    device, epoch, current = device_of(learner), len(record.epochs), record.current
    current.lr = settings.rate(stage.lr, epoch, stage.epochs)
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(stage.lr * group["lr_factor"], epoch, stage.epochs)
    tick = time.monotonic()
    for batch in batches.epoch(epoch, start=current.batches):
        first = current.batches - current.batches % settings.accumulate
        last = min(first + settings.accumulate, len(batches))
        seen, only = _restrict(batch, stage, learner)
        seen, only = seen.to(device), None if only is None else only.to(device)
        terms = learner.losses(learner(seen, only), seen, stage.classify)
        loss = torch.stack([*terms.values()])  # one transfer from the device for all terms
        scaler.scale(loss.sum() / (last - first)).backward()  # type: ignore[no-untyped-call]
        losses = dict(zip(terms, loss.tolist(), strict=True))
        tock = time.monotonic()
        current.add(losses, len(batch), tock - tick)
        tick = tock
        step = StepDone(stage.name, epoch, current.batches, losses, current.lr, len(batch))
        _check_finite(step, training, batch.names)
        if current.batches == last:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            current.updates += 1
            yield step


def _restrict(batch: Batch, stage: Stage, learner: AbstractLearner) -> tuple[Batch, Tensor | None]:
    """The classes that must be encoded, (H,) or None for all, and the batch with its labels counted among them."""
    if not stage.batch_candidates or learner.scores_all_classes:
        return batch, None
    if batch.labels.is_floating_point():
        raise ValueError(
            f"stage {stage.name!r} encodes the classes of each batch alone, and soft labels do not name them: "
            "give one class per image, (B,) int64, or a stage without batch_candidates"
        )
    only, labels = torch.unique(batch.labels, return_inverse=True)
    return replace(batch, labels=labels), only


def _check_finite(step: StepDone, training: Training, names: tuple[str, ...]) -> None:
    if not all(map(math.isfinite, step.losses.values())):
        raise TrainingDiverged("the loss", step, names)
    if training.scaler.is_enabled():
        # An infinite gradient of a scaled loss is no harm, the scale is halved; but below 1 nothing is scaled up.
        finite = training.scaler.get_scale() >= 1
    else:
        gradients = [p.grad for p in training.learner.parameters() if p.grad is not None]
        finite = math.isfinite(torch.nn.utils.get_total_norm(gradients).item())
    if not finite:
        raise TrainingDiverged("the gradient", step, names)


def _training(learner: AbstractLearner, stage: Stage, settings: FitSettings, scale_loss: bool) -> Training:
    optimizer = build_optimizer(learner, settings.optimizer, settings.optimizer_options)
    optimizer.zero_grad()
    average = RunningAverage(learner, settings.average.weights(stage.epochs)) if settings.average else None
    return Training(learner, optimizer, GradScaler(device_of(learner).type, enabled=scale_loss), average)


def _check_stage(stage: Stage, batches: int, settings: FitSettings) -> None:
    if stage.epochs < 1:
        raise ValueError(f"stage {stage.name!r} has {stage.epochs} epochs: give 1 or more, or leave the stage out")
    if batches < 1:
        raise ValueError(f"stage {stage.name!r} has no batches: it has no image to learn from")
    if stage.epochs <= settings.warmup_epochs:
        log.warning(
            "All %d epochs of stage %s are warm-up at learning rate %g, at which next to nothing is learned: "
            "take more epochs, or set warmup_epochs to 0.",
            stage.epochs, stage.name, settings.warmup_lr,
        )  # fmt: skip
