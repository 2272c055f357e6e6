"""Which images are tuned on and which are scored: what a protocol is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from maotune.data.dataset import Sample
from maotune.data.sampling import UnlabelledPool


@dataclass(frozen=True, slots=True)
class Test:
    """Labelled images that nothing is chosen by, and the classes to choose from."""

    classes: tuple[str, ...]
    samples: Sequence[Sample]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The data of one run."""

    name: str
    """Of the data set."""
    classes: tuple[str, ...]
    """The classes with labelled images (the base classes)."""
    shots: Sequence[Sample]
    """Their few labelled images."""
    train: Sequence[Sample]
    """The whole training split of these classes."""
    new_classes: tuple[str, ...] = ()
    """The classes of the new stage."""
    unlabelled: UnlabelledPool | None = None
    """Its images."""
    tests: Mapping[str, Test] = field(default_factory=dict)
    """By name: ``base`` and ``new``, or ``val`` and ``test``."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """The data set's own zero-shot prompts."""

    def fingerprint(self) -> str:
        """Hex SHA-256 of all that is tuned on and scored: images by content, their order, labels and class names."""
        found = sha256()
        parts = [("shots", self.classes, self.shots)]
        parts += [(name, test.classes, test.samples) for name, test in self.tests.items()]
        if self.unlabelled is not None:
            parts.append(("unlabelled", self.new_classes, self.unlabelled.samples))
        for name, classes, samples in parts:
            found.update("\n".join((name, *classes, "")).encode())
            for sample in samples:
                found.update(f"{sample.label} {sample.image.digest()}\n".encode())
        return found.hexdigest()
