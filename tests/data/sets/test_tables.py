"""Tables of images: what is understood, and what the errors say."""

import json
import unicodedata
from pathlib import Path

import pytest

from maotune.data.sets.tables import read_split_json, read_table
from tests.data.sets.test_folders import labelled, touch

TABLE = [
    ("a.jpg", "cat", "train"),
    ("b.jpg", "dog, small", "val"),
    ("c.jpg", "cat", "test"),
    ("d.jpg", "", ""),
    ("e.jpg", "cat", "unlabelled"),
]


def write_table(path: Path) -> Path:
    if path.suffix == ".jsonl":
        rows = [json.dumps({"path": image, "label": label, "split": split}) for image, label, split in TABLE]
        path.write_text("\n\n".join(rows))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        quoted = [(image, f'"{label}"', split) for image, label, split in TABLE]
        path.write_text("\n".join(separator.join(row) for row in [("Path", "label", " split"), *quoted]))
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    dataset = read_table(write_table(tmp_path / f"pets.{suffix}"), tmp_path / "images")
    assert dataset.name == "pets"
    assert dataset.classes == ("cat", "dog, small")
    images = tmp_path / "images"
    assert labelled(dataset, "train", images) == [("a.jpg", "cat")]
    assert labelled(dataset, "val", images) == [("b.jpg", "dog, small")]
    assert labelled(dataset, "test", images) == [("c.jpg", "cat")]
    assert [Path(s.image.name).name for s in dataset.unlabelled] == ["d.jpg", "e.jpg"]


def test_a_table_without_splits_is_split_and_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(60)]
    touch(tmp_path, *names)
    lines = [f"{name},{number % 12}" for number, name in enumerate(names)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    dataset = read_table(tmp_path / "table.csv")
    assert dataset.classes == tuple(str(number) for number in range(12))
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [24, 12, 24]
    (tmp_path / "names.txt").write_text("".join(f"{number}\tthing {number}\n" for number in reversed(range(12))))
    assert read_table(tmp_path / "table.csv", classes=tmp_path / "names.txt").classes[0] == "thing 11"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no label and path in the first line"),
        ("a.csv", "path,text\na.jpg,cat", "no label in the first line"),
        ("a.csv", "path;text\na.jpg;cat", "no label in the first line"),
        ("a.csv", "path,label\n", "lists no images"),
        ("a.csv", "path,label\n,cat", "line 2: no path"),
        ("a.csv", "path,label\na.jpg,cat,tabby", "line 2: more cells than columns"),
        ("a.csv", "path,label\na.jpg,cat\na.jpg,dog", "line 3: a.jpg stands in line 2 already"),
        ("a.csv", "path,label,split\na.jpg,cat,tests", "line 2: split 'tests' is unknown; there are train, val"),
        ("a.csv", "path,label,split\na.jpg,cat,train\nb.jpg,cat,", "1 labelled lines lack a split"),
        ("a.csv", "path,label,label\na.jpg,cat,tabby", "there are two columns 'label': leave one"),
        ("a.csv", "path,label\nnowhere.jpg,cat", "none of the 1 images of .*a.csv exists under"),
        ("a.jsonl", '{"path": "a.jpg", "label": "cat"}\n{', "line 2 is not JSON"),
        ("a.jsonl", "[1]", "line 1: expected an object like"),
        ("a.jsonl", '{"label": "cat"}', "line 1: no path"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, name: str, content: str, message: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name)


def test_a_split_file_keeps_its_order(tmp_path: Path) -> None:
    touch(tmp_path, "images/b.jpg", "images/a.jpg", "images/c.jpg", "other/x.txt")
    content = {"train": [["b.jpg", 7, "dog"], ["a.jpg", 3, "cat"]], "val": [], "test": [["c.jpg", 7, "dog"]]}
    (tmp_path / "split_zhou_Pets.json").write_text(json.dumps(content))
    dataset = read_split_json(tmp_path / "split_zhou_Pets.json")
    assert (dataset.name, dataset.classes, dataset.val) == ("Pets", ("cat", "dog"), ())
    assert labelled(dataset, "train", tmp_path / "images") == [("b.jpg", "dog"), ("a.jpg", "cat")]
    assert labelled(dataset, "test", tmp_path / "images") == [("c.jpg", "dog")]
    assert read_split_json(tmp_path / "split_zhou_Pets.json", tmp_path / "images") == dataset


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected .*train"),
        ('{"train": [], "dev": []}', "expected .*train"),
        ('{"train": []}', "lists no images"),
        ('{"train": [["a.jpg", "cat"]]}', r"train\[0\]: expected \[path, label, class name\], got \['a.jpg', 'cat'\]"),
        ('{"train": {"a": 1}}', r"train\[0\]: expected"),
        ('{"train": [["a.jpg", 0, "cat"], ["b.jpg", 0, "dog"]]}', "label 0 is 'dog' at .*b.jpg, but 'cat' before"),
        ('{"train": [["nowhere.jpg", 0, "cat"]]}', "none of the 1 images"),
    ],
)
def test_split_files_that_cannot_be(tmp_path: Path, content: str, message: str) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_split_json(tmp_path / "split.json")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("path", ["path", "file_name", "filename", "image", "file", "Filename", "File Name"])
@pytest.mark.parametrize("label", ["label", "class", "category", "Class-Label"])
def test_columns_and_separators_of_exporters(tmp_path: Path, separator: str, path: str, label: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    rows = [("id", path, label), ("1", "a.jpg", "owl"), ("2", "b.jpg", "fox")]
    (tmp_path / "t.csv").write_text("\n".join(separator.join(row) for row in rows))
    assert read_table(tmp_path / "t.csv").classes == ("fox", "owl")


def test_a_line_break_inside_a_quoted_label_is_a_space(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "t.csv").write_text(
        'path,label\r\na.jpg,"red\nfox"\r\nb.jpg,"red\r\n fox"\r\nc.jpg,red fox\r\n', newline=""
    )
    assert read_table(tmp_path / "t.csv").classes == ("red fox",)


@pytest.mark.parametrize("second", ["./a.jpg", "sub/../a.jpg", "sub\\..\\a.jpg", ".//a.jpg"])
def test_one_file_under_two_spellings_is_refused(tmp_path: Path, second: str) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "t.csv").write_text(f"path,label\na.jpg,owl\n{second},fox\n")
    with pytest.raises(ValueError, match=r"line 3: .*a.jpg stands in line 2 already"):
        read_table(tmp_path / "t.csv")


