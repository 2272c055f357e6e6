"""Find out which of many images can be read."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from maotune.data.images.decode import Progress
from maotune.data.images.threads import map_in_threads
from maotune.data.sets.dataset import Sample, UnreadableImage


class Skipped(NamedTuple):
    """An image that cannot be read."""

    name: str
    kind: str
    reason: str


class ScanResult(NamedTuple):
    """Result of ``scan``: unpacks into the readable samples and the skipped images."""

    kept: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]

    def summary(self, most: int = 10) -> str:
        """Return the counts by kind, then up to ``most`` of the skipped images, one per line."""
        total = len(self.kept) + len(self.skipped)
        if not self.skipped:
            return f"all {total} images can be read"
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(s.kind for s in self.skipped).items()))
        lines = [f"{len(self.skipped)} of {total} images cannot be used: {kinds}"]
        lines += [f"  {image.reason}" for image in self.skipped[:most]]
        if len(self.skipped) > most:
            lines.append(f"  ... and {len(self.skipped) - most} more")
        return "\n".join(lines)


def scan_images(samples: Sequence[Sample], strict: bool = False, progress: Progress | None = None) -> ScanResult:
    """Decode every image once, in threads, and separate those that cannot be used. Files are never changed.

    Raises:
        UnreadableImage: ``strict`` and an image cannot be used; the message counts and lists them.
    """

    def attempt(sample: Sample) -> Skipped | None:
        try:
            sample.image.read()
        except UnreadableImage as error:
            return Skipped(sample.image.name, error.kind, str(error))
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
