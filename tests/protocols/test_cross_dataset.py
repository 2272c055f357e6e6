"""Runs of cross-dataset and few-shot as a user has them: tuned, scored, saved, loaded, asked."""

from pathlib import Path

import pytest
import torch

import maotune
from maotune.data.images.views import TestView
from maotune.data.sets import coop
from maotune.learners.zeroshot import ZeroShot
from maotune.recipe import load_recipe
from maotune.runs.tune import tune_and_score
from tests.toys import COLOURS, paint, paint_photos, toy_clip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets in CoOp's layout whose zero-shot texts differ."""
    folder = tmp_path_factory.mktemp("coop")
    names = {"dtd/images": ("banded", "dotted", "woven"), "eurosat/2750": ("Forest", "Highway", "River", "Pasture")}
    for place, classes in names.items():
        for label, name in enumerate(classes):
            for number in range(20):
                paint(folder / place / name / f"{number}.jpg", [*COLOURS.values()][label], 100 * label + number)
    return folder


def test_zero_shot_clip_has_the_texts_of_each_target(root: Path) -> None:
    clip = maotune.load_clip("iconclip", device="cpu")  # one that tells texts apart
    given = {"data.source": "eurosat", "data.targets": ["dtd"], "data.root": str(root), "data.bank": False}
    outcome = tune_and_score(load_recipe(None, {**given, "protocol": "cross-dataset", "method": "zeroshot"}), clip=clip)
    target = coop.load("dtd", root)
    assert outcome.scoring.labels["dtd"] == [sample.label for sample in target.test]

    def predicted(template: str) -> list[int]:
        text = ZeroShot(clip, target.classes, templates=(template,)).text_features()
        view = TestView(clip.preprocess)
        images = clip.encode_image(torch.stack([view(sample.image.read()) for sample in target.test]))
        return (images @ text.T).argmax(1).tolist()

    assert outcome.scoring.predicted["zeroshot"]["dtd"] == predicted("{} texture.")
    assert predicted("{} texture.") != predicted("a centered satellite photo of {}."), "which the source's would show"
    assert outcome.result.templates == ["a centered satellite photo of {}."]


@pytest.mark.parametrize("protocol", ["few-shot", "cross-dataset"])
def test_prompts_of_all_classes_are_saved_loaded_and_asked(protocol: str, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path, train=2, val=1, test=1, heap=0)
    other = paint_photos(tmp_path / "other", train=1, val=1, test=1, heap=0).rename(tmp_path / "again")
    tuned = maotune.tune(
        photos, protocol=protocol, method="mao", epochs=2, shots=1, data__bank=False, data__targets=(str(other),),
        clip=toy_clip(), folder=tmp_path / "run",
    )  # fmt: skip
    again = maotune.load(tmp_path / "run", clip=toy_clip())
    assert again.result == tuned.result
    assert [*again.stages] == ["base"]
    for classes in (None, ("rain", "fog"), ("fog", "mist")):
        first, second = (one.learner(classes).text_features() for one in (tuned, again))
        assert torch.equal(first, second)
    predictions = again.predict(photos / "test")
    assert predictions.prompts == "base"
    assert set(predictions.classes) == set(COLOURS)
    assert again.evaluate(other) >= 0
