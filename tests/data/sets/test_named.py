"""The table of named data sets: every entry is complete, and a new entry is all that a new data set needs."""

import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from maotune.data.sets import coop, named
from maotune.data.sets.catalog import load_dataset, names
from maotune.data.sets.check import check
from maotune.data.sets.named import NamedSet, named_sets, sets_of
from maotune.data.sets.prepare import FINISH, prepare
from tests.data.sets.test_archives import tar
from tests.data.sets.test_folders import labelled

TABLE = Path(named.__file__).with_suffix(".toml")


@pytest.mark.parametrize("name", named_sets())
def test_every_entry_is_complete(name: str) -> None:
    row = named_sets()[name]
    assert row.reader in coop.READERS
    assert row.template.count("{}") == 1
    assert row.page.startswith("https://")
    assert row.split_file is None or row.split_file.startswith("split_zhou_")
    assert min(row.counts.classes, row.counts.test) > 0
    assert (row.counts.train > 0) == (row.suite == "coop-11")
    assert row.parts
    assert all(part.archives for part in row.parts)
    assert all(part.finish is None or part.finish in FINISH for part in row.parts)
    if row.split_file is None:
        assert not any(part.annotation for part in row.parts), "without a split file they are always needed"
    elif row.images != ".":
        assert row.images in {part.path for part in row.parts}


def test_names_and_folders_differ() -> None:
    assert len({row.folder for row in named_sets().values()}) == len(named_sets())
    assert sets_of("coop-11")[0] == "imagenet"
    assert len(sets_of("coop-11")) == 11
    assert set(sets_of("imagenet-shifts")) == {"imagenetv2", "imagenet-sketch", "imagenet-a", "imagenet-r"}


def test_an_unknown_or_missing_field_is_refused() -> None:
    entry = tomllib.loads(TABLE.read_text(encoding="utf-8"))["dtd"]
    for wrong in ({**entry, "licence": "?"}, {key: value for key, value in entry.items() if key != "template"}):
        with pytest.raises(ValidationError):
            TypeAdapter(NamedSet).validate_python(wrong)


def test_one_entry_is_a_new_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = """
        [beetles]
        suite = "coop-11"
        folder = "beetles"
        reader = "class-folders"
        images = "photos"
        counts = { classes = 1, train = 2, val = 1, test = 1 }
        template = "a photo of a {}, a type of beetle."
        page = "https://example.org/beetles"
        class_names = { rhino = "rhinoceros beetle" }
        parts = [{ path = "photos", archives = { "beetles.tar.gz" = "all/photos" } }]
    """
    monkeypatch.setitem(named_sets(), "beetles", NamedSet(**tomllib.loads(entry)["beetles"]))
    assert "beetles" in names()
    assert "get this from https://example.org/beetles" in check("beetles", tmp_path).advice(tmp_path)
    tar(tmp_path / "beetles.tar.gz", {f"all/photos/rhino/{number}.jpg": b"image" for number in range(4)})
    assert prepare("beetles", tmp_path).made == ("photos",)
    assert check("beetles", tmp_path).state == "complete"
    dataset = load_dataset("beetles", tmp_path)
    assert (dataset.classes, dataset.templates) == (("rhinoceros beetle",), ("a photo of a {}, a type of beetle.",))
    assert len(labelled(dataset, "train", tmp_path)) == 2


def test_counts_agree_with_what_the_papers_say_of_them() -> None:
    """Properties that a slip of the pen would break: halves and fifths of a class, and sums that are published."""
    counts = {name: row.counts for name, row in named_sets().items()}
    for name in ("caltech101", "dtd", "eurosat", "food101"):
        _, train, val, test = counts[name]
        assert abs(train - 0.5 * (train + val + test)) <= counts[name][0]
        assert abs(val - 0.2 * (train + val + test)) <= counts[name][0]
    sums = {"oxford-pets": 7349, "stanford-cars": 16185, "flowers102": 8189, "food101": 101_000, "dtd": 5640}
    sums |= {"fgvc-aircraft": 10_000, "sun397": 39_700, "eurosat": 27_000, "ucf101": 13_320}
    assert {name: sum(counts[name][1:]) for name in sums} == sums
