"""Imports of the fork server, before it forks any process. It ends at once when its driver does, also meanwhile."""

import atexit
import os
import threading


def _end_with(driver: int, imported: threading.Event) -> None:
    while not imported.wait(0.1):
        if os.getppid() != driver:
            os._exit(1)


_imported = threading.Event()
_watcher = threading.Thread(target=_end_with, args=(os.getppid(), _imported), daemon=True)
_watcher.start()
try:
    import transformers.models.clip.modeling_clip  # noqa: F401  every trial needs it, and it takes several seconds

    import maotune.sweep.trial  # noqa: F401
finally:
    _imported.set()
    _watcher.join()  # a process with threads must not fork
atexit.register(os._exit, 0)  # the server only waits: without this, it would take seconds to free what it imported
