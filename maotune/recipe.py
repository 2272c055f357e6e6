"""A run, written down: typed settings from YAML and dotted overrides, and the objects that they name.

The only file that knows everybody. A setting is a field with a docstring under it; an unknown key or name is answered
with the nearest valid ones.
"""

import copy
import difflib
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from maotune.clip import FrozenCLIP, load_clip
from maotune.clip.ensembles import SIXTY
from maotune.contract import AbstractLearner
from maotune.data.images.decode import Skipped
from maotune.data.sets import coop, icons
from maotune.data.sets.catalog import load_dataset, load_unlabelled, names
from maotune.data.sets.dataset import Dataset
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.mao.stages import METHODS, MaoSettings
from maotune.protocols.adapt import adapt
from maotune.protocols.base_to_new import base_to_new
from maotune.protocols.cross_dataset import cross_dataset
from maotune.protocols.few_shot import few_shot
from maotune.protocols.splits import Split, Splits
from maotune.runs.readable import draw_readable, read_all
from maotune.train.loop import FitSettings


class Suite(NamedTuple):
    """Data sets that a table has in common."""

    sets: tuple[str, ...]
    settings: Mapping[str, Any] = {}
    """Of the recipe, for ``maotune run``, unless told otherwise: what makes the whole suite affordable."""


SUITES: Mapping[str, Suite] = {
    "icons-11": Suite(icons.SETS, {"data.shots": 8, "epochs": 10}),
    "coop-11": Suite(tuple(coop.SETS)[:11]),  # the rest are ImageNet's classes in other pictures
}
"""By name. icons-11 with half of the shots and epochs: three learners, three seeds and all controls within three hours
on two cores. coop-11 are the paper's, below ``data.root``."""


class Protocol(NamedTuple):
    """A way of tuning on some images and scoring others."""

    summary: str
    settings: Mapping[str, Any] = {}
    """Of the recipe, with dotted keys: under a recipe file that names the protocol, over one that does not."""


PROTOCOLS: Mapping[str, Protocol] = {
    "base-to-new": Protocol("tuned on half of the classes, with unlabelled images of the others; both halves scored"),
    "cross-dataset": Protocol(
        "tuned on all classes of one data set, which is scored, and so are others, as they are",
        {"epochs": 5, "lr": 0.0035, "mao.lr": 0.0035},  # Appendix B
    ),
    "few-shot": Protocol("tuned on a few images of all classes, scored on all of them"),
    "adapt": Protocol(
        "for one's own images: all classes, unlabelled images; the better of tuned and zero-shot is used"
    ),
}
"""By name; the settings are the paper's."""


OWN = "dataset"
"""What stands for the data set's own text where a text is asked for."""

SHORT = {key: f"data.{key}" for key in ("shots", "unlabelled", "classes", "root")}
"""Keys that may be said without their group."""


class RecipeError(ValueError):
    """A recipe that cannot be run as written: what was given, what is allowed, what to do."""


class Settings(BaseModel):
    """Settings that know their keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class ClipSettings(Settings):
    """The frozen model."""

    source: str = "iconclip"
    """``iconclip`` (shipped), a transformers folder or hub id, an OpenAI ``.pt``, or an open_clip state dict."""
    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ..."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the frozen weights; prompts are always float32."""
    activation_checkpointing: bool = False
    """Keep less for the backward and compute it again there: less memory, about a third more time a step."""


class DataSettings(Settings):
    """The images."""

    source: str = "icons-animals"
    """A shipped set, a folder of images, a CSV/JSONL/split file, or ``hub:PATH_OR_ID``."""
    root: Path | None = None
    """Where the source is looked for if it is a name or a relative path."""
    classes: Path | None = None
    """A text file of class names, with optional display names."""
    unlabelled: Path | None = None
    """Unlabelled images for MAO's new stage (the ``adapt`` protocol): a folder, tar shards, or ``hub:...``."""
    targets: tuple[str, ...] | None = None
    """What cross-dataset scores beside the source; default: the other sets of its suite, and those of its kind."""
    split: Split = "test"
    """What is scored (not in adapt): choose settings on ``val``. ``held-out``: training images not tuned on."""
    shots: int = Field(default=16, ge=1)
    """Labelled images a class."""
    unlabelled_shots: int | None = Field(default=None, ge=1)
    """Unlabelled images a new class, in base-to-new; default: as many as ``shots``."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of a random crop, as a share of the picture (CoOp's augmentation)."""
    flip: bool = True
    """Whether half the training views are mirrored."""
    views: int | None = Field(default=None, ge=1)
    """Augmented views an image in the feature bank; default: one an epoch."""
    bank: bool = True
    """Keep image features on disk, shared by epochs, stages, seeds and learners."""
    strict: bool = False
    """Stop at the first unreadable image instead of skipping and listing it."""