def test_paths_with_backslashes_and_of_another_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café/1.jpg") for form in ("NFC", "NFD"))
    touch(tmp_path, "owl/1.jpg", decomposed)
    (tmp_path / "t.csv").write_text(f"path,label\nowl\\1.jpg,owl\n{composed},café\n", encoding="utf-8")
    dataset = read_table(tmp_path / "t.csv")
    assert {*labelled(dataset, "train", tmp_path)} == {("owl/1.jpg", "owl"), (decomposed, "café")}
    content = {"train": [["owl\\1.jpg", 0, "owl"]]}
    (tmp_path / "s.json").write_text(json.dumps(content))
    assert labelled(read_split_json(tmp_path / "s.json"), "train", tmp_path) == [("owl/1.jpg", "owl")]


def test_folders_of_splits_in_the_paths_are_the_splits(tmp_path: Path) -> None:
    names = [f"{split}/{number}.jpg" for split in ("Train", "test") for number in range(4)]
    touch(tmp_path, *names)
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *(f"{name},{n % 2}" for n, name in enumerate(names))]))
    dataset = read_table(tmp_path / "t.csv")
    assert [name.partition("/")[0] for name, _ in labelled(dataset, "train", tmp_path)] == ["Train"] * 4
    assert [name.partition("/")[0] for name, _ in labelled(dataset, "test", tmp_path)] == ["test"] * 4


def test_labels_of_one_text_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text("path,label\na.jpg,Clear_Sky\nb.jpg,clear sky\n")
    with pytest.raises(ValueError, match="'Clear_Sky' and 'clear sky' are the same text"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "s.json").write_text(json.dumps({"train": [["a.jpg", 0, "owl"], ["b.jpg", 1, "Owl"]]}))
    with pytest.raises(ValueError, match="'owl' and 'Owl' are the same text"):
        read_split_json(tmp_path / "s.json")


def test_a_list_of_labels_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg", "label": ["owl", "fox"]}')
    with pytest.raises(ValueError, match="line 1: label holds a list or an object"):
        read_table(tmp_path / "t.jsonl")
