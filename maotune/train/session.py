"""Files of a run: the prompts of each stage, and a checkpoint from which the run is resumed bit for bit.

Each is one safetensors file with JSON and a checksum in its header, so tensors and JSON always agree. Files are written
atomically. No pickle is written or read.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from maotune.contract import AbstractLearner, Stage
from maotune.files import DamagedFile, parse_json, read_tensors, remove_leftovers, write_atomic, write_tensors
from maotune.train.averaging import RunningAverage
from maotune.train.device import device_of
from maotune.train.history import History, StageRecord

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"
"""Name of the checkpoint file in the folder of a run; names of stages do not begin with it."""
T = TypeVar("T")


class CheckpointError(ValueError):
    """A file of prompts or a checkpoint cannot be used; the message says why."""


class DamagedCheckpoint(CheckpointError):
    """It cannot be read, or lacks parts."""


def save_prompts(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write prompts and ``metadata`` (JSON values) to a file of a few kilobytes."""
    write_tensors(path, tensors, {"prompts": json.dumps(metadata)})


def load_prompts(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata that ``save_prompts`` wrote.

    Raises:
        CheckpointError: the file does not exist or holds no prompts.
    """
    tensors, texts = _read(path)
    if "prompts" not in texts:
        raise DamagedCheckpoint(f"{path} holds no prompts written by maotune")
    with _parts_of(path):
        return tensors, {**parse_json(texts["prompts"], path)}


def restore_prompts(
    learner: AbstractLearner, tensors: Mapping[str, Tensor], classes: Sequence[str] | None = None
) -> None:
    """Set what ``learner`` has learned to ``tensors``; it is left bound to ``classes``.

    Args:
        learner: with the settings and CLIP of the file.
        tensors: of a stage.
        classes: of the stage; default: those that are bound.

    Raises:
        CheckpointError: names, shapes or kinds of numbers differ: the learner has other settings or another CLIP, or it
            is bound to other classes and its prompts are class-specific.
    """
    if classes is not None:
        learner.bind(classes)
    learner.own()
    own = learner.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, here it has {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and not _fits(tensors[name], value, name in learner.varying)
    ]
    problems += [
        f"{name} is {tensors[name].dtype}, here it is {value.dtype}"
        for name, value in own.items()
        if name in tensors and tensors[name].dtype != value.dtype and name not in learner.varying
    ]
    if damaged := [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]:
        raise CheckpointError(f"the saved prompts are damaged: {', '.join(damaged)} hold numbers that are not finite")
    if problems:
        raise CheckpointError(
            f"the saved prompts do not fit this {type(learner).__name__}: {'; '.join(problems)}. "
            "Build the learner with the settings and CLIP of the file, and its classes where prompts are class-specific"
        )
    for name in learner.varying:  # in place: an optimizer may hold the parameter
        module, _, attribute = name.rpartition(".")
        tensor: Tensor = getattr(learner.get_submodule(module), attribute)
        tensor.data = torch.empty_like(tensors[name], device=tensor.device)
    learner.load_state_dict(dict(tensors))


def _fits(given: Tensor, own: Tensor, varying: bool) -> bool:
    """Whether shapes agree; where they vary with the images, in all but the number of these."""
    return given.shape == own.shape or (varying and (given.ndim != own.ndim or given.shape[1:] == own.shape[1:]))


@dataclass
class TrainingState:
    """State of a stage during training: everything that an update changes."""

    learner: AbstractLearner
    optimizer: Optimizer
    scaler: GradScaler
    average: RunningAverage | None

    def tensors(self) -> dict[str, Tensor]:
        """Return prompts, optimizer state, averages and random state by name."""
        tensors = {f"prompt/{name}": value for name, value in self.learner.state_dict().items()}
        tensors |= {name: value for name, value in self._optimizer_state() if isinstance(value, Tensor)}
        tensors |= {f"average/{name}": value for name, value in (self.average.sums if self.average else {}).items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if (device := device_of(self.learner)).type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(device)
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Return the values in the states of optimizer and loss scaling that are no tensors."""
        plain = {name: value for name, value in self._optimizer_state() if not isinstance(value, Tensor)}
        return {"optimizer": plain, "scaler": self.scaler.state_dict()}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Restore a state from the results of ``tensors`` and ``numbers``."""
        restore_prompts(self.learner, _under("prompt/", tensors))
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**_under("optimizer/", tensors), **_under("optimizer/", numbers["optimizer"])}.items():
            index, _, key = name.partition("/")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.scaler.load_state_dict(numbers["scaler"])
        if self.average:
            self.average.restore(_under("average/", tensors))
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and (device := device_of(self.learner)).type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], device)

    def _optimizer_state(self) -> Iterator[tuple[str, Any]]:
        for index, entries in self.optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                yield f"optimizer/{index}/{key}", value


def _under(prefix: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of the run that wrote the checkpoint ``path``; if it is damaged, from that of a stage.

    Raises:
        CheckpointError: no checkpoint, or a damaged one and no good stage.
    """

    def read(path: Path) -> dict[str, Any]:
        _, texts = _read_checkpoint(path)
        with _parts_of(path):
            metadata: dict[str, Any] = parse_json(texts["identity"], path)["metadata"]
            return metadata

    return _first_good([path, *sorted(path.parent.glob(f"{CHECKPOINT}-*.safetensors"))], read)


class Session:
    """Progress of a run, in memory and (if it has a folder) on disk.

    ``checkpoint.safetensors`` is rewritten at the end of each epoch and every ``every`` seconds; ``STAGE.safetensors``
    holds the prompts of a finished stage, and ``checkpoint-STAGE.safetensors`` the checkpoint at its end: if the
    current one is damaged, the run is resumed from the last good stage.

    Args:
        folder: for the files; None: no file is written, and the run cannot be resumed.
        stages: of the run.
        identity: everything that decides the result (settings, seed), as JSON; the same when a run is resumed.
        metadata: describes the run (recipe, CLIP); saved with the prompts, and part of the identity.
        resume: continue from the folder's checkpoint where there is one.
        every: seconds between checkpoints within an epoch.
        deciding: what of the metadata decides the result; applied to a checkpoint's before they are compared.

    Raises:
        CheckpointError: the folder holds another run, or a run and ``resume`` is off, or its files are damaged and no
            stage is whole.
        ValueError: stages whose names are equal or cannot name a file.
    """

    def __init__(
        self,
        folder: Path | None,
        stages: Sequence[Stage],
        identity: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        resume: bool,
        every: float,
        deciding: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        _check_names([stage.name for stage in stages])
        self.folder, self.metadata, self.every, self.deciding = folder, metadata, every, deciding
        self.history = History()
        self._saved: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        described = [
            {key: getattr(stage, key) for key in ("name", "classes", "epochs", "lr", "batch_candidates")}
            for stage in stages
        ]
        # Written once: with many classes the JSON is longer than the tensors.
        self._identity = json.dumps({**identity, "metadata": dict(metadata), "stages": described})
        self._clock = time.monotonic()
        if folder is None:
            return
        if resume:
            remove_leftovers(folder)
        ends = [self._path(f"{CHECKPOINT}-{stage.name}") for stage in reversed(stages)]
        if not self._path(CHECKPOINT).exists():
            for path in ends:
                path.unlink(missing_ok=True)  # of a run that was here before
        elif resume:
            _first_good([self._path(CHECKPOINT), *(path for path in ends if path.exists())], self._open)
        else:
            raise CheckpointError(f"{folder} holds a run already: resume it, or choose another folder")

    def record(self, index: int, stage: Stage) -> StageRecord:
        """Return the record of stage ``index``, a new one if it has not begun."""
        if index == len(self.history.stages):
            self.history.stages.append(StageRecord(stage.name))
        return self.history.stages[index]

    def restore(self, state: TrainingState) -> None:
        """Restore the state of the stage that the checkpoint interrupted; without a checkpoint, do nothing."""
        if self._saved is not None and self._saved[0]:
            with _parts_of(self._path(CHECKPOINT)):
                state.restore(*self._saved)
        self._saved = None

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint."""
        if self.folder is not None:
            self._save(CHECKPOINT, state.tensors(), {"numbers": state.numbers()})

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self._clock >= self.every

    def finish(self, stage: Stage, learner: AbstractLearner) -> None:
        """Keep the prompts of a finished stage: write their file, then checkpoints that refer to it."""
        prompts = {name: value.detach().cpu().clone() for name, value in learner.state_dict().items()}
        self.history[stage.name].prompts = prompts
        if self.folder is not None:
            metadata = {**self.metadata, "stage": stage.name, "classes": list(stage.classes)}
            save_prompts(self._path(stage.name), prompts, metadata)
            self._save(f"{CHECKPOINT}-{stage.name}", {}, {})
            self._save(CHECKPOINT, {}, {})

    def _save(self, name: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        state = {"history": self.history.to_json(), **state, "threads": torch.get_num_threads()}
        write_tensors(self._path(name), tensors, {"identity": self._identity, "state": json.dumps(state)})
        self._clock = time.monotonic()

    def _open(self, path: Path) -> None:
        tensors, texts = _read_checkpoint(path)
        with _parts_of(path):
            was, now = (
                {**identity, "metadata": self.deciding(identity["metadata"])}
                for identity in (parse_json(texts["identity"], path), json.loads(self._identity))
            )
            # What an older version did not record is not compared.
            now["metadata"] = {key: value for key, value in now["metadata"].items() if key in was["metadata"]}
            state = parse_json(texts["state"], path)
            history = History.from_json(state["history"])
        threads = state.get("threads", torch.get_num_threads())  # older versions did not record them
        if threads != torch.get_num_threads():
            log.warning(
                "%s was begun with %s threads and is resumed with %d: on a CPU the result may differ in the last bits "
                "from that of a run without an interruption. For the same bits, set OMP_NUM_THREADS=%s",
                self.folder, threads, torch.get_num_threads(), threads,
            )  # fmt: skip
        if differences := list(_differences(was, now)):
            raise CheckpointError(
                f"{self.folder} holds another run, which cannot be continued as this one: {'; '.join(differences)}. "
                "Give the settings that it was started with, or choose another folder"
            )
        for record in history.stages:
            if record.prompts is not None:
                record.prompts, _ = load_prompts(self._path(record.name))
        self.history, self._saved = history, (tensors, state.get("numbers", {}))
        if path != self._path(CHECKPOINT):
            write_atomic(self._path(CHECKPOINT), path.read_bytes())  # in place of the damaged one

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.safetensors"


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name.startswith(CHECKPOINT) or not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(
                f"stage name {name!r} cannot name a file: use letters, digits, '-', not {CHECKPOINT!r} first"
            )
    if len({*names}) < len(names):
        raise ValueError(f"stages need different names; these were given: {', '.join(names)}")


def _differences(was: Any, now: Any, where: str = "") -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            yield from _differences(was.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            yield f"{where} were {len(was)}, now {len(now)}"
        else:
            pairs = ((w, n, f"{where}.{i}") for i, (w, n) in enumerate(zip(was, now, strict=True)) if w != n)
            for first in pairs:  # the first difference of a long list is enough
                yield from _differences(*first)
                return
    elif was != now:
        yield f"{where} was {was!r}, now {now!r}"


@contextmanager
def _parts_of(path: Path) -> Iterator[None]:
    """Turn what missing parts, and parts of the wrong kinds, cause into one error."""
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise DamagedCheckpoint(f"{path} is damaged: a part is missing or wrong ({error!r:.200})") from error


def _first_good(paths: Sequence[Path], read: Callable[[Path], T]) -> T:
    """Return what ``read`` returns of the first file that is not damaged, the checkpoint or that of a stage's end.

    Raises:
        DamagedCheckpoint: all are; the message is about the first, and says what to do.
    """
    damage: DamagedCheckpoint | None = None
    for path in paths:
        try:
            content = read(path)
        except DamagedCheckpoint as error:
            damage = damage or error
        else:
            if damage is not None:
                log.warning("%s is damaged: the run is resumed from its last good stage (%s)", paths[0], path.name)
            return content
    raise DamagedCheckpoint(
        f"{damage}: take a good copy of it, if there is one; or delete {CHECKPOINT}.safetensors in "
        f"{paths[0].parent} and resume the run, which then begins again"
    ) from damage


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, texts = _read(path)
    if not {"identity", "state"} <= texts.keys():
        raise DamagedCheckpoint(f"{path} is no checkpoint written by maotune")
    return tensors, texts


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        content = read_tensors(path)
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} does not exist") from None
    except DamagedFile as error:
        raise DamagedCheckpoint(
            f"{path} is damaged or no safetensors file ({error.reason}), so it is not used"
        ) from error
    if not content.checked:
        log.info("%s was written by an older version, without a checksum: damage may go unnoticed", path)
    return content.tensors, content.texts