class Recipe(Settings):
    """Everything that decides the result of one run."""

    protocol: Literal["auto", "base-to-new", "cross-dataset", "few-shot", "adapt"] = "auto"
    """``maotune list protocols``; auto: base-to-new for data sets with a name, adapt for one's own images."""
    method: str = "plain"
    """``plain``, ``mao``, or a control of it (``maotune list methods``)."""
    clip: ClipSettings = ClipSettings()
    data: DataSettings = DataSettings()
    learner: dict[str, Any] = {"name": "coop"}
    """``name`` of the learner and its own settings."""
    dept: dict[str, Any] | None = None
    """Hold the learner in DePT, with these settings of its (``{}``: the published ones)."""
    mao: MaoSettings = MaoSettings()
    train: FitSettings = FitSettings()
    epochs: int = Field(default=20, ge=1)
    """Epochs in all; MAO splits them evenly between its two stages."""
    lr: float = Field(default=0.002, gt=0)
    """Learning rate of the learner as published; MAO's own is ``mao.lr``."""
    batch_size: int = Field(default=32, ge=1)
    """Images a batch outside MAO's base stage."""
    templates: str = "dataset"
    """Zero-shot prompts: ``dataset`` (its own), ``ensemble`` (60 of them), or one with ``{}`` for the class name."""
    seed: int = Field(default=1, ge=0)
    """Of the few-shot draw, the initial prompts, the order and the crops."""

    @model_validator(mode="after")
    def _names_exist(self) -> "Recipe":
        choose("method", self.method, METHODS)
        learner_settings(self.learner)
        if self.dept is not None:
            _arguments(DePT, self.dept, "dept")
        if self.templates not in ("dataset", "ensemble") and "{}" not in self.templates:
            raise ValueError(f"templates is {self.templates!r}: give dataset, ensemble, or a text with {{}} in it")
        return self

    @property
    def slug(self) -> str:
        """A folder name that tells what the run is, and differs where any setting does.

        A setting at its default does not count, so that the names stay when maotune learns a new one.
        """
        content = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        source = re.sub(r"\W+", "-", Path(self.data.source).stem.lower()).strip("-")
        digest = hashlib.sha256(content.encode()).hexdigest()[:6]
        return f"{source}-{self.title}-{self.method}-seed{self.seed}-{digest}"

    @property
    def learner_name(self) -> str:
        """A key of ``LEARNERS``."""
        return str(self.learner.get("name", "coop"))

    @property
    def title(self) -> str:
        """The learner as tables call it."""
        return self.learner_name + ("+dept" if self.dept is not None else "")


def choose(what: str, given: str, allowed: Iterable[str]) -> str:
    """``given``, if it is allowed.

    Raises:
        RecipeError: it is not; the message names the nearest.
    """
    allowed = list(allowed)
    if given in allowed:
        return given
    raise RecipeError(f"unknown {what} {given!r}{_nearest(given, allowed) or '.'} Allowed: {', '.join(allowed)}")


