"""Class names: the file of them, and what a text model can read."""

from pathlib import Path

import pytest

from maotune.data.sets.class_names import foreign_names, names_as_words, read_class_names, unreadable_names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ncat\n", r"line 2: 'cat' stands there twice"),
        (b"a\tcat\nb\tcat\n", r"line 2: 'cat' names two classes"),
        (b"\tcat\n", r"line 1: a display name without a name"),
        (b"\n \n", "holds no class names"),
        (b"caf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_class_names_that_cannot_be(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / "names.txt")


def test_a_file_of_class_names_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n")
    (tmp_path / "owl").mkdir()
    with pytest.raises(ValueError, match=r"is not a file of class names; did you mean names.txt\?: give one"):
        read_class_names(tmp_path / "nmaes.txt")
    with pytest.raises(ValueError, match="owl' is not a file of class names: give one"):
        read_class_names(tmp_path / "owl")
    with pytest.raises(ValueError, match="is not a file of class names: give one"):
        read_class_names(Path("owl,fox," * 99))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["009.lady_beetle", "owl"], ["lady_beetle", "owl"]),
        (["1-owl", "2 fox", "3_hare"], ["owl", "fox", "hare"]),
        (["2012 Audi", "2012 BMW"], ["2012 Audi", "2012 BMW"]),
        (["2007 Audi", "2012 BMW"], ["2007 Audi", "2012 BMW"]),
        (["3d printer", "owl"], ["3d printer", "owl"]),
        (["n02085620-Chihuahua", "n02085782-Pug"], ["Chihuahua", "Pug"]),
        (["LadyBeetle", "SeaLake", "HTMLPage"], ["Lady Beetle", "Sea Lake", "HTML Page"]),
        (["iPhone", "McDonald", "DVDs", "BMW", "T-shirt"], ["iPhone", "McDonald", "DVDs", "BMW", "T-shirt"]),
        (["01.owl", "02.Owl"], ["01.owl", "02.Owl"]),  # else one text
        (["lady-beetle", "great-white-shark", "T-shirt"], ["lady beetle", "great white shark", "T-shirt"]),
        (["fish-eye lens", "fore-edge"], ["fish-eye lens", "fore-edge"]),
        (["ÉcoleMaternelle", "001.猫"], ["École Maternelle", "猫"]),
    ],
)
def test_names_as_words(labels: list[str], words: list[str]) -> None:
    assert [*names_as_words(labels).values()] == words


def test_names_that_say_nothing_to_a_text_model() -> None:
    codes = ["c0", "n02119022", "12", "class_1", "label-3", "a3f9c2", "LR01", "707-320"]
    assert unreadable_names([*codes, "owl", "BMW", "3d printer", "Boeing 737", "sky", "猫"]) == codes
    assert foreign_names(["猫", "собака", "café", "owl 2"]) == ["猫", "собака"]
