"""Where the settings of a recipe depart from the paper's."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from maotune.recipe.describe import flat, shown
from maotune.recipe.load import load_recipe, shipped_recipes
from maotune.recipe.schema import Recipe, learner_settings

PAPER = "vit-b16"
"""Folder of the recipes with the paper's settings."""
MODELS = ("ViT-B/16", "openai/clip-vit-base-patch16")
"""Names of the paper's model."""
TASK = frozenset(
    {"protocol", "method", "seed", "clip.dtype", "clip.activation_checkpointing", "data.strict"}
    | {f"data.{key}" for key in ("source", "classes", "unlabelled", "targets", "as_words")}
)
"""Settings that are no departure: what is tuned on which data, and how it is computed."""

Departures = dict[str, dict[str, Any]]
"""Setting with a dotted key -> its value ``here`` and in the ``paper``, as JSON can hold them."""


def departures(recipe: Recipe) -> Departures:
    """Return the settings in which a recipe differs from the paper's recipe for its learner and protocol."""
    name = f"{PAPER}/{recipe.learner_name}"
    known = name in shipped_recipes()
    paper = load_recipe(name if known else f"{PAPER}/coop", {"protocol": recipe.protocol})
    if not known:  # a learner that the paper does not have
        paper = paper.model_copy(update={"learner": recipe.learner})
    ours, theirs = _settings(recipe), _settings(paper)
    keys = [key for key in dict.fromkeys((*ours, *theirs)) if key not in TASK and ours.get(key) != theirs.get(key)]
    if recipe.clip.source in MODELS:
        keys = [key for key in keys if key != "clip.source"]
    return {key: {"here": ours.get(key), "paper": theirs.get(key)} for key in keys}


def in_words(names: Iterable[str], departing: Mapping[str, Mapping[str, Any]]) -> str:
    """Write which recipes are run, by name, and where their settings depart from the paper's."""
    which = ", ".join(dict.fromkeys(name for name in names if name)) or "without a name"
    settings = ", ".join(
        f"{key}={shown(pair['here'])} (paper: {shown(pair['paper'])})" for key, pair in departing.items()
    )
    return f"recipe {which}; {f'not as in the paper: {settings}' if settings else 'settings as in the paper'}"


def _settings(recipe: Recipe) -> dict[str, Any]:
    tree = recipe.deciding() | {"learner": learner_settings(recipe.learner)}
    del tree["dept"]  # a part of the task, too
    return flat(json.loads(json.dumps(tree, default=str)))
