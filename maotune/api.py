"""The practitioner's functions: tune and load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from maotune.clip import FrozenCLIP
from maotune.data.sets.dataset import Dataset
from maotune.data.sets.tables import FRAME, read_frame
from maotune.recipe import load_recipe
from maotune.runs.clip_choice import choose_clip
from maotune.runs.events import Callback
from maotune.runs.given import refuse_address
from maotune.runs.tune import tune_recipe
from maotune.runs.tuned import Run, load_run

__all__ = ["Run", "load", "tune"]


def tune(
    source: str | Path | pd.DataFrame | None = None,
    *,
    recipe: str | Path | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    callback: Callback | None = None,
    **settings: Any,
) -> Run:
    """Tune prompts and score them.

    Args:
        source: a shipped set, a folder of images, or a table: ``data.source`` of the recipe; or a data frame with
            columns ``path``, ``label``, perhaps ``split``.
        recipe: a YAML file, or the name of a shipped one (``icons/coop``); default: the learner's.
        folder: for prompts, checkpoints and the result; None: nothing is written.
        resume: continue from what is in ``folder``.
        clip: the frozen model, if it has been loaded already.
        callback: called with the plan, stages, steps and progress.
        settings: the recipe's, with ``__`` for the dot: ``method="mao"``, ``seed=2``, ``shots=8``, ``data__views=4``,
            ``learner="kgcoop"``, ``learner__context_length=4``.

    Raises:
        RecipeError: unknown settings or names; or the images are no icons, no CLIP is named, and none is in the cache.
        CheckpointError: ``folder`` holds another run, or this one and ``resume`` is off.
        ValueError: the data cannot be used.
    """
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    own = None
    if isinstance(source, pd.DataFrame):
        asked = load_recipe(recipe, overrides)
        own = read_frame(source, asked.data.root, asked.data.classes, as_words=asked.data.as_words)
        source = FRAME
    if source is not None:
        refuse_address(source)
        overrides["data.source"] = str(source)
    return tune_dataset(own, overrides, recipe, folder, resume=resume, clip=clip, callback=callback)


def tune_dataset(
    own: Dataset | None,
    overrides: Mapping[str, Any],
    recipe: str | Path | None = None,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    callback: Callback | None = None,
) -> Run:
    """``tune`` with settings in dotted keys, and with a data set that is in memory, if there is one."""
    asked = load_recipe(recipe, overrides)
    if clip is None and (name := choose_clip(asked, in_memory=own is not None)):
        asked = load_recipe(recipe, {**overrides, "clip.source": name})
    return tune_recipe(asked, folder, resume=resume, clip=clip, callback=callback, own=own)


load = load_run
