"""The feature bank: features of the frozen image tower, computed once for each content, model and view.

Layout: ``<folder>/features/<space>/<name>.safetensors``, where a space is one model, precision and kind of view. A
shard holds ``keys`` (n, 24) bytes (half of the content's SHA-256, then the view as a little-endian int64) and
``features`` (n, d) float32. Shards are written atomically with a checksum, never change, and are named by their
keys, so processes need no lock: where two of them compute the same features, they write the same file.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from maotune.data.cache import delete_damaged, read_cached, write_cached
from maotune.data.images.decode import Progress
from maotune.data.images.threads import map_in_threads
from maotune.data.images.views import View, view_seed
from maotune.data.sets.dataset import ImageRef, Sample
from maotune.files import DamagedFile, TensorFile, read_byte_rows, remove_leftovers

_ROWS = 2048
"""Rows of a shard, at most."""
_SECONDS = 20.0
"""A slow tower saves its features this often."""
_STALE_SECONDS = 24 * 3600.0
"""Age at which a temporary file must be from a process that was killed."""


class FeatureEncoder(Protocol):
    """The part of a frozen CLIP that the bank uses."""

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
        """Device that the tower computes on."""
        ...

    @property
    def joint_width(self) -> int:
        """d, the length of a feature."""
        ...

    @property
    def vision_width(self) -> int:
        """Length of a feature before the projection to the joint space."""
        ...

    def encode_image(self, images: Tensor, *, projected: bool = True) -> Tensor:
        """Encode pixels (B, 3, h, w) as features (B, d), or (B, w) before the projection to the joint space."""
        ...

    def project_image(self, features: Tensor) -> Tensor:
        """Project features (B, w) to the joint space, (B, d)."""
        ...


class _Request(NamedTuple):
    """A feature to compute."""

    key: bytes
    image: ImageRef
    digest: str
    view: int


class FeatureBank:
    """Features of images under views, computed once."""

    def __init__(self, clip: FeatureEncoder, folder: Path | None, batch_size: int | None = None) -> None:
        """Set up a bank; nothing is read or computed yet.

        Args:
            clip: computes the features.
            folder: of the shards; None keeps features in memory only.
            batch_size: images per forward pass (32, on a GPU 256).
        """
        self.clip, self.folder = clip, folder
        self.batch_size = batch_size or (256 if clip.device.type == "cuda" else 32)
        self.computed = 0
        """Number of features that this bank has computed."""
        self._spaces: dict[str, _Space] = {}

    def features(
        self,
        samples: Sequence[Sample],
        view: View,
        views: int = 1,
        progress: Progress | None = None,
        *,
        projected: bool = True,
    ) -> Tensor:
        """Return (N, views, d) float32 features on the CPU, not normalised, of views 0..``views``-1 of each image.

        Not ``projected``: (N, views, w), before the projection to the joint space; then both kinds are kept. Missing
        ones are computed, and saved at intervals: a run that was stopped resumes where it was.

        Raises:
            UnreadableImage: an image cannot be used. ``scan`` finds all of these beforehand.
        """
        if views < 1:
            raise ValueError(f"views is {views}: 1 or more are needed")
        space, joint = self._space(view, projected), self._space(view)
        requests: dict[bytes, _Request] = {}  # equal images are requested once
        keys = []
        for sample, digest in zip(samples, _digests(samples), strict=True):
            for number in range(views):
                keys.append(_key(digest, number))
                requests.setdefault(keys[-1], _Request(keys[-1], sample.image, digest, number))
        rows = {key: row for row, key in enumerate(requests)}
        out = torch.empty(len(requests), space.width)
        missing = dict(requests)
        for key, feature in space.read(requests):
            out[rows[key]] = feature
            del missing[key]
        done = len(requests) - len(missing)
        if progress is not None:
            progress(done, len(requests))
        already = set() if projected else joint.known()
        with space, joint:
            for batch, features, in_joint in self._compute(list(missing.values()), view, projected):
                space.add(batch, features)
                fresh = [row for row, key in enumerate(batch) if not projected and key not in already]
                if fresh:
                    joint.add([batch[row] for row in fresh], in_joint[fresh])
                out[[rows[key] for key in batch]] = features
                done += len(batch)
                self.computed += len(batch)
                if progress is not None:
                    progress(done, len(requests))
        if len(requests) < len(keys):
            out = out[[rows[key] for key in keys]]
        return out.view(len(samples), views, space.width)

    def missing(self, samples: Sequence[Sample], view: View, views: int = 1, *, projected: bool = True) -> int:
        """Count the features that are not kept yet and would have to be computed.

        Where the bank has none of this view, no image is read, and equal images are counted more than once.

        Raises:
            UnreadableImage: an image cannot be used.
        """
        known = self._space(view, projected).known()
        if not known:
            return len(samples) * views
        keys = {_key(digest, number) for digest in _digests(samples) for number in range(views)}
        return len(keys - known)

    def _space(self, view: View, projected: bool = True) -> "_Space":
        identity = (
            f"1 {self.clip.fingerprint} {self.clip.dtype} {view.fingerprint}{'' if projected else ' unprojected'}"
        )
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        if name not in self._spaces:
            folder = None if self.folder is None else self.folder / "features" / name
            self._spaces[name] = _Space(folder, self.clip.joint_width if projected else self.clip.vision_width)
        return self._spaces[name]

    @torch.no_grad()
    def _compute(
        self, requests: Sequence[_Request], view: View, projected: bool
    ) -> Iterator[tuple[list[bytes], Tensor, Tensor]]:
        """Yield keys, features and features in the joint space in batches, in the order of the requests.

        After an interruption the rest falls into the same batches, and so into the same bits. An image is decoded once
        for all of its views, in threads, about two batches ahead of the tower.
        """

        def decode(group: Sequence[_Request]) -> list[tuple[bytes, Tensor]]:
            picture = group[0].image.read()
            return [
                (request.key, view(picture, view_seed(view.seed, request.digest, request.view))) for request in group
            ]

        groups = [list(group) for _, group in groupby(requests, key=lambda request: request.digest)]
        ahead = max(4, 2 * self.batch_size * len(groups) // max(1, len(requests)))
        with closing(map_in_threads(decode, groups, ahead)) as decoded:
            pixels = chain.from_iterable(decoded)
            while batch := list(islice(pixels, self.batch_size)):
                images = self._fill(torch.stack([image for _, image in batch])).to(self.clip.device)
                if projected:
                    features = in_joint = self.clip.encode_image(images)
                else:
                    features = self.clip.encode_image(images, projected=False)
                    in_joint = self.clip.project_image(features)
                features, in_joint = (tensor[: len(batch)].float().cpu() for tensor in (features, in_joint))
                yield [key for key, _ in batch], features, in_joint

    def _fill(self, images: Tensor) -> Tensor:
        """Fill up an incomplete batch with black images, where features are kept on disk.

        The bits of a feature depend on the size of its batch. With full batches they depend neither on which features
        were missing nor on which of the processes that share a bank computed it.
        """
        if self.folder is None:
            return images
        return torch.cat([images, images.new_zeros(self.batch_size - len(images), *images.shape[1:])])


class _Space:
    """The shards of one model and view, and features that are in no shard yet. Leaving the context writes those."""

    def __init__(self, folder: Path | None, width: int) -> None:
        self.folder, self.width = folder, width
        self._places: dict[bytes, tuple[Path, int]] = {}
        """Shard and row of each key."""
        self._memory: dict[bytes, Tensor] = {}
        self._unsaved: list[bytes] = []
        self._shards: set[Path] = set()
        """Shards whose keys are known."""
        self._writable = True
        self._saved_at = time.monotonic()

    def __enter__(self) -> None:
        self._saved_at = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._save()

    def read(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Tensor]]:
        """Yield the keys that are kept, with their features. A damaged shard is deleted."""
        self._find_shards()
        by_shard: dict[Path, list[tuple[bytes, int]]] = {}
        for key in keys:
            if key in self._memory:
                yield key, self._memory[key]
            elif key in self._places:
                shard, row = self._places[key]
                by_shard.setdefault(shard, []).append((key, row))
        for shard, rows in by_shard.items():
            features = self._load(shard)
            for key, row in rows:
                if features is None:
                    del self._places[key]
                else:
                    yield key, features[row]

    def known(self) -> set[bytes]:
        """Return the keys of all that is kept, whether or not its shards are intact."""
        self._find_shards()
        return {*self._memory, *self._places}

    def add(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Keep features (n, d); they are written when a shard is full or after some time."""
        self._memory.update(zip(keys, features, strict=True))
        self._unsaved += keys
        if len(self._unsaved) >= _ROWS or time.monotonic() - self._saved_at > _SECONDS:
            self._save()

    def _find_shards(self) -> None:
        """Index the shards that this process or another has written since the last time."""
        if self.folder is None:
            return
        remove_leftovers(self.folder, older_than=_STALE_SECONDS)
        try:
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(".safetensors"))
        except OSError:  # there is no shard yet, or none that can be read
            return
        for name in names:
            shard = self.folder / name
            if shard in self._shards or not shard.is_file():
                continue
            try:
                keys = read_byte_rows(shard, "keys")
            except DamagedFile as error:
                delete_damaged(shard, error)
                continue
            except OSError:  # deleted by another process; or it may be read the next time
                continue
            self._shards.add(shard)
            for row, key in enumerate(keys):
                self._places.setdefault(key.tobytes(), (shard, row))

    def _load(self, shard: Path) -> Tensor | None:
        content = read_cached(shard, self._fits)
        return None if content is None else content.tensors["features"]

    def _fits(self, content: TensorFile) -> bool:
        """Whether a file is a shard of this space."""
        keys, features = content.tensors.get("keys"), content.tensors.get("features")
        if keys is None or features is None or features.shape != (len(keys), self.width):
            return False
        if content.checked:
            return self.folder is not None and content.texts.get("space") == self.folder.name
        # Older versions kept a checksum of the bytes of both tensors.
        older = hashlib.sha256(keys.numpy().tobytes() + features.numpy().tobytes())
        return content.texts.get("sha256") == older.hexdigest()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        unsaved, self._unsaved = self._unsaved, []
        if self.folder is None or not self._writable or not unsaved:
            return
        keys = torch.from_numpy(np.frombuffer(b"".join(unsaved), np.uint8).reshape(len(unsaved), -1).copy())
        features = torch.stack([self._memory[key] for key in unsaved])
        shard = self.folder / f"{hashlib.sha256(keys.numpy().tobytes()).hexdigest()[:32]}.safetensors"
        self._writable = write_cached(shard, {"keys": keys, "features": features}, {"space": self.folder.name})
        if not self._writable:
            return
        for row, key in enumerate(unsaved):
            self._places[key] = (shard, row)
            del self._memory[key]
        self._shards.add(shard)


def _digests(samples: Sequence[Sample]) -> list[str]:
    return list(map_in_threads(lambda sample: sample.image.digest(), samples))


def _key(digest: str, view: int) -> bytes:
    return bytes.fromhex(digest)[:16] + view.to_bytes(8, "little", signed=True)
