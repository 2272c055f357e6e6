"""The settings of a run: typed fields with a docstring each, which are configuration, ``--help`` and documentation.

An unknown key or name is answered with the nearest valid ones.
"""

import difflib
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from maotune.contract import AbstractLearner
from maotune.data.sets.catalog import names
from maotune.data.sets.icons import SHIPPED
from maotune.files import CHECKSUM
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.mao.methods import METHODS
from maotune.mao.settings import DpcSettings, MaoSettings
from maotune.protocols import PROTOCOLS
from maotune.protocols.protocol import DrawSettings, Protocol, Split
from maotune.train.loop import FitSettings

BEST = "best"
"""Method that compares learners, plain and with MAO, and is the best of them; it has no stages of its own."""
OWN_TEXT = "dataset"
"""Stands for the data set's own text where a setting is a text."""


_UNDECIDING: Any = {"data": {"root", "bank"}, "clip": {"device"}, "train": {"checkpoint_seconds"}, "name": True}
"""Settings on which no result depends."""


_MOST_PROBLEMS = 10
"""Of a recipe, told in one message."""


class RecipeError(ValueError):
    """A recipe that cannot be run as written: what was given, what is allowed, what to do."""


class Settings(BaseModel):
    """Settings that refuse unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class ClipSettings(Settings):
    """The frozen model."""

    source: str = "iconclip"
    """``iconclip`` (shipped), a transformers folder or hub id (also ``OWNER/NAME@REVISION``), an OpenAI ``.pt``, or an
    open_clip state dict."""
    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ..."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the frozen weights; prompts are always float32."""
    activation: Literal["auto", "quick_gelu", "gelu"] = "auto"
    """``auto``: as the files of the model say. A bare state dict does not tell which one it was trained with."""
    activation_checkpointing: bool = False
    """Keep fewer activations and recompute them in the backward pass: less memory, about a third more time per step."""


