"""The feature bank: features of the frozen image tower, computed once for each content, model and view.

Layout: ``<folder>/features/<space>/<name>.safetensors``, where a space is one model, precision and kind of
view. A shard holds ``keys`` (n, 24) bytes (half of the content's SHA-256, then the view as a little-endian
int64) and ``features`` (n, d) float32. Shards appear by renaming, never change, and are named by their keys,
so that processes need no lock: two of them may compute the same thing, and the same thing is written.
"""

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from maotune.data.images.decode import Progress, decode_threads
from maotune.data.images.views import View, view_seed
from maotune.data.sets.dataset import ImageRef, Sample
from maotune.files import write_atomic

log = logging.getLogger(__name__)

_ROWS = 2048
"""Rows of a shard, at most."""
_SECONDS = 20.0
"""A slow tower saves what it has this often."""
_STALE_SECONDS = 24 * 3600.0
"""A temporary file of this age belongs to nobody any more."""


class ImageTower(Protocol):
    """What the bank needs of a frozen CLIP."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of weights and configuration."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision that the tower computes in."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def joint_width(self) -> int:
        """d, the length of a feature."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, d)."""
        ...


class CacheSize(NamedTuple):
    """What lies in a bank's folder."""

    shards: int
    bytes: int


def default_folder() -> Path:
    """``$MAOTUNE_CACHE``, or ``~/.cache/maotune``."""
    return Path(os.environ.get("MAOTUNE_CACHE") or Path.home() / ".cache" / "maotune")


def cache_size(folder: Path) -> CacheSize:
    """Number and bytes of the files that banks keep in ``folder``."""
    sizes = [file.stat().st_size for file in _files(folder)]
    return CacheSize(len(sizes), sum(sizes))


def clear_cache(folder: Path) -> CacheSize:
    """Delete the files that banks keep in ``folder``, and nothing else; returns what was deleted."""
    size = cache_size(folder)
    for file in _files(folder):
        file.unlink(missing_ok=True)
    for space in (folder / "features").glob("*"):
        if not any(space.iterdir()):
            space.rmdir()
    return size


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*/*.safetensors")) + sorted((folder / "features").glob("*/.*.tmp"))


