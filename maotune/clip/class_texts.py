"""Class names as a text model reads them: two names of one text cannot be told apart."""

from collections.abc import Sequence
from functools import cache

from maotune.clip.tokenizer import Tokenizer, Tokens

PUBLISHED_TWICE = frozenset({"missile", "sunglasses"})
"""Names that two classes of ImageNet share in the published list of CLIP's authors, which CoOp uses."""


def refuse_same_texts(classes: Sequence[str], tokens: Tokens) -> None:
    """Refuse two classes whose texts have the same token ids: the model would never predict the second one.

    Args:
        classes: names.
        tokens: of one text per class, its name in a template.

    Raises:
        ValueError: there are two; the message names them and says what to do.
    """
    first: dict[bytes, str] = {}
    for name, ids in zip(classes, tokens.ids.numpy(), strict=True):
        key = ids.tobytes()
        if key not in first or name == first[key] in PUBLISHED_TWICE:
            first[key] = name
            continue
        same = f"the classes {first[key]!r} and {name!r} are the same text to the model, which cannot tell them apart"
        twice = f"the class {name!r} is given twice"
        raise ValueError(
            f"{twice if name == first[key] else same}. If they are one class, give all of its images one name (one "
            "folder, one label); if they are two, give them different names: rename one, or write display names into "
            "the class names file (--classes)"
        )


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
