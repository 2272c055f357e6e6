"""Folders of runs: a folder holds the run whose recipe it has recorded, whatever its name."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maotune.files import DamagedFile, LockTaken, lock, read_json, write_json
from maotune.recipe.schema import OWN_TEXT, Recipe
from maotune.runs.fingerprint import DataComparison, DataRecord, data_differences
from maotune.runs.result import RESULT, Result, is_finished
from maotune.train.session import CHECKPOINT, CheckpointError, read_metadata

log = logging.getLogger(__name__)

RECIPE = "recipe.json"
"""File of a run's folder that says what is run there."""
LOCK = "lock"
"""Lock file, held by the process that runs what is in the folder."""
LOCK_TIMEOUT = 1.0
"""Seconds to wait for the lock: its holder may be about to end, or only be checking the lock."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run that is to be reused, resumed or tuned."""

    path: Path
    result: Result | None = None
    """Of the run, where it is finished."""
    before: Path | None = None
    """Where the data have changed: the folder with the same run on the data of before."""
    differences: tuple[str, ...] = ()
    """What differs in the data from those of ``before``."""


def find_run_folder(parent: Path, recipe: Recipe) -> Path:
    """Return the folder below ``parent`` that holds the run of ``recipe``, or one for it that is not there yet.

    The recorded recipe decides and not the folder's name: names leave out settings at their defaults, which may have
    been others when the folder was made. What decides no result (``Recipe.deciding``) is not compared.
    """
    return next(_folders(parent, recipe), None) or _free_folder(parent, recipe)


def choose_run_folder(parent: Path, recipe: Recipe, comparison: DataComparison) -> RunFolder:
    """Return the folder of the run of ``recipe`` on the data that are there now.

    If it has been run on other data only, that is a folder of its own, which is not there yet.
    """
    other: RunFolder | None = None
    for folder in _folders(parent, recipe):
        differences = tuple(comparison.differences(recipe, recorded_data(folder)))
        if not differences:
            return RunFolder(folder, Result.find(folder) if is_finished(folder) else None)
        other = other or RunFolder(_free_folder(parent, recipe), None, folder, differences)
    return other or RunFolder(_free_folder(parent, recipe))


def recorded_data(folder: Path) -> DataRecord | None:
    """Return what the run in ``folder`` has recorded of its data; None where it has not.

    Raises:
        CheckpointError: the record is damaged.
    """
    if is_finished(folder) and (result := Result.find(folder)) is not None:
        record: DataRecord | None = result.environment.get("data")
        return record
    checkpoint = folder / f"{CHECKPOINT}.safetensors"
    return read_metadata(checkpoint).get("data") if checkpoint.exists() else None


def check_data(folder: Path, recipe: Recipe, record: DataRecord) -> None:
    """Refuse to resume the run in ``folder``, if it is that of ``recipe``, on other data than it has recorded.

    Raises:
        CheckpointError: they differ; the message says how.
    """
    before, recorded = recorded_data(folder), recorded_recipe(folder)
    if before is None or recorded is None or not same_run(recipe, recorded):
        return
    if differences := data_differences(before, record):
        raise CheckpointError(
            f"{folder} holds this run on other data, so it cannot be resumed: {'; '.join(differences)}. To tune on "
            "what is there now, choose another folder"
        )


def _folders(parent: Path, recipe: Recipe) -> Iterator[Path]:
    """Yield the folders that hold the run of a recipe, on whatever data, the one that is named after it first."""
    named = parent / recipe.slug
    recorded = recorded_recipe(named)
    if recorded is not None and same_run(recipe, recorded):
        yield named
    for folder in sorted(parent.glob(f"{recipe.title_and_seed}-*")):
        if folder != named and _holds(folder, recipe):
            yield folder


def _free_folder(parent: Path, recipe: Recipe) -> Path:
    names = itertools.chain([recipe.slug], (f"{recipe.slug}-{number}" for number in itertools.count(2)))
    return next(folder for folder in (parent / name for name in names) if recorded_recipe(folder) is None)


def _holds(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder of another name holds the run; one whose record is damaged does not, and disturbs no other."""
    try:
        recorded = recorded_recipe(folder)
    except CheckpointError:
        return False
    return recorded is not None and same_run(recipe, recorded)


def recorded_recipe(folder: Path) -> Recipe | None:
    """Return the recipe of the run in ``folder``; None where there is no run.

    Raises:
        CheckpointError: the record is damaged, or of a version of maotune with other settings.
    """
    for path in (folder / RECIPE, folder / RESULT, folder / f"{CHECKPOINT}.safetensors"):
        try:
            if path.suffix == ".json":
                content = read_json(path)
                return Recipe.from_record(content["recipe"] if path.name == RESULT else content)
            return Recipe.from_record(read_metadata(path)["recipe"]) if path.exists() else None
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            log.warning("%s: the next record of the run counts", error)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} was not written by this version of maotune ({error}): choose another folder, or delete it"
            ) from error
    return None


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from running anything in ``folder``, which is created where it is missing.

    Raises:
        CheckpointError: another process does; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(lock(folder / LOCK, LOCK_TIMEOUT))
        except LockTaken as error:
            raise CheckpointError(f"{error}: wait until it has ended, or choose another folder") from error
        yield


def same_run(requested: Recipe, recorded: Recipe) -> bool:
    """Whether two recipes have the same result; the recorded one has the data set's own texts filled in."""
    second = recorded.deciding()
    for key, value in requested.learner.items():
        if value == OWN_TEXT and key in second["learner"]:
            second["learner"][key] = OWN_TEXT
    return second in (requested.deciding(), requested.shareable().deciding())


def identity(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint as far as they decide the result, also where an older version wrote them.

    The data are not among them: ``tune_and_score`` compares them, in words.
    """
    deciding = {**metadata, "recipe": Recipe.from_record(metadata["recipe"]).shareable().deciding()}
    deciding.pop("data", None)
    return deciding


def keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Write ``recipe.json``, the only file of a run with the folders of its data, where no run has been begun."""
    if not (folder / RECIPE).exists() or not (folder / f"{CHECKPOINT}.safetensors").exists():
        write_json(folder / RECIPE, recipe.model_dump(mode="json"))
