"""The practitioner's functions: tune and load."""

from pathlib import Path
from typing import Any

from maotune.clip import FrozenCLIP
from maotune.recipe import load_recipe
from maotune.runs.clip_choice import choose_clip
from maotune.runs.events import Callback
from maotune.runs.tune import tune_recipe
from maotune.runs.tuned import Run, load_run

__all__ = ["Run", "load", "tune"]


def tune(
    source: str | Path | None = None,
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
        source: a shipped set, a folder of images, or a table: ``data.source`` of the recipe.
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
    if source is not None:
        overrides["data.source"] = str(source)
    asked = load_recipe(recipe, overrides)
    if clip is None and (name := choose_clip(asked)):
        asked = load_recipe(recipe, {**overrides, "clip.source": name})
    return tune_recipe(asked, folder, resume=resume, clip=clip, callback=callback)


load = load_run
