"""Descriptions of all choices, as ``maotune list`` prints them."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from maotune.contract import AbstractLearner
from maotune.data.sets import icons
from maotune.data.sets.catalog import names
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.mao.methods import METHODS
from maotune.protocols import PROTOCOLS
from maotune.recipe.load import load_recipe, shipped_recipes
from maotune.recipe.schema import BEST, BestSettings, Recipe, resolve
from maotune.recipe.suites import SUITES


def listings() -> dict[str, Callable[[], dict[str, str]]]:
    """Return the lists of choices by name; each list has a line per choice."""

    def first_line(thing: Any) -> str:
        return (inspect.getdoc(thing) or "").partition("\n")[0]

    return {
        "learners": lambda: {
            **{name: first_line(learner) for name, learner in LEARNERS.items()},
            "--dept": f"around any of them: {first_line(DePT)}",
            "--method zeroshot": "zero-shot CLIP, which learns nothing; it is scored beside every learner anyway",
        },
        "methods": lambda: (
            {name: method.summary for name, method in METHODS.items()} | {BEST: first_line(BestSettings)}
        ),
        "suites": lambda: {name: ", ".join(sets) for name, sets in SUITES.items()},
        "protocols": lambda: {name: protocol.summary for name, protocol in PROTOCOLS.items()},
        "recipes": lambda: {
            name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            for name, path in shipped_recipes().items()
        },
        "data": lambda: {
            **{
                name: "shipped" if name in icons.SHIPPED else "in CoOp's layout, under --root FOLDER"
                for name in names()
            },
            "PATH": "a folder of images, a table (.csv, .tsv, .jsonl), or a split file (.json)",
            "hub:PATH_OR_ID": "through Hugging Face datasets: of the hub, local parquet files, image folders",
        },
        "settings": lambda: {**_described(Recipe.model_json_schema()), **_learner_settings()},
    }


DEFAULTS = (
    "Defaults are those of the recipe icons/coop, which `maotune train` takes without --recipe; where the paper has "
    "others, those of vit-b16/coop follow. With another --learner it takes icons/LEARNER, with a --clip other than "
    "IconCLIP vit-b16/LEARNER (maotune list recipes)."
)
"""Explains the list of settings."""


def _default(key: str, learner: str, otherwise: Any) -> str:
    """Write the value of a setting in the recipe that ``train`` takes for a learner, and the paper's if it differs."""
    here, paper = (
        flat(load_recipe(name).model_dump(mode="json")).get(key, otherwise) if name in shipped_recipes() else otherwise
        for name in (f"icons/{learner}", f"vit-b16/{learner}")
    )
    return f"Default: {shown(here)}{'' if here == paper else f'; as in the paper: {shown(paper)}'}."


def _described(schema: dict[str, Any], node: dict[str, Any] | None = None, prefix: str = "") -> dict[str, str]:
    """Describe the settings of a JSON schema by dotted key: meaning, allowed values, default."""
    settings: dict[str, str] = {}
    for name, entry in (node or schema)["properties"].items():
        if prefix + name == "name":  # no setting
            continue
        inner = resolve(entry, schema)
        off = "default" in entry and entry["default"] is None  # a group that is off is a setting itself
        if off or "properties" not in inner:
            allowed = f" One of {', '.join(entry['enum'])}." if "enum" in entry else ""
            meaning = " ".join(entry.get("description", "").split())
            settings[prefix + name] = f"{meaning}{allowed} {_default(prefix + name, 'coop', entry.get('default'))}"
        if "properties" in inner:
            settings |= _described(schema, inner, f"{prefix}{name}.")
    return settings


def _learner_settings() -> dict[str, str]:
    """Describe the learners' own settings, from their signatures and the ``Args`` of their docstrings."""
    owners: dict[str, dict[str, list[str]]] = {}  # key -> description -> learners
    kinds: list[tuple[str, type[AbstractLearner]]] = [*LEARNERS.items(), ("", DePT)]
    for owner, kind in kinds:
        doc = inspect.getdoc(kind) or ""
        for parameter in inspect.signature(kind.__init__).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                until = r"(?=^    \w+: |^\S|^$|\Z)"
                described = re.search(rf"^    {parameter.name}: (.+?){until}", doc, re.MULTILINE | re.DOTALL)
                meaning = f"{' '.join(described[1].split())} " if described else ""
                key = f"{'learner' if owner else 'dept'}.{parameter.name}"
                entry = meaning + _default(key, owner, parameter.default)
                owners.setdefault(key, {}).setdefault(entry, []).append(owner)
    return {
        key: "\n".join(f"[{', '.join(of)}] {entry}" if of != [""] else entry for entry, of in entries.items())
        for key, entries in owners.items()
    }


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested settings by dotted key."""
    leaves: dict[str, Any] = {}
    for name, branch in tree.items():
        leaves |= flat(branch, f"{prefix}{name}.") if isinstance(branch, Mapping) else {f"{prefix}{name}": branch}
    return leaves


def shown(value: Any) -> str:
    """Write the value of a setting as it is given."""
    if isinstance(value, list | tuple) and len(value) > 5:
        return f"a list of {len(value)}"
    if value is None or (isinstance(value, str) and re.fullmatch(r"[\w./-]+", value)):
        return value or "none"
    return json.dumps(value, default=str)
