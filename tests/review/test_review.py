"""The pool as a person checks it: a page, corrections that are tuned on, and images that are worth a label."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maotune
from maotune.data.sets.catalog import load_dataset, load_unlabelled
from maotune.recipe import load_recipe
from maotune.review.page import write_review
from maotune.review.pool import label_pool
from maotune.review.suggest import choose_images
from maotune.runs.build import load_datasets
from maotune.runs.corrections import NONE
from maotune.runs.pool_effect import pool_in_words
from maotune.runs.predictions import Scoring
from tests.toys import COLOURS, toy_clip

pytestmark = pytest.mark.usefixtures("place")
SMALL = {"shots": 3, "epochs": 2, "data__views": 1, "learner__context_length": 4, "train__warmup_epochs": 0}


@pytest.fixture(scope="module")
def run(place: Path) -> maotune.Run:
    return maotune.tune("photos", method="mao", unlabelled="heap", folder="mine", clip=toy_clip(), **SMALL)


def test_the_pool_has_the_labels_that_the_run_was_tuned_with(run: maotune.Run) -> None:
    images = label_pool(run, Path("mine"))
    scoring = Scoring.find(Path("mine"))
    assert scoring is not None
    found: Any = scoring.pseudo_labels
    expected = {name: found["classes"][number] for name, number in zip(found["images"], found["given"], strict=True)}
    assert {image.sample.image.name: image.label for image in images} == expected
    confidences = [image.confidence for image in images]
    assert confidences == sorted(confidences)
    other = label_pool(run, Path("mine"), Path("photos/test"))
    assert len(other) == 8
    assert all(image.label == image.predicted for image in other), "images that the run has not labelled"


def test_a_run_without_a_pool_needs_one(run: maotune.Run) -> None:
    plain = maotune.tune("photos", clip=toy_clip(), **SMALL)
    with pytest.raises(ValueError, match="tuned without unlabelled images: name a folder"):
        label_pool(plain, Path("nowhere"))
    assert len(label_pool(plain, Path("nowhere"), Path("heap"))) == 8


def test_the_page_is_self_contained_and_obeys_no_name(run: maotune.Run, tmp_path: Path) -> None:
    images = label_pool(run, Path("mine"))
    write_review(images, (*run.known_classes, "<script>x()</script>"), "a & b", tmp_path / "review.html", most=1)
    page = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert "<script>x()" not in page
    assert "a &amp; b" in page
    assert "No image has this label." in page
    assert page.count(f"<option>{NONE}</option>") == page.count("<select")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count('<img src="data:image/webp;base64,') <= 5


def train_labels(table: str, **more: str) -> Any:
    Path("given.csv").write_text(table)
    settings = {"data.source": "photos", "data.unlabelled": "heap", "data.labels": "given.csv", **more}
    (dataset,) = load_datasets(load_recipe(None, settings))
    return dataset


def test_corrections_are_labelled_images_and_leave_the_pool(place: Path) -> None:
    before = load_dataset("photos")
    pool = [sample.image.name for sample in load_unlabelled("heap").unlabelled]
    train = before.train[0].image.name
    table = f"image,label\n{pool[0]},rain\n{pool[1]},{NONE}\n{pool[2]},\n{place / pool[3]},sun\n{train},fire\n"
    after = train_labels(table)
    assert [sample.image.name for sample in after.unlabelled] == [pool[2], *pool[4:]]
    labels = {Path(sample.image.name).resolve(): after.classes[sample.label] for sample in after.train}
    assert len(labels) == len(before.train) + 2
    assert [labels[Path(name).resolve()] for name in (pool[0], pool[3], train)] == ["rain", "sun", "fire"]


@pytest.mark.parametrize(
    ("row", "message"),
    [("heap/none.png,rain", "there is no image"), ("{pool},rian", "'rian' is no class of photos; did you mean rain")],
)
def test_corrections_that_do_not_fit_are_refused(place: Path, row: str, message: str) -> None:
    pool = load_unlabelled("heap").unlabelled[0].image.name
    with pytest.raises(ValueError, match=message):
        train_labels(f"image,label\n{row.format(pool=pool)}\n")


def test_images_worth_a_label_are_uncertain_and_differ() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(8)[:4]
    features = np.repeat(centres, 25, axis=0) + random.normal(0, 0.01, (100, 8))
    sure = np.tile([0.98, 0.02], (100, 1))
    sure[::5] = [0.55, 0.45]
    chosen = choose_images(features, sure, 4)
    assert sorted(number // 25 for number in chosen) == [0, 1, 2, 3], "one of each group"
    assert all(number % 5 == 0 for number in choose_images(features, sure, 2)), "of the uncertain ones"
    assert sorted(number // 25 for number in choose_images(features, None, 4)) == [0, 1, 2, 3]
    assert sorted(choose_images(features[:3], None, 20)) == [0, 1, 2]
    assert len(set(choose_images(np.ones((30, 4)), None, 5))) == 5, "of copies, too"


@pytest.mark.parametrize(("new", "words"), [(40.0, "hurt"), (70.0, "helped"), (58.3, "made no difference")])
def test_what_the_pool_has_done_is_said(run: maotune.Run, new: float, words: str) -> None:
    from dataclasses import replace

    assert run.result.pseudo_labels is not None
    base, last = run.result.stages
    stages: Any = [{**base, "accuracy": {"val": 58.3}}, {**last, "accuracy": {"val": new}}]
    result = replace(
        run.result,
        stages=stages,
        scored_with={"val": "new" if new > 60 else "base"},
        pseudo_labels={**run.result.pseudo_labels, "classes_without_image": 2.0},
    )
    said = pool_in_words(result)
    assert said == (
        f"the 8 unlabelled images {words} ({new:.1f} % of the held-out images are right with them, 58.3 % without): "
        f"the prompts of the stage {'new' if new > 60 else 'base'} are used; 2 classes got no unlabelled image"
    )
    assert pool_in_words(replace(run.result, pseudo_labels=None)) is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser: {error}")
        yield browser
        browser.close()


@pytest.mark.slow
def test_the_page_saves_what_was_checked(run: maotune.Run, browser: Any, tmp_path: Path) -> None:
    images = label_pool(run, Path("mine"))
    write_review(images, run.known_classes, "pool", tmp_path / "review.html", most=24)
    tab = browser.new_page()
    tab.goto((tmp_path / "review.html").as_uri())
    tab.locator("figure select").first.select_option(NONE)
    tab.locator("button.confirm").last.click()
    with tab.expect_download() as saved:
        tab.locator("#save").click()
    saved.value.save_as(tmp_path / "corrections.csv")
    rows = [*csv.DictReader((tmp_path / "corrections.csv").read_text().splitlines())]
    assert rows[0]["label"] == NONE
    assert {row["label"] for row in rows[1:]} <= {*COLOURS, NONE}
    assert len(rows) > 1
    assert train_labels((tmp_path / "corrections.csv").read_text()).unlabelled is not None
