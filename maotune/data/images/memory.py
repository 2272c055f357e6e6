"""Memory of decoding: all threads together stay below 1 GiB; where pictures are large, they take turns."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LIMIT = (1 << 30) - (1 << 27)
"""Bytes that pictures may use in all threads together: 1 GiB without an eighth, which is left to decoders' buffers."""


class _Thread(threading.local):
    """State of the current thread."""

    job: ExitStack | None = None
    reserves: bool = False


_thread = _Thread()
_changed = threading.Condition()
_used = 0


@contextmanager
def decoding_job() -> Iterator[None]:
    """Keep what ``reserve`` reserves within the block until the block ends: it decodes a picture and uses it."""
    with ExitStack() as job:
        _thread.job = job
        try:
            yield
        finally:
            _thread.job = None


@contextmanager
def reserve(size: int) -> Iterator[None]:
    """Reserve ``size`` bytes for the block, or to the end of the ``decoding_job``; wait while others use too many.

    A thread that has reserved some already never waits, so threads cannot wait for each other.
    """
    with ExitStack() as block:
        if not _thread.reserves:
            (_thread.job or block).enter_context(_turn(size))
        yield


@contextmanager
def _turn(size: int) -> Iterator[None]:
    global _used  # noqa: PLW0603 - one limit for the process
    with _changed:
        _changed.wait_for(lambda: not _used or _used + size <= LIMIT)
        _used += size
    _thread.reserves = True
    try:
        yield
    finally:
        _thread.reserves = False
        with _changed:
            _used -= size
            _changed.notify_all()
