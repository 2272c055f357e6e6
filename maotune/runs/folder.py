"""Folders of runs: a folder holds the run whose recipe it has recorded, whatever its name."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from maotune.data.sets.catalog import names
from maotune.files import DamagedFile, LockTaken, lock, read_json
from maotune.recipe.schema import OWN_TEXT, Recipe
from maotune.runs.build import build_splits
from maotune.runs.result import RESULT, Result, is_finished
from maotune.train.session import CHECKPOINT, CheckpointError, read_metadata

log = logging.getLogger(__name__)

RECIPE = "recipe.json"
"""File of a run's folder that says what is run there."""
LOCK = "lock"
"""Lock file, held by the process that runs what is in the folder."""
LOCK_TIMEOUT = 1.0
"""Seconds to wait for the lock: its holder may be about to end, or only be checking the lock."""


def find_run_folder(parent: Path, recipe: Recipe) -> Path:
    """Return the folder below ``parent`` that holds the run of ``recipe``, or one for it that is not there yet.

    The recorded recipe decides and not the folder's name: names leave out settings at their defaults, which may have
    been others when the folder was made. What decides no result (``Recipe.deciding``) is not compared.
    """
    named = parent / recipe.slug
    recorded = recorded_recipe(named)
    if recorded is not None and same_run(recipe, recorded):
        return named
    for folder in sorted(parent.glob(f"{recipe.title_and_seed}-*")):
        if folder != named and _holds(folder, recipe):
            return folder
    if recorded is None:
        return named
    numbered = (parent / f"{named.name}-{number}" for number in itertools.count(2))
    return next(folder for folder in numbered if recorded_recipe(folder) is None)


def _holds(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder of another name holds the run; one whose record is damaged does not, and disturbs no other."""
    try:
        recorded = recorded_recipe(folder)
    except CheckpointError:
        return False
    return recorded is not None and same_run(recipe, recorded)


def reusable_result(folder: Path, recipe: Recipe) -> Result | None:
    """Return the result of a finished run in ``folder`` (``find_run_folder``); None where it is not finished.

    Images of a shipped set never change. Own images do, and public sets may lie elsewhere now: they are compared by
    content with those that were tuned on and scored.

    Raises:
        CheckpointError: the images, their labels or the class names are not those of the run any more.
    """
    result = Result.find(folder) if is_finished(folder) else None
    if result is None:
        return None
    data, recorded = recipe.data, Recipe.from_record(result.recipe).data
    fingerprint = result.environment.get("data", {}).get("fingerprint")
    changeable = data.source not in names() or data.root != recorded.root
    if changeable and fingerprint not in (None, build_splits(recipe).splits.fingerprint()):
        raise CheckpointError(
            f"{folder} holds this run on other data: images, labels or class names of {data.source} have changed since "
            f"then. To tune on what is there now, choose another --folder for runs, or delete {folder}"
        )
    return result


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
    first, second = requested.deciding(), recorded.deciding()
    for key, value in first["learner"].items():
        if value == OWN_TEXT and key in second["learner"]:
            second["learner"][key] = OWN_TEXT
    return first == second


def identity(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint as far as they decide the result, also where an older version wrote them."""
    return {**metadata, "recipe": Recipe.from_record(metadata["recipe"]).deciding()}
