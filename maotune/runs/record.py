"""Read what a JSON object holds into a typed record."""

import functools
from typing import Any, TypeVar

from pydantic import TypeAdapter

R = TypeVar("R")


def read_record(kind: type[R], tree: Any) -> R:
    """Return the record of a dataclass ``kind`` in a JSON object.

    Raises:
        ValueError: parts are missing, of other kinds, or of another version.
    """
    record: R = _adapter(kind).validate_python(tree)  # type: ignore[arg-type]
    return record


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
