"""What a file of saved prompts holds, checked before any of it is used: anybody may have written it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from maotune.contract import mixture_weights
from maotune.mao.methods import ZEROSHOT
from maotune.protocols import PROTOCOLS
from maotune.recipe.schema import Recipe, choose, explain
from maotune.runs.mixing import StagePrompts
from maotune.runs.record import read_record
from maotune.runs.result import RESULT, Result
from maotune.train.session import CheckpointError, DamagedCheckpoint, load_prompts

PROMPTS = "prompts.safetensors"
"""File of a run's folder that holds all there is to deploy."""

_Classes = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1, max_length=100_000)
]
_FACTORIES: frozenset[Any] = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.randn, torch.rand})
_COPIES: tuple[Any, ...] = (torch.clone, Tensor.clone, Tensor.contiguous)
_FREE = 1 << 22
"""Numbers that a tensor may have whatever is in the file."""


class SavedClip(BaseModel):
    """The CLIP that prompts were tuned on; older versions did not record all of it."""

    source: str
    fingerprint: str
    activation: Literal["auto", "quick_gelu", "gelu"] | None = None
    preprocess: str | None = None
    revision: Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")] | None = None
    """Commit of a model of the Hugging Face hub."""


class _Metadata(BaseModel):
    """What is in the header of the file."""

    recipe: dict[str, Any]
    clip: SavedClip
    stages: Annotated[dict[str, _Classes], Field(min_length=1)]
    result: dict[str, Any]


@dataclass(frozen=True)
class SavedRun:
    """The content of a file of prompts."""

    recipe: Recipe
    clip: SavedClip
    stages: Mapping[str, StagePrompts]
    result: Result


def read_saved_run(path: Path) -> SavedRun:
    """Read a file that ``Run.save`` wrote.

    Raises:
        CheckpointError: no such file, or parts of it are missing or wrong.
    """
    try:
        tensors, content = load_prompts(path)
    except DamagedCheckpoint as error:
        if not path.exists():
            raise
        raise CheckpointError(
            f"{error}: take a good copy of it; or, where it lies in the folder of its run, delete {RESULT} there and "
            "resume the run, which writes it again"
        ) from error
    if "stages" not in content:
        raise CheckpointError(f"{path} holds the prompts of one stage: load {PROMPTS}, which stands beside it")
    try:
        metadata = _Metadata.model_validate(content)
        recipe, result = Recipe.from_record(metadata.recipe), read_record(Result, metadata.result)
        _check_names(result, metadata.stages)
    except ValidationError as error:
        raise CheckpointError(_damaged(path, explain(error, _Metadata))) from error
    except ValueError as error:
        raise CheckpointError(_damaged(path, error)) from error
    stages = {
        name: StagePrompts(
            classes,
            {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")},
        )
        for name, classes in metadata.stages.items()
    }
    return SavedRun(recipe, metadata.clip, stages, result)


def _damaged(path: Path, reason: object) -> str:
    return f"{path} was written by another version of maotune, or is damaged: {reason}"


def _check_names(result: Result, stages: Mapping[str, tuple[str, ...]]) -> None:
    """Check that prompts are found for known classes, and for others, and that zero-shot has its texts."""
    choose("protocol", result.protocol, PROTOCOLS)
    base_classes = next(iter(stages.values()))
    try:
        chosen = [result.prompts_for(each, base_classes) for each in (*stages.values(), ("",))]
    except LookupError as error:
        raise ValueError(f"result.scored_with: {result.scored_with} does not say which prompts predict") from error
    if not 0 < len(result.templates) <= 1000 or any("{}" not in each for each in result.templates):
        raise ValueError("result.templates: expected 1 to 1000 texts with {} for the class name")
    for name in chosen:
        check_prompts(name, stages, "prompts in result.predictors")


def check_prompts(prompts: str, stages: Iterable[str], what: str = "prompts") -> list[str]:
    """Return the stages whose prompts these are: one, several in a mixture, or ``zeroshot`` alone.

    Raises:
        RecipeError: there are no such stages.
        ValueError: a mixture that cannot be read, or with ``zeroshot`` in it.
    """
    names = [*mixture_weights(prompts)]
    for name in names:
        choose(what, name, [*stages, *([ZEROSHOT] if len(names) == 1 else [])])
    return names


@contextmanager
def within_size_of(tensors: Mapping[str, Tensor], others: int) -> Iterator[None]:
    """Build a learner for saved ``tensors`` in the block; none of its own may be larger, before it is allocated.

    Args:
        tensors: those that will take the place of the learner's own.
        others: size of the largest tensor that the learner computes from its classes.

    Raises:
        CheckpointError: the settings ask for a larger tensor, or do not fit together.
    """
    largest = max([_FREE, others, *(value.numel() for value in tensors.values())])
    try:
        with _SizeLimit(largest):
            yield
    except (AttributeError, LookupError, TypeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise CheckpointError(f"the learner of these prompts cannot be built by their recipe: {error}") from error


class _SizeLimit(TorchFunctionMode):
    """Refuses to make a tensor of more numbers than ``largest``, on any device that has memory."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        size = 0
        if func in _FACTORIES and str(kwargs.get("device")) != "meta":
            sizes = args[0] if args and not isinstance(args[0], int) else args or kwargs.get("size", ())
            size = math.prod(each for each in sizes if isinstance(each, int))
        elif func in _COPIES and args[0].untyped_storage().nbytes() < args[0].numel() * args[0].element_size():
            size = args[0].numel()  # a view that repeats its numbers
        if size > self.largest:
            raise CheckpointError(
                f"the recipe of these prompts asks for a tensor of {size:,} numbers; the largest in their file, or for "
                f"their classes, has {self.largest:,}"
            )
        return func(*args, **kwargs)
