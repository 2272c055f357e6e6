"""Sweeps on disk: a manifest, and a folder per trial."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maotune.files import DamagedFile, LockTaken, lock, read_json, remove_leftovers, write_json
from maotune.mao.methods import METHODS
from maotune.recipe import Recipe
from maotune.runs.folder import RECIPE
from maotune.runs.predictions import Scoring
from maotune.runs.result import RESULT, Result
from maotune.train.session import CheckpointError

log = logging.getLogger(__name__)

MANIFEST = "sweep.json"
PLANNING = "lock"
"""Lock file, held while a manifest is read, extended and written."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. Its folder is known by its recipe, so the same run is never done twice."""

    folder: Path
    experiment: str
    """Name of the table or figure that it belongs to."""
    variant: str
    """Variant of the experiment; empty where there is only one."""
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name

    def result(self) -> Result | None:
        """Read the result; None before the trial is finished."""
        return Result.find(self.folder)

    def scoring(self) -> Scoring | None:
        """Read the per-image predictions; None before the trial is finished."""
        return Scoring.find(self.folder)


@dataclass(frozen=True)
class Sweep:
    """The trials of a folder, and the commands that planned them."""

    folder: Path
    trials: Sequence[Trial]
    commands: Sequence[str] = ()
    refused: Mapping[Path, str] = field(default_factory=dict)
    """Folders that hold something else than their trial, so that it cannot be run there, and what they hold."""

    @classmethod
    def read(cls, folder: Path) -> "Sweep":
        """Read the sweep in ``folder``; a folder of ``maotune train`` runs counts as one, too.

        Raises:
            CheckpointError: there is neither, or the manifest cannot be read.
        """
        manifest = folder / MANIFEST
        if not manifest.exists():
            trials = tuple(sorted(_found(folder), key=_place))
            if not trials:
                raise CheckpointError(
                    f"{folder} holds no {MANIFEST} and no finished run: give the folder of `maotune run` or "
                    "`maotune train`"
                )
            return cls(folder, trials)
        try:
            tree = read_json(manifest)
            names = [entry["name"] for entry in tree["trials"]]
            if strange := [name for name in names if name in ("", "..") or Path(name).name != name]:
                raise ValueError(f"{strange[0]!r} is no name of a folder in it")
            trials = tuple(
                Trial(
                    folder / entry["name"], entry["experiment"], entry["variant"], Recipe.from_record(entry["recipe"])
                )
                for entry in tree["trials"]
            )
            return cls(folder, trials, tuple(tree["commands"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{manifest} was not written by this version of maotune ({error}): choose another folder; or move it, "
                "and the same commands plan their trials again and keep what is finished"
            ) from error

    @classmethod
    def plan(cls, folder: Path, trials: Iterable[Trial], command: str) -> "Sweep":
        """Add ``trials`` to the sweep in ``folder``, which is created if missing; safe with several processes.

        The manifest is written last: where it names a trial, the trial's folder and recipe are there.

        Raises:
            CheckpointError: the folders of all trials hold other runs, or the manifest cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with lock(folder / PLANNING, patience=60):
                before = cls.read(folder) if (folder / MANIFEST).exists() else cls(folder, ())
                return before.extended(trials, command).save()
        except LockTaken as error:
            raise CheckpointError(
                f"{error}, which has been planning for a minute: try again when it has ended"
            ) from error

    def extended(self, trials: Iterable[Trial], command: str) -> "Sweep":
        """Return the sweep with more trials; trials that it has already are not added again."""
        recorded = {(trial.experiment, trial.variant, trial.name): trial for trial in self.trials}
        for trial in trials:
            recorded.setdefault((trial.experiment, trial.variant, trial.name), trial)
        commands = dict.fromkeys((*self.commands, *([command] if command else ())))
        return Sweep(self.folder, tuple(recorded.values()), tuple(commands))

    def save(self) -> "Sweep":
        """Write the recipe of every trial, where it is missing, and the manifest; return the sweep with its refusals.

        Raises:
            CheckpointError: every folder holds another run, of the same name.
        """
        entries: list[dict[str, Any]] = []
        refused: dict[Path, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        for trial in self.trials:
            tree = trial.recipe.model_dump(mode="json")
            about = {"name": trial.name, "experiment": trial.experiment, "variant": trial.variant}
            entries.append({**about, "recipe": tree})
            try:
                trial.folder.mkdir(exist_ok=True)
                _record(trial, tree)
            except (CheckpointError, OSError) as error:
                refused[trial.folder] = str(error)
        if len(refused) == len({trial.folder for trial in self.trials}) > 0:
            raise CheckpointError("; ".join(refused.values()))
        write_json(self.folder / MANIFEST, {"commands": list(self.commands), "trials": entries})
        return replace(self, refused=refused)


def _found(folder: Path) -> Iterable[Trial]:
    """Yield finished runs in ``folder`` itself and directly below; those whose results cannot be read are left out."""
    for path in sorted([*folder.glob(RESULT), *folder.glob(f"*/{RESULT}")]):
        try:
            if (result := Result.find(path.parent)) is not None:
                yield Trial(path.parent, result.protocol, "", Recipe.from_record(result.recipe))
        except ValueError as error:
            log.warning("%s is left out: %s", path.parent, error)


def _place(trial: Trial) -> tuple[str, str, int]:
    """Return a key that sorts runs as an experiment plans them: what is compared with comes before MAO."""
    return trial.recipe.data.source, trial.recipe.title, [*METHODS].index(trial.recipe.method)


def _record(trial: Trial, tree: Any) -> None:
    """Write the recipe of a trial, where it is missing or damaged.

    Raises:
        CheckpointError: the folder holds another run.
    """
    path = trial.folder / RECIPE
    try:
        recorded = read_json(path)
        was = Recipe.from_record(recorded).model_copy(update={"name": trial.recipe.name})  # older ones kept no name
        if recorded == tree or was == trial.recipe:
            return
    except FileNotFoundError:
        write_json(path, tree)
        return
    except DamagedFile as error:
        log.warning("%s: it is written again", error)
        write_json(path, tree)
        return
    except ValueError as error:
        raise CheckpointError(
            f"{path} is no recipe of this version of maotune ({error}): choose another folder, or delete {path.parent}"
        ) from error
    raise CheckpointError(f"{path} holds other settings than those asked for now: choose another folder")
