"""Provenance of a result: what it depends on beside its recipe."""

import functools
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch

from maotune.clip import FrozenCLIP
from maotune.mao.name_encoder import NameEncoder
from maotune.runs.fingerprint import DataRecord


def environment(clip: FrozenCLIP, data: DataRecord, encoder: NameEncoder | None) -> dict[str, Any]:
    """Return versions, commit, machine, and fingerprints of models and data, as JSON can hold them."""
    compared_by = {}
    if encoder is not None:
        compared_by["name_encoder"] = {key: getattr(encoder, key) for key in ("name", "sha256", "revision")}
    return {
        "maotune": version("maotune"),
        "git": commit(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "device": str(clip.device),
        "threads": torch.get_num_threads(),
        "clip": {
            "name": clip.name,
            "fingerprint": clip.fingerprint,
            "revision": clip.revision,
            "dtype": str(clip.dtype).removeprefix("torch."),
        },
        **compared_by,
        "data": data,
    }


@functools.cache
def commit() -> dict[str, Any] | None:
    """Return the ``commit`` of maotune's own code and whether it was ``changed`` since.

    None where neither a git checkout nor pip knows.
    """
    package = Path(__file__).parents[1]
    if (
        _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    ):  # not just a checkout of something else around it
        head, changed = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
        return {"commit": head, "changed": bool(changed)} if head else None
    try:
        installed = json.loads(distribution("maotune").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    revision = installed.get("vcs_info", {}).get("commit_id")
    return {"commit": revision, "changed": False} if revision else None


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command in ``folder``; None where it fails."""
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