class FeatureBank:
    """Features of images under views, computed once."""

    def __init__(self, clip: ImageTower, folder: Path | None, batch_size: int | None = None) -> None:
        """``folder`` None: in memory only. ``batch_size``: images a forward pass (32, on a GPU 256)."""
        self.clip, self.folder = clip, folder
        self.batch_size = batch_size or (256 if clip.device.type == "cuda" else 32)
        self.computed = 0
        """Features that this bank had to compute."""
        self._spaces: dict[str, _Space] = {}

    def features(
        self, samples: Sequence[Sample], view: View, views: int = 1, progress: Progress | None = None
    ) -> Tensor:
        """(N, views, d) float32 features on the CPU, not normalised, of views 0..``views``-1 of each image.

        What is missing is computed and saved as it goes: a stopped run continues where it was.

        Raises:
            UnreadableImage: an image cannot be used. ``scan`` finds all of these beforehand.
        """
        if views < 1:
            raise ValueError(f"views is {views}: 1 or more are needed")
        space = self._space(view)
        digests = _digests(samples)
        keys = [[_key(digest, number) for number in range(views)] for digest in digests]
        out = torch.empty(len(samples), views, self.clip.joint_width)
        places: dict[bytes, list[tuple[int, int]]] = {}
        for row, of_image in enumerate(keys):
            for number, key in enumerate(of_image):
                places.setdefault(key, []).append((row, number))
        missing = set(places)
        for key, feature in space.read(places):
            missing.discard(key)
            for place in places[key]:
                out[place] = feature
        wanted: list[tuple[bytes, ImageRef, str, int]] = []
        for key, at in places.items():
            if key in missing:
                row, number = at[0]
                wanted.append((key, samples[row].image, digests[row], number))
        done = len(places) - len(wanted)
        if progress is not None:
            progress(done, len(places))
        with space:
            for batch, features in self._compute(wanted, view):
                space.add(batch, features)
                for key, feature in zip(batch, features, strict=True):
                    for place in places[key]:
                        out[place] = feature
                done += len(batch)
                self.computed += len(batch)
                if progress is not None:
                    progress(done, len(places))
        return out

    def missing(self, samples: Sequence[Sample], view: View, views: int = 1) -> int:
        """How many of these features are not kept yet and would have to be computed.

        Raises:
            UnreadableImage: an image cannot be used.
        """
        keys = {_key(digest, number) for digest in _digests(samples) for number in range(views)}
        return len(keys - self._space(view).known())

    def size(self) -> CacheSize:
        """Number and bytes of the shards on disk."""
        return CacheSize(0, 0) if self.folder is None else cache_size(self.folder)

    def clear(self) -> CacheSize:
        """Forget all features, on disk too; returns what was deleted from the disk."""
        self._spaces.clear()
        return CacheSize(0, 0) if self.folder is None else clear_cache(self.folder)

    def _space(self, view: View) -> "_Space":
        identity = f"1 {self.clip.fingerprint} {self.clip.dtype} {view.fingerprint}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        if name not in self._spaces:
            folder = None if self.folder is None else self.folder / "features" / name
            self._spaces[name] = _Space(folder, self.clip.joint_width)
        return self._spaces[name]

    @torch.no_grad()
    def _compute(
        self, wanted: Sequence[tuple[bytes, ImageRef, str, int]], view: View
    ) -> Iterator[tuple[list[bytes], Tensor]]:
        """Features in batches of consecutive rows.

        After an interruption the rest falls into the same batches, and so into the same bits. An image is
        decoded once for all of its views, in threads, two batches ahead of the tower.
        """

        def pixels(image: ImageRef, digest: str, numbers: Sequence[int]) -> list[Tensor]:
            picture = image.read()
            return [view(picture, view_seed(digest, number)) for number in numbers]

        images = [list(group) for _, group in groupby(wanted, key=lambda item: item[2])]
        pool = ThreadPoolExecutor(decode_threads())
        ahead: deque[tuple[list[bytes], Future[list[Tensor]]]] = deque()
        queued = 0
        keys: list[bytes] = []
        rows: list[Tensor] = []
        coming = iter(images)
        try:
            while True:
                while queued < 3 * self.batch_size and (group := next(coming, None)) is not None:
                    _, image, digest, _ = group[0]
                    ahead.append(
                        ([item[0] for item in group], pool.submit(pixels, image, digest, [item[3] for item in group]))
                    )
                    queued += len(group)
                while ahead and len(rows) < self.batch_size:
                    of_image, future = ahead.popleft()
                    keys, rows = keys + of_image, rows + future.result()
                if not rows:
                    return
                batch, rows = torch.stack(rows[: self.batch_size]), rows[self.batch_size :]
                features = self.clip.encode_image(self._filled(batch).to(self.clip.device)).float().cpu()
                yield keys[: self.batch_size], features[: len(batch)]
                keys = keys[self.batch_size :]
                queued -= len(batch)
        finally:
            pool.shutdown(cancel_futures=True)

    def _filled(self, batch: Tensor) -> Tensor:
        """What is kept on disk comes from full batches, the last one filled with black: the bits of a feature depend on
        the size of its batch, and else on who computed it, among processes that share a bank, and on what was missing.
        """
        if self.folder is None:
            return batch
        return torch.cat([batch, batch.new_zeros(self.batch_size - len(batch), *batch.shape[1:])])


