"""``maotune review`` and ``maotune suggest``."""

from pathlib import Path

from PIL import Image

from tests.cli.conftest import Maotune

TRAIN = ("train", "--data", "photos", "--classes", "names.txt", "--epochs", 2, "data.views=1", "--clip", "iconclip")


def test_from_suggestions_and_a_review_to_a_run_with_more_labels(maotune: Maotune, photos: Path) -> None:
    tuned = maotune(*TRAIN, "--unlabelled", "heap", "--mao", "--json", cwd=photos)
    assert tuned.code == 0, tuned.err
    run = tuned.json["runs"][0]["folder"]
    told = maotune(*TRAIN, "--unlabelled", "heap", "--mao", cwd=photos).out
    assert "unlabelled images" in told
    reviewed = maotune("review", run, "--json", cwd=photos)
    assert reviewed.code == 0, reviewed.err
    assert len(reviewed.json["images"]) == 6
    assert (photos / run / "review.html").stat().st_size > 5000
    assert "6 images" in maotune("review", run, "heap", "--out", "page.html", cwd=photos).out

    suggested = maotune("suggest", "heap", "-n", 3, "--run", run, "--json", cwd=photos)
    assert suggested.code == 0, suggested.err
    rows = suggested.json["images"]
    assert [{*row} for row in rows] == [{"image", "label", "guess", "confidence"}] * 3
    with Image.open(photos / "suggestions" / "sheet.png") as sheet:
        assert sheet.width > sheet.height
    answers = [(row["image"], Path(row["image"]).name.partition("-")[0]) for row in rows]
    (photos / "answers.csv").write_text("".join(f"{a},{b}\n" for a, b in [("image", "label"), *answers]))
    again = maotune(*TRAIN, "--unlabelled", "heap", "--labels", "answers.csv", "--mao", "--json", cwd=photos)
    assert again.code == 0, again.err
    (more,) = again.json["runs"]
    assert more["folder"] != run
    assert more["pseudo_labels"]["images"] == 3


def test_suggestions_need_no_run(maotune: Maotune, photos: Path) -> None:
    named = maotune("suggest", "heap", "-n", 2, "--classes", "sky,leaf", "--clip", "iconclip", "--json", cwd=photos)
    assert named.code == 0, named.err
    assert {row["guess"] for row in named.json["images"]} <= {"sky", "leaf"}
    alone = maotune("suggest", "heap", "-n", 2, "--clip", "iconclip", "--out", "alone", cwd=photos)
    assert alone.code == 0, alone.err
    assert len(alone.out.splitlines()) == 2
    assert (photos / "alone" / "list.csv").read_text().startswith("image,label\n")
