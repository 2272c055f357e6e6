"""Make CoOp's layout of a public data set from the archives that its authors offer. Nothing is downloaded."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maotune.data.images.decode import Progress
from maotune.data.sets import coop
from maotune.data.sets.archives import ArchiveError, unpack
from maotune.data.sets.check import Missing, is_there
from maotune.data.sets.named import Part, named_sets
from maotune.data.sets.walk import FolderWalk
from maotune.files import read_text

log = logging.getLogger(__name__)

_BUILDING = ".preparing-"
_STALE_SECONDS = 900.0
"""A temporary folder that is still in use is touched more often than this."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Result of ``prepare``."""

    name: str
    folder: str
    made: tuple[str, ...]
    """Files and folders that are new, below the folder."""
    present: tuple[str, ...]
    """Those that existed before; they are not touched."""
    missing: tuple[Missing, ...]
    """Those that are needed, and whose archives are missing."""


def prepare(name: str, root: Path, archives: Path | None = None, progress: Progress | None = None) -> Prepared:
    """Make CoOp's layout of a data set as far as its archives are present.

    Each file or folder appears atomically, and existing ones are not touched: after an interruption, run it again. The
    archives stay.

    Args:
        name: a key of ``named_sets()``.
        root: the folder of all data sets.
        archives: where the archives are; by default in the data set's own folder, or in ``root``.
        progress: called with bytes of the archive that is being unpacked.

    Raises:
        ArchiveError: an archive is broken, or not what it should be. OSError: no room, or no right to write.
    """
    row = named_sets()[name]
    folder = root / row.folder
    places = [folder, root] if archives is None else [archives, archives / row.folder]
    split = (Part(path=row.split_file, archives={row.split_file: ""}, annotation=True),) if row.split_file else ()
    parts = (*split, *row.parts)
    todo: dict[Path, list[Part]] = {}
    missing = []
    made = []
    for part in parts:
        if part.finish == "sort-validation" and _is_flat(folder / part.path):
            devkit = _first([place / (part.also or "") for place in places])
            if devkit is None:
                missing.append(part)
                continue
            _sort_validation(folder / part.path, devkit, progress or (lambda done, total: None))
            made.append(part.path)
        elif is_there(folder / part.path):
            continue
        elif (archive := _find(part, places, root)) is not None:
            todo.setdefault(archive, []).append(part)
        else:
            missing.append(part)
    for archive, its_parts in todo.items():
        folder.mkdir(parents=True, exist_ok=True)
        _unpack_parts(archive, its_parts, folder, places, progress)
    made += [part.path for its_parts in todo.values() for part in its_parts]
    split_there = row.split_file is not None and (folder / row.split_file).is_file()
    return Prepared(
        name,
        str(folder),
        tuple(made),
        tuple(part.path for part in parts if part.path not in made and part not in missing),
        tuple(
            Missing.from_part(part) for part in missing if part not in split and not (part.annotation and split_there)
        ),
    )


def _is_flat(folder: Path) -> bool:
    """Whether pictures lie in the folder that belong into class folders."""
    return folder.is_dir() and FolderWalk(folder).has_loose(folder)


def _find(part: Part, places: Sequence[Path], root: Path) -> Path | None:
    """Return an archive that is present and holds the part."""
    if part.also is not None and _first([place / part.also for place in places]) is None:
        return None
    siblings = [root / part.sibling] if part.sibling else []
    return _first([*(place / archive for archive in part.archives for place in places), *siblings])


def _first(files: Sequence[Path]) -> Path | None:
    return next((file for file in files if file.is_file()), None)


def _unpack_parts(
    archive: Path, parts: Sequence[Part], folder: Path, places: Sequence[Path], progress: Progress | None
) -> None:
    """Unpack the parts in one archive, in one pass, into a temporary folder; then move them to their places."""
    _clear_stale(folder)
    building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))

    def alive(done: int, total: int) -> None:
        os.utime(building)
        if progress is not None:
            progress(done, total)

    try:
        wanted: dict[str, str] = {}
        for number, part in enumerate(parts):
            inner, _, _ = part.archives.get(archive.name, "").partition("!")
            if inner:
                wanted[inner] = str(number)
            else:
                shutil.copyfile(archive, building / str(number))
        if wanted:
            unpack(archive, building, wanted, progress=alive)
        for number, part in enumerate(parts):
            unpacked = building / str(number)
            _, _, deeper = part.archives.get(archive.name, "").partition("!")
            if deeper:
                nested = unpacked.rename(building / f"{number}.archive")
                unpack(nested, building, {deeper: str(number)}, progress=alive)
            if part.finish is not None:
                devkit = _first([place / (part.also or "") for place in places])
                FINISH[part.finish](unpacked, devkit, alive)
            target = folder / part.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not is_there(target):  # another process may have been quicker
                os.rename(unpacked, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _clear_stale(folder: Path) -> None:
    for leftover in folder.glob(f"{_BUILDING}*"):
        if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
            log.warning("%s is left over from a run that was stopped: deleted", leftover)
            shutil.rmtree(leftover, ignore_errors=True)


def _unpack_synsets(folder: Path, _: Path | None, alive: Progress) -> None:
    """Unpack ImageNet's training images: one archive per class becomes one folder per class."""
    for inner in sorted(folder.glob("*.tar")):
        (folder / inner.stem).mkdir()
        unpack(inner, folder, {".": inner.stem}, progress=alive)
        inner.unlink()


def _sort_validation(folder: Path, devkit: Path | None, alive: Progress) -> None:
    """Sort ImageNet's validation images into one folder per class, by the labels in the development kit.

    Those that lie in class folders already stay: after an interruption, the rest is sorted.
    """
    assert devkit is not None  # the part is not made without it
    kit = folder.with_name(f"{folder.name}.kit")
    data = "ILSVRC2012_devkit_t12/data"
    unpack(devkit, folder.parent, {f"{data}/{name}": f"{kit.name}/{name}" for name in (_META, _TRUTH)}, progress=alive)
    synsets = coop.read_matlab(kit / _META)["synsets"].squeeze()
    by_number = {int(row["ILSVRC2012_ID"].squeeze()): str(row["WNID"].squeeze()) for row in synsets}
    truth = [int(line) for line in read_text(kit / _TRUTH).split()]
    shutil.rmtree(kit)
    images = sorted((path for path in folder.rglob("[!.]*") if path.is_file()), key=lambda path: path.name)
    if len(images) != len(truth):
        raise ArchiveError(f"{len(images)} validation images, but {devkit} has labels for {len(truth)}: get them again")
    for image, number in zip(images, truth, strict=True):
        place = folder / by_number[number]
        place.mkdir(exist_ok=True)
        image.rename(place / image.name)


_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
FINISH: Mapping[str, Callable[[Path, Path | None, Progress], None]] = {
    "synset-archives": _unpack_synsets,
    "sort-validation": _sort_validation,
}
"""Steps after unpacking, by their names in ``named.toml``."""