class _Space:
    """The shards of one model and view, and rows that are in no shard yet. Leaving the context writes those."""

    def __init__(self, folder: Path | None, width: int) -> None:
        self.folder, self.width = folder, width
        self._where: dict[bytes, tuple[Path, int]] = {}
        self._memory: dict[bytes, Tensor] = {}
        self._seen: set[Path] = set()
        self._fresh: list[bytes] = []
        self._saved_at = time.monotonic()

    def __enter__(self) -> None:
        self._saved_at = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._flush()

    def read(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Tensor]]:
        """Key and feature of those that are known. A damaged shard is deleted; what it held is not known."""
        self._look()
        by_shard: dict[Path, list[tuple[bytes, int]]] = {}
        for key in keys:
            if key in self._memory:
                yield key, self._memory[key]
            elif key in self._where:
                shard, row = self._where[key]
                by_shard.setdefault(shard, []).append((key, row))
        for shard, rows in by_shard.items():
            features = self._load(shard)
            for key, row in rows:
                if features is None:
                    del self._where[key]
                else:
                    yield key, features[row]

    def known(self) -> set[bytes]:
        """The keys of all that is kept, whether or not its shards are sound."""
        self._look()
        return {*self._memory, *self._where}

    def add(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Keep features (n, d); they are written when a shard is full or some time has gone by."""
        self._memory.update(zip(keys, features, strict=True))
        self._fresh += keys
        if len(self._fresh) >= _ROWS or time.monotonic() - self._saved_at > _SECONDS:
            self._flush()

    def _look(self) -> None:
        """Find shards that appeared since the last time, written by this process or another."""
        if self.folder is None or not self.folder.is_dir():
            return
        for entry in sorted(self.folder.iterdir()):
            if entry.suffix == ".tmp" and time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                entry.unlink(missing_ok=True)
            if entry.suffix != ".safetensors" or entry in self._seen:
                continue
            self._seen.add(entry)
            try:
                with safe_open(entry, framework="numpy") as shard:
                    keys = np.ascontiguousarray(shard.get_tensor("keys"))
            except FileNotFoundError:
                continue
            except (SafetensorError, OSError) as error:
                _distrust(entry, error)
                continue
            blob, length = keys.tobytes(), keys.shape[1]
            for row in range(len(keys)):
                self._where.setdefault(blob[row * length : (row + 1) * length], (entry, row))

    def _load(self, entry: Path) -> Tensor | None:
        try:
            with safe_open(entry, framework="pt") as shard:
                keys, features = shard.get_tensor("keys"), shard.get_tensor("features")
                checksum = (shard.metadata() or {}).get("sha256")
        except FileNotFoundError:  # cleared by another process
            return None
        except (SafetensorError, OSError) as error:
            _distrust(entry, error)
            return None
        if features.shape != (len(keys), self.width) or checksum != _checksum(keys, features):
            _distrust(entry, "its checksum does not fit")
            return None
        return torch.as_tensor(features)

    def _flush(self) -> None:
        self._saved_at = time.monotonic()
        if self.folder is None or not self._fresh:
            return
        keys = torch.from_numpy(np.frombuffer(b"".join(self._fresh), np.uint8).reshape(len(self._fresh), -1).copy())
        features = torch.stack([self._memory[key] for key in self._fresh])
        target = self.folder / f"{hashlib.sha256(keys.numpy().tobytes()).hexdigest()[:32]}.safetensors"
        try:
            write_atomic(target, save({"keys": keys, "features": features}, {"sha256": _checksum(keys, features)}))
        except OSError as error:
            log.warning("cannot save features in %s (%s); they stay in memory", self.folder, error)
            self._fresh.clear()
            return
        for row, key in enumerate(self._fresh):
            self._where[key] = (target, row)
            del self._memory[key]
        self._seen.add(target)
        self._fresh.clear()


def _digests(samples: Sequence[Sample]) -> list[str]:
    with ThreadPoolExecutor(decode_threads()) as pool:
        return list(pool.map(lambda sample: sample.image.digest(), samples))


def _key(digest: str, view: int) -> bytes:
    return bytes.fromhex(digest)[:16] + view.to_bytes(8, "little", signed=True)


def _checksum(keys: Tensor, features: Tensor) -> str:
    return hashlib.sha256(keys.numpy().tobytes() + features.contiguous().numpy().tobytes()).hexdigest()


def _distrust(shard: Path, why: object) -> None:
    log.warning("the feature shard %s is damaged (%s): deleted, its features are computed again", shard, why)
    shard.unlink(missing_ok=True)
