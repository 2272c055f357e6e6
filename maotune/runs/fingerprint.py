"""The fingerprint of a run's data: recorded with it, compared when it is reused or resumed, shown in the report."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from maotune.clip.openai_names import first_few
from maotune.data.images.decode import ImageFile, file_version, is_settled
from maotune.data.images.shards import TarImage
from maotune.data.images.threads import map_in_threads
from maotune.data.sets.dataset import ImageRef, Sample, UnreadableImage
from maotune.protocols.protocol import CROSS_VALIDATED, Splits
from maotune.recipe.schema import Recipe
from maotune.runs.build import build_splits, redraw_splits

DataRecord = Mapping[str, Any]
"""What ``record_data`` returns, also as read from JSON."""
Part = tuple[str, tuple[str, ...], Sequence[Sample]]
"""Name, classes and images of a part of the data."""

_WORDS = {"shots": "images tuned on", "train": "training split", "unlabelled": "unlabelled pool"}


def record_data(splits: Splits, skipped: Collection[str], whole_train: bool) -> DataRecord:
    """Describe the data of a run, as JSON can hold it.

    ``fingerprint`` is the hex SHA-256 of all that is tuned on and scored: contents of images, order, labels, classes.
    ``stamp`` is the same of sizes and times of the files, to tell without reading them that they are as they were.
    ``classes`` and ``parts`` say what differs between two runs.

    Args:
        splits: the images that were drawn.
        skipped: names of what was left out, among it images that cannot be read.
        whole_train: whether the run uses the whole training split.
    """
    stamp = _hash_parts(_parts(splits, whole_train), _touched)
    counts = Counter(sample.label for sample in splits.train)
    by_class = [counts[label] for label in range(len(splits.classes))]
    parts: dict[str, dict[str, Any]] = {"train": {"images": len(splits.train), "by_class": by_class}}
    for name, classes, samples in _parts(splits, whole_train):
        digests = _each(_digest, samples)
        labels = [classes[sample.label] if sample.label >= 0 else "" for sample in samples]
        named = [f"{digest} {label}" for digest, label in zip(digests, labels, strict=True)]
        hashes = {"content": _hash(sorted(digests)), "labels": _hash(sorted(named))}
        parts[name] = {**parts.get(name, {}), "images": len(samples), **hashes}
    tested = [name for test in splits.tests.values() for name in test.classes]
    return {
        "base_classes": len(splits.classes),
        "new_classes": len(splits.new_classes),
        "fingerprint": _hash_parts(_parts(splits), _digest),
        "stamp": stamp,
        "classes": list(dict.fromkeys([*splits.classes, *splits.new_classes, *tested])),
        "parts": parts,
        "skipped": sorted(skipped),
    }


def data_differences(before: DataRecord, now: DataRecord) -> list[str]:
    """Say what differs between two records of data: classes, images, labels, unlabelled pool; empty: nothing."""
    if "parts" not in before:  # recorded by an older version
        same = before.get("fingerprint") in (None, now["fingerprint"])
        return [] if same else ["images, labels or class names"]
    if _deciding(before) == _deciding(now):
        return []
    removed, added = (
        [name for name in one["classes"] if name not in {*other["classes"]}]
        for one, other in ((before, now), (now, before))
    )
    changes = [f"{word} {first_few(names)}" for word, names in (("without", removed), ("with", added)) if names]
    differences = [f"classes: {' and '.join(changes)}"] if changes else []
    same_classes = before["classes"] == now["classes"]
    if not changes and not same_classes:
        differences.append("classes: in another order")
    for name in {**before["parts"], **now["parts"]}:
        was, here = (record["parts"].get(name, {"images": 0}) for record in (before, now))
        difference = ""
        if same_classes and was.get("by_class") != here.get("by_class"):
            counts = zip(now["classes"], was["by_class"], here["by_class"], strict=False)
            difference = first_few([f"{new} of {label} instead of {old}" for label, old, new in counts if new != old])
        elif was["images"] != here["images"]:
            difference = f"{here['images']} instead of {was['images']}"
        elif was.get("content") != here.get("content"):
            difference = "other pictures"
        elif same_classes and was.get("labels") != here.get("labels"):
            difference = "other labels"
        if difference:
            differences.append(f"{_WORDS.get(name, f'{name} images')}: {difference}")
    return differences or ["images: in another order, as their names have changed"]


def _deciding(record: DataRecord) -> tuple[Any, ...]:
    return record["fingerprint"], record["parts"]["train"].get("content")


class DataComparison:
    """Compares what runs have recorded of their data with what is there now; the same data are drawn once."""

    def __init__(self) -> None:
        self._present: dict[str, _PresentData] = {}

    def differences(self, recipe: Recipe, before: DataRecord | None) -> list[str]:
        """Say how the data that ``recipe`` draws now differ from a record; empty: not at all, or there is no record.

        Files are read where one of them was touched, and decoded where its content is another.

        Raises:
            ValueError: there are no such data any more, or they do not fit the protocol.
        """
        if before is None:
            return []
        skipped = tuple(before.get("skipped", ()))
        key = f"{recipe.protocol_in_use.name} {recipe.draw_settings} {recipe.data} {recipe.mao.pool} {skipped}"
        present = self._present.setdefault(key, _PresentData(recipe, skipped))
        with _without_notes():
            if present.splits is not None and before.get("stamp") == present.stamp:
                return []
            if present.undecoded is not None and not data_differences(before, present.undecoded):
                return []
            return data_differences(before, present.record)


@contextmanager
def _without_notes() -> Iterator[None]:
    """Log nothing on the data that are compared: what is tuned on them says it again."""
    log = logging.getLogger("maotune")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


class _PresentData:
    """The data that a recipe draws now, found out step by step."""

    def __init__(self, recipe: Recipe, skipped: Collection[str]) -> None:
        self.recipe, self.skipped, self.whole_train = recipe, skipped, recipe.mao.pool == "train"

    @functools.cached_property
    def splits(self) -> Splits | None:
        """What is drawn if the same images as before cannot be read; None where one of the drawn ones is gone."""
        try:
            return redraw_splits(self.recipe, self.skipped)
        except UnreadableImage:
            return None

    @functools.cached_property
    def stamp(self) -> str:
        return _hash_parts(_parts(self.splits, self.whole_train), _touched) if self.splits is not None else ""

    @functools.cached_property
    def undecoded(self) -> DataRecord | None:
        try:
            return record_data(self.splits, self.skipped, self.whole_train) if self.splits is not None else None
        except UnreadableImage:
            return None

    @functools.cached_property
    def record(self) -> DataRecord:
        drawn = build_splits(self.recipe)
        return record_data(drawn.splits, [item.name for item in drawn.skipped], self.whole_train)


def _parts(splits: Splits, whole_train: bool = False) -> Iterator[Part]:
    yield "shots", splits.classes, splits.shots
    for name, test in splits.tests.items():
        if name != CROSS_VALIDATED:  # the images that are tuned on
            yield name, test.classes, test.samples
    if splits.unlabelled is not None:
        yield "unlabelled", splits.new_classes, splits.unlabelled.samples
    if whole_train:
        yield "train", splits.classes, splits.train


def _hash_parts(parts: Iterator[Part], content: Callable[[ImageRef], str]) -> str:
    lines: list[str] = []
    for name, classes, samples in parts:
        lines += [name, *classes]
        lines += [f"{s.label} {text}" for s, text in zip(samples, _each(content, samples), strict=True)]
    return _hash([*lines, ""])


def _hash(lines: Sequence[str]) -> str:
    return sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()  # names of files may be any bytes


def _each(content: Callable[[ImageRef], str], samples: Sequence[Sample]) -> list[str]:
    return list(map_in_threads(lambda sample: content(sample.image), samples))


def _digest(image: ImageRef) -> str:
    return image.digest()


def _touched(image: ImageRef) -> str:
    """Return what changes whenever a file is written; the digest, where that is safer or reads no file."""
    if not isinstance(image, ImageFile | TarImage):
        return image.digest()
    try:
        status = (image.path if isinstance(image, ImageFile) else image.shard).stat()
    except OSError:
        return "gone"
    if not is_settled(status):
        return image.digest()
    place = () if isinstance(image, ImageFile) else (image.offset, image.size)
    return str((*file_version(status), *place))
