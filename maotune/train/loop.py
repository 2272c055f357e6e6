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
from maotune.train.session import Session, TrainingState, restore_prompts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitSettings:
    """Settings of the training loop; epochs and learning rate belong to the stage."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
        "allow_inf_nan": False,
    }

    optimizer: str = "SGD"
    """A class of ``torch.optim``; SGD has momentum 0.9 and weight decay 5e-4 unless the options change them."""
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments, for instance ``{weight_decay: 0}``."""
    decay: Decay = "cosine"
    """The learning rate after the warm-up: ``cosine`` (per epoch) or ``constant``."""
    warmup_epochs: int = 1
    """Epochs of warm-up at the beginning of each stage."""
    warmup_lr: float = 1e-5
    """Learning rate of these epochs."""
    accumulate: int = 1
    """Batches per update; their gradients are averaged."""
    average: GaussianAverage | None = None
    """Average the prompts over the epochs, as PromptSRC does."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints within an epoch; another is written at the end of each epoch."""

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer, self.optimizer_options)
        if self.warmup_epochs < 0 or self.warmup_lr < 0:
            raise ValueError(f"warm-up of {self.warmup_epochs} epochs at {self.warmup_lr}: both must be 0 or more")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}: give the number of batches per update, 1 or more")

    def rate(self, base: float, epoch: int, epochs: int) -> float:
        """Return the learning rate of ``epoch`` (from 0) in a stage of ``epochs`` with learning rate ``base``."""
        return learning_rate(
            base, epoch, epochs, warmup_epochs=self.warmup_epochs, warmup_lr=self.warmup_lr, decay=self.decay
        )


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient became infinite or NaN. The last checkpoint before it is kept.

    Attributes:
        stage, epoch, step: position (epoch from 0, batch of the epoch from 1).
        losses: terms of the loss.
        names: images of the batch.
    """

    def __init__(self, quantity: str, position: StepDone, names: tuple[str, ...]) -> None:
        self.stage, self.epoch, self.step = position.stage, position.epoch, position.step
        self.losses, self.names = position.losses, names
        terms = ", ".join(f"{name} {value:.4g}" for name, value in position.losses.items())
        super().__init__(
            f"{quantity} is not finite in stage {self.stage!r}, epoch {self.epoch + 1}, batch {self.step} (learning "
            f"rate {position.lr:.3g}; {terms}). In the first batch, suspect the weights of the CLIP: load or download "
            "them again. Else try a lower learning rate, or bf16 or fp32 instead of fp16, or look at the images of the "
            f"batch: {', '.join(names[:3]) or 'not named'}{f' and {len(names) - 3} more' if names[3:] else ''}"
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
    """Tune the prompts of ``learner`` stage by stage, each with a new optimizer and schedule.

    A stage begins with the prompts of the stage before. At the end the learner has the prompts and classes of the last
    stage; the prompts of every stage are in the history and in ``folder/STAGE.safetensors``.

    Args:
        learner: on the device to tune it on.
        stages: one for a published learner, two for MAO.
        settings: optimizer, schedule, averaging.
        folder: for checkpoints and prompts; None: no file is written.
        resume: continue from the checkpoint in ``folder``, where there is one; the result is the same as without the
            interruption (to the bit, on a CPU in fp32).
        seed: of torch's random numbers within the stages; the random state outside does not change.
        scale_loss: scale the loss, so that small gradients do not vanish; needed where the frozen weights are fp16.
        metadata: describes the run (recipe, learner, CLIP), as JSON; saved with prompts and checkpoints.
        deciding: selects the metadata that decide the result and must agree when a run is resumed; default: all.
        on_event: called with each event, for instance by a progress bar.

    Raises:
        TrainingDiverged: the loss or a gradient is not finite.
        CheckpointError: the folder holds a run (and ``resume`` is off), another run, or damaged files.
        KeyboardInterrupt: Ctrl-C; the current update was finished and a checkpoint written.
    """
    device = device_of(learner)
    identity = {"learner": type(learner).__name__, **asdict(settings), "seed": seed, "scale_loss": scale_loss}
    del identity["checkpoint_seconds"]  # no result depends on it
    session = Session(
        folder, stages, identity, metadata or {}, resume=resume, every=settings.checkpoint_seconds, deciding=deciding
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for index, stage in enumerate(stages):
            torch.manual_seed(seed + index)
            learner.bind(stage.classes)
            record = session.record(index, stage)
            if record.prompts is not None:  # finished before an interruption
                restore_prompts(learner, record.prompts)
                continue
            batches = stage.batches(learner.eval())
            _check_stage(learner, stage, len(batches), settings)
            if stage.starts_from is not None:
                start = next(earlier for earlier in stages if earlier.name == stage.starts_from)
                restore_prompts(learner, session.history[start.name].prompts or {}, start.classes)
                learner.bind(stage.classes)
            learner.own()
            tick = time.monotonic()
            learner.prepare(batches)
            record.current.seconds += time.monotonic() - tick
            on_event(StageStarted(stage.name, len(stage.classes), stage.epochs, len(batches), record.batches))
            if not learner.closed_form:
                _tune(_new_state(learner, stage, settings, scale_loss), stage, batches, session, settings, on_event)
            session.history.peak_memory = max(session.history.peak_memory, peak_memory(device))
            session.finish(stage, learner.eval())
            on_event(StageDone(stage.name, record))
    return session.history


def _tune(
    state: TrainingState,
    stage: Stage,
    batches: Batches,
    session: Session,
    settings: FitSettings,
    on_event: Callable[[Event], None],
) -> None:
    """Do the remaining epochs of a stage."""
    record = session.history[stage.name]
    session.restore(state)
    state.learner.train()
    with deferred_interrupt() as interrupted:
        while len(record.epochs) < stage.epochs:
            for step in _steps(state, stage, batches, record, settings):
                on_event(step)
                if interrupted() or session.due():
                    session.save(state)
                if interrupted():
                    raise KeyboardInterrupt
            if state.average:
                state.average.add(len(record.epochs))
            record.close_epoch()
            session.save(state)
            on_event(EpochDone(stage.name, len(record.epochs) - 1, record.epochs[-1]))
    if state.average:
        state.average.apply()


def _steps(
    state: TrainingState, stage: Stage, batches: Batches, record: StageRecord, settings: FitSettings
) -> Iterator[StepDone]:
    """Do the remaining updates of the current epoch one by one."""
    learner, optimizer, scaler = state.learner, state.optimizer, state.scaler
    device, epoch, current = device_of(learner), len(record.epochs), record.current
    current.lr = settings.rate(stage.lr, epoch, stage.epochs)
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(stage.lr * group["lr_factor"], epoch, stage.epochs)
    tick = time.monotonic()
    for batch in batches.epoch(epoch, start=current.batches):
        first = current.batches - current.batches % settings.accumulate
        last = min(first + settings.accumulate, len(batches))
        position = epoch * len(batches) + current.batches
        restricted, only = _restrict(replace(batch, position=position), stage, learner)
        restricted, only = restricted.to(device), None if only is None else only.to(device)
        terms = learner.losses(learner(restricted, only), restricted, stage.classify)
        loss = torch.stack([*terms.values()])  # one transfer from the device for all terms
        scaler.scale(loss.sum() / (last - first)).backward()  # type: ignore[no-untyped-call]
        losses = dict(zip(terms, loss.tolist(), strict=True))
        tock = time.monotonic()
        current.add(losses, len(batch), tock - tick)
        tick = tock
        step = StepDone(stage.name, epoch, current.batches, losses, current.lr, len(batch))
        _check_finite(step, state, batch.names)
        if current.batches == last:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            current.updates += 1
            yield step


def _restrict(batch: Batch, stage: Stage, learner: AbstractLearner) -> tuple[Batch, Tensor | None]:
    """Return the batch with labels that index the classes to encode, and these classes, (H,) or None for all."""
    if not stage.batch_candidates or learner.scores_all_classes:
        return batch, None
    if batch.labels.is_floating_point():
        raise ValueError(
            f"stage {stage.name!r} encodes the classes of each batch alone, and soft labels do not name them: "
            "give one class per image, (B,) int64, or a stage without batch_candidates"
        )
    only, labels = torch.unique(batch.labels, return_inverse=True)
    return replace(batch, labels=labels), only


def _check_finite(step: StepDone, state: TrainingState, names: tuple[str, ...]) -> None:
    if not all(map(math.isfinite, step.losses.values())):
        raise TrainingDiverged("the loss", step, names)
    if state.scaler.is_enabled():
        # An infinite gradient of a scaled loss only halves the scale; below 1 the loss is not scaled up any more.
        finite = state.scaler.get_scale() >= 1
    else:
        gradients = [p.grad for p in state.learner.parameters() if p.grad is not None]
        finite = math.isfinite(torch.nn.utils.get_total_norm(gradients).item())
    if not finite:
        raise TrainingDiverged("the gradient", step, names)


def _new_state(learner: AbstractLearner, stage: Stage, settings: FitSettings, scale_loss: bool) -> TrainingState:
    optimizer = build_optimizer(learner, settings.optimizer, settings.optimizer_options)
    optimizer.zero_grad()
    average = RunningAverage(learner, settings.average.weights(stage.epochs)) if settings.average else None
    return TrainingState(learner, optimizer, GradScaler(device_of(learner).type, enabled=scale_loss), average)


def _check_stage(learner: AbstractLearner, stage: Stage, batches: int, settings: FitSettings) -> None:
    if batches < 1:
        raise ValueError(f"stage {stage.name!r} has no batches: it has no image to learn from")
    if learner.closed_form:
        if stage.epochs:
            raise ValueError(
                f"stage {stage.name!r} has {stage.epochs} epochs, and {type(learner).__name__} is computed in closed "
                "form: give 0"
            )
        return
    if stage.epochs < 1:
        raise ValueError(f"stage {stage.name!r} has {stage.epochs} epochs: give 1 or more, or no such stage")
    if stage.epochs <= settings.warmup_epochs:
        log.warning(
            "All %d epochs of stage %s are warm-up at learning rate %g, at which almost nothing is learned: "
            "use more epochs, or set warmup_epochs to 0.",
            stage.epochs, stage.name, settings.warmup_lr,
        )  # fmt: skip
