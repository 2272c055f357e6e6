"""A local cache of the Hugging Face hub, laid out as the hub's client does, and no network."""

from collections.abc import Callable
from pathlib import Path

import pytest


def commit(number: int) -> str:
    """The id of a commit."""
    return f"{number:040x}"


class HubCache:
    """Models by name and commit; nothing else can be had."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(self, name: str, number: int, write: Callable[[Path], object], branch: str = "main") -> str:
        """Write a model as a commit, at which a branch points from now on; return its id."""
        model = self.folder / f"models--{name.replace('/', '--')}"
        (model / "refs").mkdir(parents=True, exist_ok=True)
        (model / "refs" / branch).write_text(commit(number), encoding="utf-8")
        folder = model / "snapshots" / commit(number)
        folder.mkdir(parents=True)
        write(folder)
        return commit(number)
