"""Find the same picture on two sides of a split or under two labels: by content, and by its look in another size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from maotune.data.images.threads import map_in_threads
from maotune.data.sets.dataset import ImageRef, UnreadableImage
from maotune.printable import printable

_SIDE = 32
_FLAT = 16
"""A picture whose grey values span fewer of the 256 levels shows nothing."""
_BITS, _LEVELS = 12, 6.0
"""Two looks are of one picture if at most so many bits, and so many levels of colour on average, differ. Copies of
pictures in another size as JPEG differ by less (95 %); no two of 600 images of icons-11, on noise, do."""
_MOST = 20_000
"""Number of images on a side up to which looks are compared."""


class Look(NamedTuple):
    """A thumbnail of a picture."""

    gradient: int
    """64 bits: where the brightness of a thumbnail rises to the right (a difference hash)."""
    colours: bytes
    """RGB of an 8 x 8 thumbnail."""
    flat: bool
    """Whether the picture is nearly of one brightness."""


def look_at(picture: Image.Image) -> Look:
    """Return the look of an RGB picture; it takes a small part of the time that decoding took."""
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    grey = small.convert("L")
    levels = np.asarray(grey)
    columns = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits(columns[:, 1:] > columns[:, :-1]).tobytes()
    colours = small.resize((8, 8), Image.Resampling.BOX).tobytes()
    return Look(int.from_bytes(bits, "big"), colours, int(levels.max()) - int(levels.min()) < _FLAT)


def remarks_on_flat(looks: Mapping[str, Look]) -> list[str]:
    """Return a sentence on the pictures that are nearly of one brightness, if there are any."""
    flat = [printable(name) for name, look in looks.items() if look.flat]
    some = ", ".join(flat[:3]) + (", ..." if len(flat) > 3 else "")
    return [f"{len(flat)} picture{'s are' if len(flat) > 1 else ' is'} nearly flat: {some}"] if flat else []


class Member(NamedTuple):
    """An image of a data set or of a run."""

    image: ImageRef
    side: str
    """``training``, ``unlabelled``, or the name of the images that are scored."""
    label: str
    """Name of its class; empty where unknown."""


def remarks_on_copies(members: Sequence[Member], looks: Mapping[str, Look]) -> list[str]:
    """Return what is wrong with copies of pictures, a sentence each: two labels, two sides, the same in two sizes.

    Args:
        members: all images; those that cannot be read do not count.
        looks: by name of the image, as far as they are known.
    """
    digests = [*map_in_threads(_digest, members)]
    by_digest: dict[str, list[Member]] = {}
    for member, digest in zip(members, digests, strict=True):
        if digest is not None:
            by_digest.setdefault(digest, []).append(member)
    remarks = _two_labels(by_digest.values()) + _look_alikes_of_two_labels(by_digest.values(), looks)
    by_side: dict[str, list[tuple[Member, str]]] = {}
    for member, digest in zip(members, digests, strict=True):
        if digest is not None:
            by_side.setdefault(member.side, []).append((member, digest))
    sides = [*by_side]
    for number, first in enumerate(sides):
        for second in sides[number + 1 :]:
            if "unlabelled" in (first, second) and "training" in (first, second):
                continue  # no image is scored there
            remarks += _two_sides(by_side[first], by_side[second], looks)
    return remarks


def _two_labels(copies: Iterable[Sequence[Member]]) -> list[str]:
    pairs = []
    for members in copies:
        other = next((m for m in members if m.label and members[0].label not in ("", m.label)), None)
        if other is not None:
            pairs.append((members[0], other))
    if not pairs:
        return []
    (first, second), *_ = pairs
    what = f"{len(pairs)} picture{'s have' if len(pairs) > 1 else ' has'} two labels"
    return [f"{what}: {_name(first)} is {printable(first.label)}, {_name(second)} is {printable(second.label)}"]


def _look_alikes_of_two_labels(copies: Iterable[Sequence[Member]], looks: Mapping[str, Look]) -> list[str]:
    """Return a sentence on the pictures that look the same as one of another class, copies aside."""
    members = [copy[0] for copy in copies if copy[0].label and copy[0].image.name in looks]
    near = _similar(members, members, looks, lambda first, second: first.label != second.label)
    pairs = {frozenset((first.image.name, second.image.name)) for first, second in near}
    if not pairs:
        return []
    first, second = near[0]
    what = f"{len(pairs)} picture{'s look' if len(pairs) > 1 else ' looks'} the same as one with another label"
    return [f"{what}: {_name(first)} is {printable(first.label)}, {_name(second)} is {printable(second.label)}"]


def _two_sides(
    first: Sequence[tuple[Member, str]], second: Sequence[tuple[Member, str]], looks: Mapping[str, Look]
) -> list[str]:
    remarks = []
    there = {digest: member for member, digest in reversed(second)}
    here = {digest for _, digest in first}
    a, b = first[0][0].side, second[0][0].side
    if same := [(member, there[digest]) for member, digest in first if digest in there]:
        example = f"{_name(same[0][0])} and {_name(same[0][1])}"
        remarks.append(f"{len(same)} of {len(first)} {a} images are also {b} images, such as {example}")
    rest = [member for member, digest in second if digest not in here and member.image.name in looks]
    near = _similar(rest, [member for member, _ in first if member.image.name in looks], looks)
    if near:
        example = f"{_name(near[0][0])} and {_name(near[0][1])}"
        remarks.append(f"{len(near)} of {len(second)} {b} images look the same as {a} images, such as {example}")
    return remarks


def _similar(
    members: Sequence[Member],
    others: Sequence[Member],
    looks: Mapping[str, Look],
    counts: Callable[[Member, Member], bool] = lambda member, other: True,
) -> list[tuple[Member, Member]]:
    """Return the members that look like one of the others that ``counts``, with that one; flat ones look like none."""
    members = [member for member in members if not looks[member.image.name].flat]
    others = [member for member in others if not looks[member.image.name].flat]
    if not members or not others or max(len(members), len(others)) > _MOST:
        return []
    colours = np.stack([np.frombuffer(looks[m.image.name].colours, np.uint8) for m in others]).astype(np.int16)
    order = np.argsort(colours.mean(axis=1))
    colours, means = colours[order], colours.mean(axis=1)[order]
    pairs = []
    for member in members:
        look = looks[member.image.name]
        own = np.frombuffer(look.colours, np.uint8).astype(np.int16)
        # Two thumbnails differ at least by the difference of their means.
        start, end = np.searchsorted(means, (own.mean() - _LEVELS, own.mean() + _LEVELS))
        differences = np.abs(colours[start:end] - own).mean(axis=1)
        for at in np.flatnonzero(differences <= _LEVELS):
            other = others[order[start + at]]
            alike = (look.gradient ^ looks[other.image.name].gradient).bit_count() <= _BITS
            if alike and counts(member, other):
                pairs.append((member, other))
                break
    return pairs


def _digest(member: Member) -> str | None:
    try:
        return member.image.digest()
    except UnreadableImage:
        return None


def _name(member: Member) -> str:
    return printable(member.image.name)
