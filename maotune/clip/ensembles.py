"""Templates of zero-shot CLIP: texts in which ``{}`` stands for the class name."""

from importlib.resources import files

_FILE = files("maotune") / "assets" / "templates" / "promptsrc-60.txt"
SIXTY = tuple(_FILE.read_text(encoding="utf-8").splitlines())
"""PromptSRC's ensemble: the first sixty of the eighty that CLIP's authors gave for ImageNet, the plainest first."""
