"""Tune the prompts of a frozen CLIP with a handful of images; MAO tunes any prompt learner in two stages."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load", "load_clip", "tune"]

if TYPE_CHECKING:
    from maotune.api import Run, load, tune
    from maotune.clip import load_clip


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``maotune --help`` shall not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'maotune' has no attribute {name!r}; there are {', '.join(__all__)}")
    from maotune import api, clip

    return getattr(clip if name == "load_clip" else api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
