"""Sentences that describe classes, and their features by the frozen text tower."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.files import parse_json, read_text

SHIPPED = ("icons-11",)
"""Shipped files of descriptions, which cover all classes of the shipped sets."""
TEXTS_AT_ONCE = 512
"""Descriptions encoded per call, which limits the memory."""


def read_descriptions(source: str) -> dict[str, tuple[str, ...]]:
    """Read descriptions per class, from a shipped file or a JSON file ``{class: [description, ...]}``.

    Raises:
        ValueError: there is no such file, or it has another content; see ``checked``.
    """
    shipped = resources.files("maotune") / "assets" / "descriptions" / f"{source}.json"
    try:
        text = shipped.read_text(encoding="utf-8") if source in SHIPPED else read_text(Path(source))
        return checked(parse_json(text, f"the file of class descriptions {source!r}"), repr(source))
    except OSError as error:
        raise ValueError(
            f"cannot read the class descriptions {source!r} ({error.strerror}): give a JSON file "
            f"{{class: [description, ...]}}, or one of the shipped {', '.join(SHIPPED)}"
        ) from None


def checked(tree: object, where: str) -> dict[str, tuple[str, ...]]:
    """Return descriptions per class, by ``key`` of its name. A single description needs no list.

    Raises:
        ValueError: ``tree`` is not ``{class: [description, ...]}``; the message names the class, and ``where``.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"the class descriptions {where} must be an object {{class: [description, ...]}}")
    descriptions: dict[str, tuple[str, ...]] = {}
    for name, texts in tree.items():
        sentences = [texts] if isinstance(texts, str) else texts
        if not (isinstance(sentences, list | tuple) and sentences and all(_is_sentence(text) for text in sentences)):
            raise ValueError(f"the class descriptions {where} of {name!r} must be a list of at least one sentence")
        descriptions[key(name)] = tuple(sentences)
    return descriptions


def _is_sentence(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())


def key(name: str) -> str:
    """Return the key of a class name: underscores count as spaces, and case does not matter."""
    return name.replace("_", " ").casefold()


class Descriptions:
    """Class descriptions and their mean features. Not a module: nothing of it is tuned or saved.

    Args:
        clip: the frozen model.
        source: a shipped or own file, see ``read_descriptions``; or the descriptions of each class themselves.
        templates: describe a class that has no sentences, with its name in place of ``{}``.
    """

    def __init__(
        self, clip: FrozenCLIP, source: str | Mapping[str, Sequence[str]], templates: Sequence[str] = ()
    ) -> None:
        self.clip, self.templates = clip, templates
        self.where = repr(source) if isinstance(source, str) else "given"
        self.texts = read_descriptions(source) if isinstance(source, str) else checked(source, self.where)
        self._features: dict[str, Tensor] = {}

    def check(self, classes: Sequence[str]) -> None:
        """Check that every class has a description and that the descriptions fit into the context.

        Raises:
            ValueError: a class has none (the message names the first few), or one is too long (the message shows it).
        """
        missing = [name for name in classes if not self.of(name)]
        if missing:
            named = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise ValueError(
                f"the class descriptions {self.where} have none of {named}: this learner needs a sentence or more for "
                "every class (set learner.descriptions to a JSON file {class: [description, ...]})"
            )
        if classes:
            self.clip.tokenize([text for name in classes for text in self.of(name)])

    def of(self, name: str) -> tuple[str, ...]:
        """Return the descriptions of a class; none where it has no sentences and there are no templates."""
        words = name.replace("_", " ")
        return self.texts.get(key(name)) or tuple(text.replace("{}", words) for text in self.templates)

    @torch.no_grad()
    def features(self, classes: Sequence[str]) -> Tensor:
        """Return (C, d) normalised features, averaged over the descriptions of each class; computed once per class."""
        new = {key(name): self.of(name) for name in classes if key(name) not in self._features}
        texts = [text for described in new.values() for text in described]
        encoded = [
            F.normalize(self.clip.encode_texts(texts[start : start + TEXTS_AT_ONCE]), dim=-1)
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        if encoded:
            parts = torch.split(torch.cat(encoded), [len(described) for described in new.values()])
            self._features |= {name: part.mean(dim=0) for name, part in zip(new, parts, strict=True)}
        return torch.stack([self._features[key(name)] for name in classes])
