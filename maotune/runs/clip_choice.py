"""Which CLIP sees images of one's own where none is named, and how much it knows of them."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from maotune.clip.load import PHOTO_CLIP, PHOTO_CLIP_SIZE, find_photo_clip
from maotune.data.sets.catalog import names
from maotune.data.sets.dataset import Sample
from maotune.data.sets.hub import PREFIX
from maotune.learners.zeroshot import ZeroShot
from maotune.protocols.protocol import Splits, Test
from maotune.recipe.schema import Recipe, RecipeError
from maotune.runs.build import templates_of
from maotune.runs.pipeline import Pipeline

log = logging.getLogger(__name__)

ICONS_ONLY = (
    "no CLIP is named for the images of {source}, and IconCLIP, which ships with maotune, knows icons only, no "
    f"photographs. For photographs give --clip {PHOTO_CLIP} (in Python clip__source), a download of {PHOTO_CLIP_SIZE}; "
    "for icons and plain drawings --clip iconclip"
)
LITTLE = 0.1
"""Accuracy above chance, as a share of what there is above it, below which a model knows nothing of a domain."""


def choose_clip(
    recipe: Recipe, accept_icons: Callable[[str], bool] = lambda warning: False, *, in_memory: bool = False
) -> str | None:
    """Return the CLIP for the images of a recipe that names none.

    None where it names one, where the images are icons, or where there are none, which is an error of its own.

    Args:
        recipe: as it was asked for.
        accept_icons: called with a warning; says whether IconCLIP is to be used all the same.
        in_memory: whether the images are, and not where the recipe says.

    Raises:
        RecipeError: no CLIP of photographs is in the local cache, and IconCLIP is not accepted.
    """
    source = recipe.data.source
    there = in_memory or source in names() or source.startswith(PREFIX) or Path(source).expanduser().exists()
    if not (there and recipe.icon_model_by_default):
        return None
    if found := find_photo_clip():
        log.info("%s from the local cache sees the images of %s (--clip names another)", found, source)
        return found
    warning = ICONS_ONLY.format(source=source)
    if not accept_icons(warning):
        raise RecipeError(warning)
    return "iconclip"


def images_to_check(recipe: Recipe, splits: Splits) -> Sequence[Sample]:
    """Return the images that tell whether the model knows their domain: the labelled ones of own data, else none."""
    return () if recipe.data.source in names() else splits.shots


def warn_of_domain(recipe: Recipe, pipeline: Pipeline, splits: Splits) -> str | None:
    """Return a warning where zero-shot CLIP is hardly better than chance on ``images_to_check``.

    The measure is the mean over the classes, which is 1 / C for any model that guesses, however often classes occur.
    """
    if not images_to_check(recipe, splits):
        return None
    learner = ZeroShot(pipeline.clip, splits.classes, templates=templates_of(recipe, splits.templates))
    evaluation = pipeline.score(learner, Test(splits.classes, splits.shots))
    chance = 1 / len(splits.classes)
    known = evaluation.mean_per_class / 100
    noise = 2 * math.sqrt(chance * (1 - chance) / len(splits.shots))
    if known - chance >= max(LITTLE * (1 - chance), noise):
        return None
    return (
        f"zero-shot CLIP recognises {100 * known:.0f} % of the {len(splits.shots)} labelled images, where guessing "
        f"gives {100 * chance:.0f} %: this model ({pipeline.clip.name}) knows nothing of such images, or of these "
        "class names. Give names that a caption would use (--classes), or another CLIP (--clip)"
    )
