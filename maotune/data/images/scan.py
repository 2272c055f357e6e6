"""Find out which of many images can be read."""

from collections.abc import Sequence
from typing import NamedTuple

from maotune.data.images.decode import Progress
from maotune.data.images.duplicates import Look, look_at
from maotune.data.images.threads import map_in_threads
from maotune.data.sets.dataset import Sample, Skipped, UnreadableImage, list_skipped


class ScanResult(NamedTuple):
    """Result of ``scan``: unpacks into the readable samples and the skipped images."""

    kept: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]

    def summary(self, most: int = 10) -> str:
        """Return the counts by kind, then up to ``most`` of the skipped images, one per line."""
        total = len(self.kept) + len(self.skipped)
        if not self.skipped:
            return f"all {total} images can be read"
        return f"{len(self.skipped)} of {total} images cannot be used: {list_skipped(self.skipped, most)}"


def scan_images(
    samples: Sequence[Sample],
    strict: bool = False,
    progress: Progress | None = None,
    looks: dict[str, Look] | None = None,
) -> ScanResult:
    """Decode every image once, in threads, and separate those that cannot be used. Files are never changed.

    Args:
        samples: the images.
        strict: an image that cannot be used is an error.
        progress: called after each image.
        looks: filled with the looks of the images, by name, to find copies and flat pictures (``duplicates``).

    Raises:
        UnreadableImage: ``strict`` and an image cannot be used; the message counts and lists them.
    """

    def attempt(sample: Sample) -> Skipped | None:
        try:
            picture = sample.image.read()
        except UnreadableImage as error:
            return Skipped(sample.image.name, error.kind, str(error))
        if looks is not None:
            looks[sample.image.name] = look_at(picture)
        return None

    kept: list[Sample] = []
    skipped: list[Skipped] = []
    results = zip(samples, map_in_threads(attempt, samples), strict=True)
    for done, (sample, failure) in enumerate(results, 1):
        if failure is None:
            kept.append(sample)
        else:
            skipped.append(failure)
        if progress is not None:
            progress(done, len(samples))
    result = ScanResult(tuple(kept), tuple(skipped))
    if strict and skipped:
        raise UnreadableImage(result.summary(), skipped[0].kind)
    return result
