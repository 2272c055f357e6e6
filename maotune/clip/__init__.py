"""The frozen CLIP: loading, text and image towers with prompts as arguments, zero-shot texts. Imports no learner."""

from maotune.clip.load import load_clip
from maotune.clip.model import FrozenCLIP
from maotune.clip.preprocess import Preprocess
from maotune.clip.tokenizer import Tokenizer, Tokens

__all__ = ["FrozenCLIP", "Preprocess", "Tokenizer", "Tokens", "load_clip"]
