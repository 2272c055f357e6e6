"""Class names as a text model reads them: two names of one text cannot be told apart."""

import unicodedata
from collections.abc import Sequence
from functools import cache

from maotune.clip.tokenizer import Tokenizer, Tokens

PUBLISHED_TWICE = frozenset({"missile", "sunglasses"})
"""Names that two classes of ImageNet share in the published list of CLIP's authors, which CoOp uses."""
_BLANK = dict.fromkeys(map(ord, "_\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0"), " ")
"""The underscore, and what counts as a letter, symbol or mark and shows nothing."""


def refuse_same_texts(classes: Sequence[str], tokens: Tokens) -> None:
    """Refuse two classes whose texts have the same token ids: the model would never predict the second one.

    Blank names are refused, too, and two that people cannot tell apart, as one has characters that nobody sees.

    Args:
        classes: names.
        tokens: of one text per class, its name in a template.

    Raises:
        ValueError: there are such names; the message says which, and what to do.
    """
    first: dict[bytes | str, str] = {}
    for name, ids in zip(classes, tokens.ids.numpy(), strict=True):
        keys = (ids.tobytes(), _seen(name))
        if not keys[1]:
            raise ValueError(f"the class name {name!r} is blank: give the class a name that a caption would use")
        other = next((first[key] for key in keys if key in first), None)
        if other is None or name == other in PUBLISHED_TWICE:
            first |= dict.fromkeys(keys, name)
            continue
        same = f"the classes {other!r} and {name!r} are the same text to the model, which cannot tell them apart"
        twice = f"the class {name!r} is given twice"
        raise ValueError(
            f"{twice if name == other else same}. If they are one class, give all of its images one name (one "
            "folder, one label); if they are two, give them different names: rename one, or write display names into "
            "the class names file (--classes)"
        )


def _seen(name: str) -> str:
    """Return what people and the model see of a name: no case, no underscores, no characters without a glyph."""
    seen = (letter for letter in name if letter.isspace() or unicodedata.category(letter) not in ("Cc", "Cf", "Cs"))
    return " ".join("".join(seen).translate(_BLANK).casefold().split())


def refuse_same_names(classes: Sequence[str]) -> None:
    """Refuse two names that are the same text to CLIP's own tokenizer, before any model is loaded.

    Raises:
        ValueError: see ``refuse_same_texts``.
    """
    if classes:
        refuse_same_texts(classes, _tokenizer()([name.replace("_", " ") for name in classes]))


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.openai(context_length=1 << 20)
