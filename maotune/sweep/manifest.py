"""Sweeps on disk: a manifest, and a folder per trial."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maotune.files import LockTaken, lock, write_atomic
from maotune.recipe import Recipe
from maotune.runs.folder import RECIPE
from maotune.runs.predictions import Scoring
from maotune.runs.result import RESULT, Result
from maotune.train.session import CheckpointError

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

    @classmethod
    def read(cls, folder: Path) -> "Sweep":
        """Read the sweep in ``folder``; a folder of ``maotune train`` runs counts as one, too.

        Raises:
            CheckpointError: there is neither, or the manifest cannot be read.
        """
        manifest = folder / MANIFEST
        if not manifest.exists():
            trials = tuple(_found(folder))
            if not trials:
                raise CheckpointError(
                    f"{folder} holds no {MANIFEST} and no finished run: give the folder of `maotune run` or "
                    "`maotune train`"
                )
            return cls(folder, trials)
        try:
            tree = json.loads(manifest.read_text(encoding="utf-8"))
            trials = tuple(
                Trial(
                    folder / entry["name"], entry["experiment"], entry["variant"], Recipe.from_record(entry["recipe"])
                )
                for entry in tree["trials"]
            )
            return cls(folder, trials, tuple(tree["commands"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{manifest} was not written by this version of maotune ({error}): choose another folder, or move it"
            ) from error

    @classmethod
    def plan(cls, folder: Path, trials: Iterable[Trial], command: str) -> "Sweep":
        """Add ``trials`` to the sweep in ``folder``, which is created if missing; safe with several processes.

        The manifest is written last: where it names a trial, the trial's folder and recipe are there.

        Raises:
            CheckpointError: a trial's folder holds another run, or the manifest cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with lock(folder / PLANNING, patience=60):
                before = cls.read(folder) if (folder / MANIFEST).exists() else cls(folder, ())
                sweep = before.extended(trials, command)
                sweep.save()
        except LockTaken as error:
            raise CheckpointError(
                f"{error}, which has been planning for a minute: try again when it has ended"
            ) from error
        return sweep

    def extended(self, trials: Iterable[Trial], command: str) -> "Sweep":
        """Return the sweep with more trials; trials that it has already are not added again."""
        recorded = {(trial.experiment, trial.variant, trial.name): trial for trial in self.trials}
        for trial in trials:
            recorded.setdefault((trial.experiment, trial.variant, trial.name), trial)
        commands = dict.fromkeys((*self.commands, *([command] if command else ())))
        return Sweep(self.folder, tuple(recorded.values()), tuple(commands))

    def save(self) -> None:
        """Write the recipe of every trial, where it is missing, and the manifest.

        Raises:
            CheckpointError: a folder holds another run, of the same name.
        """
        entries: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        for trial in self.trials:
            tree = trial.recipe.model_dump(mode="json")
            about = {"name": trial.name, "experiment": trial.experiment, "variant": trial.variant}
            entries.append({**about, "recipe": tree})
            trial.folder.mkdir(exist_ok=True)
            _write_once(trial.folder / RECIPE, trial.recipe, tree)
        _write(self.folder / MANIFEST, {"commands": list(self.commands), "trials": entries})


def _found(folder: Path) -> Iterable[Trial]:
    """Yield finished runs in ``folder`` itself and directly below."""
    for path in sorted([*folder.glob(RESULT), *folder.glob(f"*/{RESULT}")]):
        result = Result.find(path.parent)
        if result is not None:
            recipe = Recipe.from_record(result.recipe)
            yield Trial(path.parent, result.protocol, "", recipe)


def _write_once(path: Path, recipe: Recipe, tree: Any) -> None:
    if not path.exists():
        _write(path, tree)
        return
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        was = Recipe.from_record(recorded).model_copy(update={"name": recipe.name})  # an older maotune kept no name
        same = recorded == tree or was == recipe
    except ValueError as error:
        raise CheckpointError(
            f"{path} is no recipe of this version of maotune ({error}): choose another folder, or delete {path.parent}"
        ) from error
    if not same:
        raise CheckpointError(f"{path} holds other settings than those asked for now: choose another folder")


def _write(path: Path, tree: Any) -> None:
    write_atomic(path, json.dumps(tree, indent=1) + "\n")
