"""The classifier of scikit-learn: images go in as they are, labels come out, and model selection works with it."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from maotune.sklearn import PromptClassifier
from tests.toys import COLOURS, toy_clip

QUICK = {"epochs": 1, "data.views": 1, "learner.context_length": 4, "train.warmup_epochs": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path / "cache"))


def draw(each: int = 6) -> tuple[list[np.ndarray], list[str]]:
    random = np.random.default_rng(0)
    labels = [name for name in COLOURS for _ in range(each)]
    noise = (random.normal(0, 20, (24, 30, 3)) for _ in labels)
    return [
        np.clip(COLOURS[label] + n, 0, 255).astype(np.uint8) for label, n in zip(labels, noise, strict=True)
    ], labels


def classifier(**given: object) -> PromptClassifier:
    return PromptClassifier(toy_clip(), settings=QUICK, **given)


def test_what_scikit_learn_checks_of_an_estimator_of_no_tables_holds() -> None:
    with pytest.warns(SkipTestWarning, match="Can't test estimator PromptClassifier which requires input"):
        checks = check_estimator(PromptClassifier(), on_skip=None)
    assert {check["status"] for check in checks} == {"passed"}
    for check in (  # of those that it leaves out for other input than tables, the ones that need no table
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_repr,
    ):
        check("PromptClassifier", PromptClassifier())


def test_fit_predict_and_probabilities() -> None:
    images, labels = draw()
    ours = classifier().fit(images, labels)
    assert [*ours.classes_] == sorted(COLOURS)
    assert ours.run_.known_classes == tuple(ours.classes_)
    assert {*ours.predict(images)} <= {*labels}
    probabilities = ours.predict_proba(images)
    assert probabilities.shape == (24, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (ours.classes_[probabilities.argmax(axis=1)] == ours.predict(images)).all()
    assert ours.score(images, labels) == np.mean(ours.predict(images) == np.array(labels))
    assert ours.run_.result.zeroshot["val"] <= ours.run_.result.scores["val"]


def test_labels_that_are_numbers_have_names(tmp_path: Path) -> None:
    images, labels = draw(4)
    numbers = np.array([sorted(COLOURS).index(label) for label in labels]) + 7
    names = dict(zip(range(7, 11), sorted(COLOURS), strict=True))
    ours = classifier(class_names=names).fit(images, numbers)
    assert ours.run_.known_classes == tuple(sorted(COLOURS))
    assert {*ours.predict(images).tolist()} <= {7, 8, 9, 10}
    with pytest.raises(ValueError, match="two labels have the class name 'sun'"):
        classifier(class_names=dict.fromkeys(range(7, 11), "sun")).fit(images, numbers)


def test_images_may_be_files_pictures_bytes_or_rows_of_a_data_frame(tmp_path: Path) -> None:
    arrays, labels = draw(3)
    pictures = [Image.fromarray(array) for array in arrays]
    paths = [str(tmp_path / f"{number}.png") for number in range(len(arrays))]
    contents = []
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
        stream = io.BytesIO()
        picture.save(stream, format="png")
        contents.append(stream.getvalue())
    ours = classifier().fit(arrays, labels)
    expected = ours.predict_proba(arrays)
    kinds = (paths, np.array(paths), pd.Series(paths), pd.DataFrame({"path": paths}), pictures, contents)
    for kind in (*kinds, np.stack(arrays), np.array(paths)[:, None]):
        np.testing.assert_allclose(ours.predict_proba(kind), expected, atol=1e-5)


def test_model_selection_and_pipelines() -> None:
    images, labels = draw()
    scores = cross_val_score(classifier(), images, labels, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    halved = FunctionTransformer(lambda images: [image[::2] for image in images], check_inverse=False)
    pipeline: Pipeline = make_pipeline(halved, classifier(validation=0.0))
    pipeline.fit(images, labels)
    assert len(pipeline.predict(images)) == len(images)
    again = clone(classifier(method="plain", seed=3))
    assert again.get_params()["seed"] == 3
    assert again.set_params(learner="kgcoop").learner == "kgcoop"


def test_what_does_not_fit_is_refused() -> None:
    images, labels = draw(2)
    with pytest.raises(NotFittedError):
        classifier().predict(images)
    with pytest.raises(ValueError, match=r"8 images and labels of shape \(7,\)"):
        classifier().fit(images, labels[:-1])
    with pytest.raises(ValueError, match="at least 2"):
        classifier().fit(images[:2], labels[:2])
    with pytest.raises(ValueError, match="image 0 is an array of float64"):
        classifier().fit([image / 255 for image in images], labels)