class DataSettings(Settings):
    """The images."""

    source: str = "icons-places"
    """A shipped set, a folder of images, a CSV/JSONL/split file, or ``hub:PATH_OR_ID``."""
    root: Path | None = None
    """The folder of the data, where the source is a name or a relative path."""
    classes: Path | None = None
    """A text file of class names, with optional display names."""
    as_words: bool = True
    """Write names of folders and labels as words for the model: ``009.LadyBeetle`` as ``Lady Beetle``."""
    unlabelled: Path | None = None
    """The pool of unlabelled images for MAO's new stage (protocol ``adapt``): a folder, tar shards, or ``hub:...``."""
    labels: Path | None = None
    """A table ``image,label`` of more labelled images, as ``maotune review`` and ``suggest`` make it: those of the pool
    leave it; training images get the label of the table."""
    targets: tuple[str, ...] | None = None
    """Data sets that cross-dataset scores beside the source; default: the other sets of its suite, and its shifts."""
    split: Split = "test"
    """The split to score (not in adapt): choose settings on ``val``; ``held-out``: training images not tuned on, which
    in the shipped sets are other compositions of the same drawings."""
    shots: int = Field(default=16, ge=1)
    """Labelled images per class."""
    unlabelled_shots: int | None = Field(default=None, ge=1)
    """Unlabelled images per new class, in base-to-new; default: as many as ``shots``."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Range of the area of a random crop, as a share of the image (CoOp's augmentation)."""
    flip: bool = True
    """Whether half the training views are mirrored."""
    views: int | None = Field(default=None, ge=1)
    """Augmented views per image in the feature bank; default: one per epoch."""
    shared_views: bool = False
    """Give all seeds the same augmented views of an image: their features are computed once for all seeds, and the
    spread over seeds comes out too small, as it lacks that of the crops; default: views depend on the seed."""
    folds: int = Field(default=5, ge=0)
    """Folds of the cross-validation by which adapt chooses where no validation images are set aside: in the end, all
    labelled images are tuned on. 0: none; images without splits are split into half, a fifth and the rest for test."""
    bank: bool = True
    """Keep image features on disk, shared by epochs, stages and learners, and as far as views are, by seeds."""
    strict: bool = False
    """Stop where anything is left out or an image cannot be read, instead of skipping and listing it."""

    @property
    def own_paths(self) -> list[str | Path]:
        """The folders and files that hold the images."""
        return [path for path in (self.source, self.root, self.unlabelled, self.labels, *(self.targets or ())) if path]

    @field_validator("source", "root", "classes", "unlabelled", "labels", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():  # as a path it would be the working directory
            raise ValueError("is empty: give a path, or leave it out")
        return value


class BestSettings(Settings):
    """For one's own images: learners, with and without MAO, and zero-shot CLIP are compared, and the best is tuned."""

    candidates: tuple[str, ...] = ("gda", "taskres", "clap", "coop", "promptsrc")
    """Learners by the settings of their recipes, in this order: plain, and with MAO where there are unlabelled images.
    Zero-shot CLIP always is one, the first."""
    minutes: float = Field(default=10.0, ge=0)
    """Time for comparing: a candidate that is estimated to need more than what is left is not tried."""


class Recipe(Settings):
    """Everything that decides the result of one run."""

    name: str = ""
    """Name of the shipped recipe, or path of the file, that it was loaded from; it decides nothing."""
    protocol: str = "auto"
    """``maotune list protocols``; auto: base-to-new for data sets with a name, adapt for one's own images."""
    method: str = "plain"
    """``plain``, ``mao``, a control of it, or ``best`` (``maotune list methods``)."""
    clip: ClipSettings = ClipSettings()
    data: DataSettings = DataSettings()
    learner: dict[str, Any] = {"name": "coop"}
    """``name`` of the learner and its own settings."""
    dept: dict[str, Any] | None = None
    """Wrap the learner in DePT, with these settings (``{}``: the published ones)."""
    mao: MaoSettings = MaoSettings()
    dpc: DpcSettings = DpcSettings()
    best: BestSettings = BestSettings()
    train: FitSettings = FitSettings()
    epochs: int = Field(default=20, ge=1)
    """Epochs in all; MAO splits them evenly between its two stages."""
    lr: float = Field(default=0.002, gt=0)
    """Learning rate of the learner as published; MAO's own is ``mao.lr``."""
    batch_size: int = Field(default=32, ge=1)
    """Images per batch outside MAO's base stage."""
    templates: str = "dataset"
    """Zero-shot prompts: ``dataset`` (its own), ``ensemble`` (60 of them), or one with ``{}`` for the class name."""
    seed: int = Field(default=1, ge=0)
    """Seed of the few-shot draw, the initial prompts, the order of images and the crops."""

    @model_validator(mode="before")
    @classmethod
    def _without_checksum(cls, tree: Any) -> Any:
        """Take the ``recipe.json`` of a run as it is."""
        return {key: value for key, value in tree.items() if key != CHECKSUM} if isinstance(tree, dict) else tree

    @model_validator(mode="after")
    def _names_exist(self) -> "Recipe":
        choose("method", self.method, (*METHODS, BEST))
        for name in self.best.candidates:
            choose("learner of best.candidates", name, LEARNERS)
        choose("protocol", self.protocol, ("auto", *PROTOCOLS))
        if self.method == BEST and not self.protocol_in_use.cross_validates:
            raise ValueError(
                f"the method best compares learners on one's own images: it goes with the protocol adapt, and not with "
                f"{self.protocol_in_use.name} (protocol=adapt)"
            )
        learner_settings(self.learner)
        if self.dept is not None:
            arguments(DePT, self.dept, "dept")
        if self.templates not in ("dataset", "ensemble") and "{}" not in self.templates:
            raise ValueError(f"templates is {self.templates!r}: give dataset, ensemble, or a text with {{}} in it")
        return self

    @classmethod
    def from_record(cls, record: Any) -> "Recipe":
        """Read the recipe that a run has recorded, with all settings; those of older versions lack some.

        Raises:
            ValueError: it is no recipe, or has settings of another version.
        """
        if isinstance(record, dict) and isinstance(record.get("data"), dict):
            record = {**record, "data": {"shared_views": True, "as_words": False, **record["data"]}}
        return cls.model_validate(record)

    @property
    def icon_model_by_default(self) -> bool:
        """Whether images that are no icons would be classified by IconCLIP although nobody has named it."""
        return self.data.source not in SHIPPED and "source" not in self.clip.model_fields_set

    def shareable(self) -> "Recipe":
        """Return the recipe without folders of this machine: of own files, folders and models only the names stay.

        A CLIP below the home folder keeps its place there, so that it is found again. The protocol is the one in use,
        as it would depend on the source, and a folder may have the name of a public set.
        """
        settings = self.model_dump(mode="json")
        changed = _names_only(settings)
        clip = Path(self.clip.source)
        if clip.is_relative_to(Path.home()):
            changed["clip"]["source"] = f"~/{clip.relative_to(Path.home())}"
        if changed == settings:
            return self
        return Recipe.model_validate({**changed, "protocol": self.protocol_in_use.name})

    def located(self, recorded: "Recipe") -> "Recipe":
        """Return this recipe, which may be ``shareable``, with the folders of the ``recorded`` one."""
        return Recipe.model_validate(_located(self.model_dump(mode="json"), recorded.model_dump(mode="json")))

    @property
    def protocol_in_use(self) -> Protocol:
        """The protocol to run: ``auto`` is base-to-new for data sets with a name, else adapt."""
        if self.protocol != "auto":
            return PROTOCOLS[self.protocol]
        return PROTOCOLS[protocol_of(self.data.source)]

    @property
    def draw_settings(self) -> DrawSettings:
        """The settings that the protocol draws by."""
        data = self.data
        return DrawSettings(
            shots=data.shots,
            seed=self.seed,
            split=data.split,
            pool=self.mao.unlabelled,
            pool_shots=data.unlabelled_shots,
            folds=data.folds,
        )

    def deciding(self, *, exclude_defaults: bool = False) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON: without where data are and which device computes."""
        settings = self.model_dump(mode="json", exclude=_UNDECIDING, exclude_defaults=exclude_defaults)
        if not exclude_defaults:
            settings["protocol"] = self.protocol_in_use.name
        if self.data.source in names():  # their class names are as published
            settings.get("data", {}).pop("as_words", None)
        return {key: value for key, value in settings.items() if value or key not in _UNDECIDING}

    @property
    def title_and_seed(self) -> str:
        """Data set, learner, method and seed: the beginning of the name of a run's folder."""
        source = re.sub(r"\W+", "-", Path(self.data.source).stem.lower()).strip("-")
        return f"{source}-{self.title}-{self.method}-seed{self.seed}"

    @property
    def slug(self) -> str:
        """A folder name that says what the run is, and differs where a deciding setting does.

        A setting at its default does not count, so that names stay when maotune gets a new one; so a folder of this
        name may hold another run, from before a default changed (``runs.folder.find_run_folder`` compares).
        """
        content = json.dumps(self.deciding(exclude_defaults=True), sort_keys=True)
        return f"{self.title_and_seed}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"

    @property
    def learner_name(self) -> str:
        """The learner's key in ``LEARNERS``."""
        return str(self.learner.get("name", "coop"))

    @property
    def title(self) -> str:
        """The learner's name in tables."""
        return self.learner_name + ("+dept" if self.dept is not None else "")


def _names_only(value: Any) -> Any:
    """Replace absolute paths, and those that lead upwards, in a tree of settings by their last names."""
    if isinstance(value, dict):
        return {key: _names_only(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_names_only(entry) for entry in value]
    if not isinstance(value, str):
        return value
    scheme = "hub:" if value.startswith("hub:") else ""
    path = Path(value.removeprefix(scheme))
    return f"{scheme}{path.name}" if path.is_absolute() or ".." in path.parts else value


def _located(value: Any, recorded: Any) -> Any:
    if isinstance(value, dict) and isinstance(recorded, dict):
        return {key: _located(entry, recorded.get(key)) for key, entry in value.items()}
    if isinstance(value, str) and value.startswith("~"):
        return value
    return recorded if recorded is not None and _names_only(recorded) == value else value


def protocol_of(source: str) -> str:
    """Return the protocol for a source of data, where none is named."""
    return "base-to-new" if source in names() else "adapt"


def choose(what: str, given: str, allowed: Iterable[str]) -> str:
    """Return ``given`` if it is allowed.

    Raises:
        RecipeError: it is not; the message names the nearest allowed values.
    """
    allowed = list(allowed)
    if given in allowed:
        return given
    raise RecipeError(f"unknown {what} {given!r}{_nearest(given, allowed) or '.'} Allowed: {', '.join(allowed)}")


def _nearest(given: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def learner_settings(learner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated keyword arguments of the learner's constructor: its signature is its settings.

    Raises:
        RecipeError: unknown learner or setting, or a value of the wrong kind.
    """
    name = choose("learner", str(learner.get("name", "coop")), LEARNERS)
    given = {key: value for key, value in learner.items() if key != "name"}
    return arguments(LEARNERS[name], given, "learner")


def arguments(learner: type[AbstractLearner], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate ``given`` against the keyword-only arguments of a constructor; return all, with defaults."""
    model = _settings_of(learner)
    try:
        checked = model(**given)
    except ValidationError as error:
        raise RecipeError(explain(error, model, where)) from None
    return {field: getattr(checked, field) for field in model.model_fields}


@functools.cache
def _settings_of(learner: type[AbstractLearner]) -> type[BaseModel]:
    """Return a pydantic model of the keyword-only arguments of a constructor."""
    fields: dict[str, Any] = {
        p.name: (p.annotation, p.default)
        for p in inspect.signature(learner.__init__).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    return create_model(learner.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def explain(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """Write a validation error in sentences, with the nearest valid keys for unknown ones."""
    lines = []
    problems = error.errors()
    for problem in problems[:_MOST_PROBLEMS]:
        path = [where, *map(str, problem["loc"])] if where else [*map(str, problem["loc"])]
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = _keys_at(model, [str(part) for part in problem["loc"][:-1]])
            known = f" Allowed: {', '.join(allowed)}" if allowed else ""
            lines.append(f"unknown setting {'.'.join(path)!r}{_nearest(path[-1], allowed) or '.'}{known}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{'.'.join(path)}: {message} (given: {problem['input']!r:.200})" if path else message)
    if rest := problems[_MOST_PROBLEMS:]:
        lines.append(f"and {len(rest)} more")
    return "\n".join(lines)


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    if not path:
        return list(model.model_fields)
    schema = model.model_json_schema()
    node = schema
    for part in path:
        node = resolve(node.get("properties", {}).get(part, {}), schema)
    return list(node.get("properties", {}))


def resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a node of a JSON schema, or the node that it refers to, also where null is an alternative."""
    for option in (node, *node.get("anyOf", ())):
        if "$ref" in option:
            referred: dict[str, Any] = schema["$defs"][option["$ref"].rpartition("/")[2]]
            return referred
    return node