def _nearest(given: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def learner_settings(learner: Mapping[str, Any]) -> dict[str, Any]:
    """The checked keyword arguments for the learner's constructor: its signature is its settings.

    Raises:
        RecipeError: unknown learner or setting, or a value of the wrong kind.
    """
    name = choose("learner", str(learner.get("name", "coop")), LEARNERS)
    given = {key: value for key, value in learner.items() if key != "name"}
    return _arguments(LEARNERS[name], given, "learner")


def _arguments(learner: type[AbstractLearner], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``given``, checked against the keyword-only arguments of a constructor, with the defaults of the others."""
    model = _settings_of(learner)
    try:
        checked = model(**given)
    except ValidationError as error:
        raise RecipeError(explain(error, model, where)) from None
    return {field: getattr(checked, field) for field in model.model_fields}


@functools.cache
def _settings_of(learner: type[AbstractLearner]) -> type[BaseModel]:
    """The keyword-only arguments of a constructor as a model."""
    fields: dict[str, Any] = {
        p.name: (p.annotation, p.default)
        for p in inspect.signature(learner.__init__).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    return create_model(learner.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def explain(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """A validation error in sentences, unknown keys with the nearest valid ones."""
    lines = []
    for problem in error.errors():
        path = [where, *map(str, problem["loc"])] if where else [*map(str, problem["loc"])]
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = _keys_at(model, [str(part) for part in problem["loc"][:-1]])
            known = f" Allowed: {', '.join(allowed)}" if allowed else ""
            lines.append(f"unknown setting {'.'.join(path)!r}{_nearest(path[-1], allowed) or '.'}{known}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{'.'.join(path)}: {message} (given: {problem['input']!r})" if path else message)
    return "\n".join(lines)


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    if not path:
        return list(model.model_fields)
    schema = model.model_json_schema()
    node = schema
    for part in path:
        node = _resolved(node.get("properties", {}).get(part, {}), schema)
    return list(node.get("properties", {}))


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A node of a JSON schema, or what it refers to, also where it may be null instead."""
    for option in (node, *node.get("anyOf", ())):
        if "$ref" in option:
            found: dict[str, Any] = schema["$defs"][option["$ref"].rpartition("/")[2]]
            return found
    return node


@functools.cache
def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(__file__).parent / "recipes"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file, or the name of a recipe that ships with maotune (``icons/coop``); None: that of the
            learner, for the CLIP that is tuned.
        overrides: ``key=value`` with dotted keys (``learner.context_length=4``; values are YAML), or a mapping; those
            of ``SHORT`` need no dot. Another learner than the file's drops the file's settings of its own.

    Raises:
        RecipeError: no such file, not YAML, unknown keys or names, wrong values.
    """
    pairs = [*(overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides))]
    pairs = [(SHORT.get(key, key), value) for key, value in pairs]
    pairs = [("learner.name" if key == "learner" and isinstance(value, str) else key, value) for key, value in pairs]
    tree: dict[str, Any] = {}
    if path is None:
        path = _default_recipe(dict(pairs))
    if path is not None:
        path = shipped_recipes().get(str(path), Path(path))
        try:
            tree = copy.deepcopy(_parsed(path.read_text(encoding="utf-8"))) or {}
        except OSError as error:
            known = ", ".join(shipped_recipes())
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}. Shipped recipes: {known}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is not YAML: {error}") from None
        if not isinstance(tree, dict):
            raise RecipeError(f"{path} holds a {type(tree).__name__}; a recipe is a mapping of settings")
    if isinstance(tree.get("learner"), str):
        tree["learner"] = {"name": tree["learner"]}
    name = dict(pairs).get("learner.name")
    if name is not None and isinstance(tree.get("learner"), dict) and tree["learner"].get("name", "coop") != name:
        tree["learner"] = {}
    _lay_protocol(tree, dict(pairs).get("protocol"))
    for key, value in pairs:
        _put(tree, key, value)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe)) from None


def _lay_protocol(tree: dict[str, Any], asked: Any) -> None:
    """The settings of the protocol: under a file that names it, over one that was written for another."""
    written = tree.get("protocol")
    protocol = PROTOCOLS.get(str(asked or written))
    for key, value in protocol.settings.items() if protocol else ():
        if written != (asked or written) or not _has(tree, key):
            _put(tree, key, value)


def _has(tree: Mapping[str, Any], key: str) -> bool:
    """Whether a dotted key has a value."""
    found: Any = tree
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


@functools.lru_cache
def _parsed(text: str) -> Any:
    """YAML; a sweep reads the same few files for thousands of runs."""
    return yaml.safe_load(text)


def _default_recipe(given: Mapping[str, Any]) -> str | None:
    """``icons/LEARNER`` for the shipped CLIP, else ``vit-b16/LEARNER``."""
    learner = given.get("learner.name", "coop")
    family = "icons" if given.get("clip.source", "iconclip") == "iconclip" else "vit-b16"
    name = f"{family}/{learner}"
    return name if name in shipped_recipes() else None


def parse_override(override: str) -> tuple[str, Any]:
    """Key and value of ``key=value``; the value is YAML.

    Raises:
        RecipeError: no ``=``, or no YAML.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r} is not key=value (for instance learner.context_length=4)")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"the value of override {override!r} is not YAML") from None


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{key!r}: {parent!r} holds a value, not settings")
    tree[last] = value


def load_readable(recipe: Recipe, split: str) -> Dataset:
    """The data set of a recipe; of ``split`` (train, val, test), only the images that can be read.

    Raises:
        ValueError: no such data.
        UnreadableImage: an image cannot be read, and ``data.strict`` is set.
    """
    data = recipe.data
    dataset = load_dataset(data.source, data.root, data.classes)
    kept: dict[str, Any] = {split: read_all(getattr(dataset, split), data.strict).kept}
    return replace(dataset, **kept)


def build_splits(recipe: Recipe) -> tuple[Splits, list[Skipped]]:
    """The images of a run, readable ones only, and those that were left out (``draw_readable``).

    Raises:
        ValueError: no such data, or it does not fit the protocol.
        UnreadableImage: an image cannot be read, and ``data.strict`` is set.
    """
    data, protocol = recipe.data, protocol_of(recipe)
    if data.unlabelled is not None and protocol != "adapt":
        raise RecipeError(
            f"data.unlabelled (--unlabelled) goes with the protocol adapt; {protocol} draws the unlabelled images that "
            "it needs itself: leave it out, or set protocol=adapt"
        )
    datasets = [load_dataset(data.source, data.root, data.classes)]
    if data.unlabelled is not None:
        heap = load_unlabelled(data.unlabelled)
        datasets = [replace(datasets[0], unlabelled=(*datasets[0].unlabelled, *heap))]
    if protocol == "cross-dataset":
        datasets += [load_dataset(target, data.root) for target in targets_of(recipe)]

    def draw(datasets: Sequence[Dataset]) -> Splits:
        dataset, *targets = datasets
        if protocol == "adapt":
            return adapt(dataset, data.shots, recipe.seed)
        if protocol == "few-shot":
            return few_shot(dataset, data.shots, recipe.seed, data.split)
        if protocol == "cross-dataset":
            return cross_dataset(dataset, targets, data.shots, recipe.seed, data.split)
        return base_to_new(
            dataset, data.shots, recipe.seed, recipe.mao.unlabelled, data.split, unlabelled_shots=data.unlabelled_shots
        )

    return draw_readable(draw, datasets, strict=data.strict, whole_train=recipe.mao.pool == "train")


def targets_of(recipe: Recipe) -> tuple[str, ...]:
    """The data sets that cross-dataset scores beside the source.

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
            shifted = tuple(coop.SETS)[11:] if data.source == "imagenet" and data.root else ()
            there = tuple(name for name in shifted if (Path(data.root or ".") / coop.SETS[name].folder).is_dir())
            return others + there
    raise RecipeError(
        f"{data.source} is in no suite ({', '.join(SUITES)}), so there are no other sets to score: name some, as in "
        "data.targets=[icons-food,icons-weather]"
    )


def find_suite(suite: str) -> Suite:
    """The data sets of a suite, and its settings.

    Raises:
        RecipeError: no such suite.
    """
    return SUITES[choose("suite", suite, SUITES)]


def listings() -> dict[str, Callable[[], dict[str, str]]]:
    """What can be chosen, each with a line on it."""

    def first_line(thing: Any) -> str:
        return (inspect.getdoc(thing) or "").partition("\n")[0]

    def experiments() -> dict[str, str]:
        from maotune.experiments.catalog import EXPERIMENTS  # which imports this module

        return {name: f"{one.counterpart}: {one.summary}" for name, one in EXPERIMENTS.items()}

    return {
        "learners": lambda: {name: first_line(learner) for name, learner in LEARNERS.items()},
        "methods": lambda: {name: method.summary for name, method in METHODS.items()},
        "experiments": experiments,
        "suites": lambda: {name: ", ".join(suite.sets) for name, suite in SUITES.items()},
        "protocols": lambda: {name: protocol.summary for name, protocol in PROTOCOLS.items()},
        "recipes": lambda: {
            name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            for name, path in shipped_recipes().items()
        },
        "data": lambda: {
            **{name: "shipped" if name in icons.SETS else "in CoOp's layout, under --root FOLDER" for name in names()},
            "PATH": "a folder of images, a table (.csv, .tsv, .jsonl), or a split file (.json)",
            "hub:PATH_OR_ID": "through Hugging Face datasets: of the hub, local parquet files, image folders",
        },
        "settings": lambda: {**_described(Recipe.model_json_schema()), **_learner_settings()},
    }


def _described(schema: dict[str, Any], node: dict[str, Any] | None = None, prefix: str = "") -> dict[str, str]:
    """The settings in a JSON schema by dotted key, each with what it means, what is allowed, and the default."""
    found: dict[str, str] = {}
    for name, entry in (node or schema)["properties"].items():
        inner = _resolved(entry, schema)
        off = "default" in entry and entry["default"] is None  # a group that is off is a setting itself
        if off or "properties" not in inner:
            allowed = f" One of {', '.join(entry['enum'])}." if "enum" in entry else ""
            meaning = " ".join(entry.get("description", "").split())
            found[prefix + name] = f"{meaning}{allowed} Default: {_shown(entry.get('default'))}."
        if "properties" in inner:
            found |= _described(schema, inner, f"{prefix}{name}.")
    return found


def _learner_settings() -> dict[str, str]:
    """The learners' own settings, from their signatures and the ``Args`` of their docstrings."""
    owners: dict[str, dict[str, list[str]]] = {}  # by key, then by what is said of it
    kinds: list[tuple[str, type[AbstractLearner]]] = [*LEARNERS.items(), ("", DePT)]
    for owner, kind in kinds:
        doc = inspect.getdoc(kind) or ""
        for parameter in inspect.signature(kind.__init__).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                until = r"(?=^    \w+: |^\S|^$|\Z)"
                said = re.search(rf"^    {parameter.name}: (.+?){until}", doc, re.MULTILINE | re.DOTALL)
                meaning = f"{' '.join(said[1].split())} " if said else ""
                key = f"{'learner' if owner else 'dept'}.{parameter.name}"
                entry = f"{meaning}Default: {_shown(parameter.default)}."
                owners.setdefault(key, {}).setdefault(entry, []).append(owner)
    return {
        key: "\n".join(f"[{', '.join(of)}] {entry}" if of != [""] else entry for entry, of in entries.items())
        for key, entries in owners.items()
    }


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > 5:
        return f"a list of {len(value)}"
    if value is None or (isinstance(value, str) and re.fullmatch(r"[\w.-]+", value)):
        return value or "none"
    return json.dumps(value, default=str)


def protocol_of(recipe: Recipe) -> str:
    """The protocol that runs: ``auto`` is base-to-new for data sets with a name, else adapt."""
    if recipe.protocol != "auto":
        return recipe.protocol
    return "base-to-new" if recipe.data.source in names() else "adapt"


def build_clip(settings: ClipSettings) -> FrozenCLIP:
    """The frozen model. See ``maotune.clip.load_clip``."""
    return load_clip(
        settings.source,
        device=settings.device,
        dtype=settings.dtype,
        activation_checkpointing=settings.activation_checkpointing,
    )


def build_learner(recipe: Recipe, clip: FrozenCLIP, classes: Sequence[str]) -> AbstractLearner:
    """The learner with fresh prompts, bound to ``classes``; torch's random state decides the prompts.

    Raises:
        ValueError: the classes do not fit into the context.
    """
    build: Any = LEARNERS[recipe.learner_name]
    given = learner_settings(recipe.learner)
    if unsaid := [key for key, value in given.items() if value == OWN]:
        raise RecipeError(f"learner.{unsaid[0]} is {OWN!r}, the data set's own text, and there is no data set: say it")
    if "open_run" in inspect.signature(build).parameters:  # it may learn from a finished run
        given["open_run"] = _open_run
    learner: AbstractLearner = build(clip, classes, **given)
    if recipe.dept is None:
        return learner
    width = clip.joint_width if learner.text_depends_on_image else None  # else it finds its own
    return DePT(learner, width, **_arguments(DePT, recipe.dept, "dept"))


def with_own_texts(recipe: Recipe, own: str) -> Recipe:
    """The recipe with what ``dataset`` stands for among the learner's settings: the data set's text ``own``.

    As ``template`` the whole of it; as ``words`` (TCP) what follows the learned context: the rest after "a photo of a",
    or from the class name on where it begins in another way ("{} texture.", "a centered satellite photo of {}.").
    """
    rest = own.removeprefix("a photo of a ")
    texts = {"template": own, "words": rest if rest != own else own[own.index("{}") :]}
    found = {key: texts[key] for key, value in recipe.learner.items() if key in texts and value == OWN}
    return recipe.model_copy(update={"learner": {**recipe.learner, **found}}) if found else recipe


def _open_run(folder: str) -> tuple[FrozenCLIP, AbstractLearner]:
    """The CLIP of a finished run, and its learner with the tuned prompts."""
    from maotune.api import load  # which imports this module

    run = load(folder)
    return run.clip, run.learner()


def templates_of(recipe: Recipe, own: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of zero-shot CLIP, also as the labeler of MAO's new stage; ``own`` are the data set's."""
    return {"dataset": own, "ensemble": SIXTY}.get(recipe.templates, (recipe.templates,))
