"""Candidates of the method best, as recipes."""

from dataclasses import asdict

from maotune.recipe.load import default_recipe, load_recipe
from maotune.recipe.schema import Recipe


def candidate_recipes(recipe: Recipe, pool: bool) -> list[Recipe]:
    """Return the recipes that the method best compares: those of its learners, on its data.

    Args:
        recipe: names the learners, and says what all candidates share: CLIP, images and their augmentation, MAO apart
            from its rate, zero-shot texts, the seed.
        pool: whether there are unlabelled images: then there is a recipe with MAO beside each plain one.
    """
    shared = {f"data.{key}": value for key, value in recipe.data.model_dump().items() if key != "views"}
    shared |= {f"mao.{key}": value for key, value in asdict(recipe.mao).items() if key != "lr"}
    shared |= {
        "clip": recipe.clip.model_dump(),
        "protocol": recipe.protocol_in_use.name,
        "templates": recipe.templates,
        "seed": recipe.seed,
    }
    return [
        load_recipe(default_recipe(recipe.clip.source, learner), {**shared, "learner.name": learner, "method": method})
        for learner in recipe.best.candidates
        for method in (("plain", "mao") if pool else ("plain",))
    ]
