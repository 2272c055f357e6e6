"""Recipes from YAML files and dotted overrides."""

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from maotune.files import read_text
from maotune.learners import LEARNERS
from maotune.protocols import PROTOCOLS
from maotune.recipe.schema import Recipe, RecipeError, explain, protocol_of

SHORT = {key: f"data.{key}" for key in ("shots", "unlabelled", "classes", "root")}
"""Keys that may be given without their group."""
_MOST_CHARACTERS, _MOST_ALIASES, _MOST_DEPTH = 1 << 16, 20, 20
"""Of a recipe. Recipes have a page, and three levels."""


@functools.cache
def shipped_recipes() -> dict[str, Path]:
    """Return the paths of the recipes that come with the package, by name."""
    folder = Path(__file__).parents[1] / "recipes"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """Load a recipe.

    Args:
        path: a YAML file, or the name of a recipe that ships with maotune (``icons/coop``); None: the
            learner's recipe for the CLIP that is tuned.
        overrides: ``key=value`` with dotted keys (``learner.context_length=4``; values are YAML), or a mapping; those
            of ``SHORT`` need no dot. With another learner than the file's, the file's learner settings are dropped.

    Raises:
        RecipeError: no such file, not YAML, unknown keys or names, wrong values.
    """
    pairs = [*(overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides))]
    pairs = [(SHORT.get(key, key), value) for key, value in pairs]
    pairs = [("learner.name" if key == "learner" and isinstance(value, str) else key, value) for key, value in pairs]
    tree: dict[str, Any] = {}
    named = path is not None
    if path is None:
        given = dict(pairs)
        path = default_recipe(given.get("clip.source", "iconclip"), given.get("learner.name", "coop"))
    name = str(path or "")
    if path is not None:
        path = shipped_recipes().get(str(path), Path(path))
        try:
            tree = copy.deepcopy(_parsed(read_text(path))) or {}
        except OSError as error:
            known = ", ".join(shipped_recipes())
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}. Shipped recipes: {known}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(f"{path} is not YAML that can be read: {error}") from None
        if not isinstance(tree, dict):
            raise RecipeError(f"{path} holds a {type(tree).__name__}; a recipe is a mapping of settings")
    if not named and isinstance(tree.get("clip"), dict):
        tree["clip"].pop("source", None)  # a recipe that nobody has named does not choose the CLIP
    if isinstance(tree.get("learner"), str):
        tree["learner"] = {"name": tree["learner"]}
    learner = dict(pairs).get("learner.name")
    if learner is not None and isinstance(tree.get("learner"), dict) and tree["learner"].get("name", "coop") != learner:
        tree["learner"] = {}
    written = tree["learner"].get("name") if isinstance(tree.get("learner"), dict) else None
    kind = LEARNERS.get(str(learner or written))
    _apply_protocol(tree, dict(pairs), of_prompts=kind is None or kind.tunes_prompts)
    for key, value in pairs:
        _put(tree, key, value)
    tree.setdefault("name", name)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe)) from None


def _apply_protocol(tree: dict[str, Any], given: Mapping[str, Any], *, of_prompts: bool) -> None:
    """Apply the protocol's own settings: below those of a file that names it, above those of a file for another.

    ``of_prompts``: whether prompts are tuned; if not, epochs and learning rates do not apply.
    """
    written, override = tree.get("protocol"), given.get("protocol")
    name = str(override or written or "auto")
    if name == "auto":
        data = tree.get("data")
        source = given.get("data.source") or (data.get("source") if isinstance(data, dict) else None)
        name = protocol_of(str(source)) if source else name
    protocol = PROTOCOLS.get(name)
    for key, value in protocol.settings.items() if protocol else ():
        if not of_prompts and key.rpartition(".")[2] in ("epochs", "lr"):
            continue
        if written != (override or written) or not _has(tree, key):
            _put(tree, key, value)


def _has(tree: Mapping[str, Any], key: str) -> bool:
    """Whether a dotted key has a value."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


@functools.lru_cache
def _parsed(text: str) -> Any:
    """Parse YAML, cached: a sweep loads the same few files for thousands of runs."""
    return _parse(text)


class _Loader(yaml.SafeLoader):
    """Builds plain values; refuses a text that unfolds to more than a recipe, or to itself."""

    aliases = depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node, of few aliases (``*name``) and little depth."""
        self.aliases += self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.aliases > _MOST_ALIASES or self.depth > _MOST_DEPTH:
            raise yaml.YAMLError(f"more than {_MOST_ALIASES} aliases, or nested more than {_MOST_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _parse(text: str) -> Any:
    if len(text) > _MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text):,} characters; at most {_MOST_CHARACTERS:,} are read")
    return yaml.load(text, _Loader)


def default_recipe(clip: str, learner: str) -> str | None:
    """Return ``icons/LEARNER`` for the shipped CLIP, else ``vit-b16/LEARNER``; None where there is no such recipe."""
    name = f"{'icons' if clip == 'iconclip' else 'vit-b16'}/{learner}"
    return name if name in shipped_recipes() else None


def parse_override(override: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is YAML.

    Raises:
        RecipeError: no ``=``, or no YAML.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r} is not key=value (for instance learner.context_length=4)")
    if not value.strip():
        raise RecipeError(f"{override!r} has no value (is a shell variable unset?): give one, or null for none")
    try:
        return key, _parse(value)
    except (yaml.YAMLError, ValueError):
        raise RecipeError(f"the value of override {override!r} is not YAML") from None


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{key!r}: {parent!r} holds a value, not settings")
    tree[last] = value
