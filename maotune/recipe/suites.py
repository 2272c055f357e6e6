"""Suites: the data sets that a table has in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maotune.data.sets import icons
from maotune.data.sets.named import named_sets, sets_of
from maotune.recipe.schema import Recipe, RecipeError, choose


class Suite(NamedTuple):
    """Data sets that a table has in common."""

    sets: tuple[str, ...]
    settings: Mapping[str, Any] = {}
    """Defaults of the recipe for ``maotune run``, which make the whole suite affordable."""


SUITES: Mapping[str, Suite] = {
    "icons-11": Suite(icons.SETS, {"data.shots": 8, "epochs": 10}),
    "coop-11": Suite(sets_of("coop-11")),
}
"""By name. icons-11 with half of the shots and epochs: three learners, three seeds and all controls within three hours
on two cores. coop-11 are the paper's, below ``data.root``."""


def find_suite(suite: str) -> Suite:
    """Return the suite of that name.

    Raises:
        RecipeError: no such suite.
    """
    return SUITES[choose("suite", suite, SUITES)]


def targets_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the data sets that cross-dataset scores beside the source.

    Unless ``data.targets`` names them: the other sets of the source's suite, and those that show its classes in other
    pictures (ImageNetV2, -Sketch, -A, -R), where they are below ``data.root``.

    Raises:
        RecipeError: the source is in no suite, and no target is named.
    """
    data = recipe.data
    if data.targets is not None:
        return data.targets
    for suite in SUITES.values():
        if data.source in suite.sets:
            others = tuple(name for name in suite.sets if name != data.source)
            shifted = sets_of("imagenet-shifts") if data.source == "imagenet" and data.root else ()
            there = tuple(name for name in shifted if (Path(data.root or ".") / named_sets()[name].folder).is_dir())
            return others + there
    raise RecipeError(
        f"{data.source} is in no suite ({', '.join(SUITES)}), so there are no other sets to score: name some, as in "
        "data.targets=[icons-food,icons-weather]"
    )
