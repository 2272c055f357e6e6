"""Decode many images in threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from maotune.data.images.memory import decoding_job

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(function: Callable[[T], R], items: Iterable[T], ahead: int = 64) -> Generator[R, None, None]:
    """Yield the results of ``function`` in the order of ``items``, computed in threads up to ``ahead`` in advance.

    An error is raised where its result would be. Closing the generator ends the threads. Where ``function`` decodes
    large pictures, the threads take turns (``memory``).
    """

    def job(item: T) -> R:
        with decoding_job():
            return function(item)

    # Pillow releases the interpreter lock, so a few threads are worth it, many are not.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(job, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
