"""Suites: the data sets that a table has in common."""

from collections.abc import Mapping
from pathlib import Path

from maotune.data.sets import icons
from maotune.data.sets.named import named_sets, sets_of
from maotune.recipe.schema import Recipe, RecipeError, choose

SUITES: Mapping[str, tuple[str, ...]] = {
    "icons-11": icons.SETS,
    "icons-shifts": icons.SHIFTS,
    "coop-11": sets_of("coop-11"),
}
"""By name: the shipped suite; the shipped sets in another domain; and the paper's sets, below ``data.root``."""


def find_suite(suite: str) -> tuple[str, ...]:
    """Return the data sets of the suite of that name.

    Raises:
        RecipeError: no such suite.
    """
    return SUITES[choose("suite", suite, SUITES)]


def targets_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the data sets that cross-dataset scores beside the source.

    Unless ``data.targets`` names them: the other sets of the source's suite, and those in another domain. These are,
    for icons-generic, coloured emoji, flags, logos and clip art; for ImageNet, its classes in other pictures
    (ImageNetV2, -Sketch, -A, -R), where they are below ``data.root``.

    Raises:
        RecipeError: the source is in no suite, and no target is named.
    """
    data = recipe.data
    if data.targets is not None:
        return data.targets
    for suite in SUITES.values():
        if data.source in suite:
            others = tuple(name for name in suite if name != data.source)
            shifted = sets_of("imagenet-shifts") if data.source == "imagenet" and data.root else ()
            there = tuple(name for name in shifted if (Path(data.root or ".") / named_sets()[name].folder).is_dir())
            return others + there + (icons.SHIFTS if data.source == "icons-generic" else ())
    raise RecipeError(
        f"{data.source} is in no suite ({', '.join(SUITES)}), so there are no other sets to score: name some, as in "
        "data.targets=[icons-places,icons-work]"
    )
