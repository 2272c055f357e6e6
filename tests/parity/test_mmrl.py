"""MMRL against the official code."""

import pytest
import torch

from maotune.clip import FrozenCLIP
from maotune.contract import Batch
from maotune.learners.mmrl import MMRL
from tests.parity.harness import check, describe, read, section, tiny_clip

OFFICIAL = "representation_learner.compound_rep_tokens"
NAMES = {OFFICIAL: "tokens", "image_encoder.proj_rep": "projection"} | {
    f"{OFFICIAL}_{official}.{layer}.{part}": f"{ours}.{layer}.{part}"
    for official, ours in {"r2vproj": "to_image", "r2tproj": "to_text"}.items()
    for layer in range(3)
    for part in ("weight", "bias")
}


def make(clip: FrozenCLIP, classes: tuple[str, ...]) -> MMRL:
    return MMRL(clip, classes, template="a photo of a {}, a type of flower.", width=48, first_layer=2)


def test_mmrl() -> None:
    check("mmrl", make, NAMES, logits="_fusion")


@pytest.mark.parametrize("when", ["before", "after"])
def test_classes_that_were_not_tuned_are_scored_by_the_class_token_alone(when: str) -> None:
    classes = tuple(describe("mmrl")["classnames"])
    learner = make(tiny_clip(), classes[:3]).eval()
    learner.load_state_dict(section("mmrl", {"before": "init.", "after": "after5."}[when], NAMES))
    images = read("batches")["eval_images"]
    given = Batch(torch.zeros(len(images), dtype=torch.int64), images)
    learner.bind(classes)
    torch.testing.assert_close(learner(given).logits, read("mmrl")[f"logits_{when}"], rtol=0, atol=1e-3)
    torch.testing.assert_close(learner(given).by_tokens, read("mmrl")[f"logits_{when}_rep"], rtol=0, atol=1e-3)
    learner.own()
    torch.testing.assert_close(learner(given).logits, read("mmrl")[f"logits_{when}_fusion"], rtol=0, atol=1e-3)


def test_frozen_texts() -> None:
    learner = make(tiny_clip(), tuple(describe("mmrl")["classnames"]))
    text = tiny_clip().zeroshot_text(learner.classes, [learner.texts.template])
    torch.testing.assert_close(text, read("mmrl")["text_features_frozen"], rtol=0, atol=1e-5)
