"""The frozen CLIP as an object: plain strings, templates, and how learners hold it."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from maotune.clip import FrozenCLIP, Tokenizer


@pytest.fixture(scope="module")
def clip(model: Any) -> FrozenCLIP:
    return FrozenCLIP(model, name="toy")


@pytest.mark.parametrize(
    "texts",
    [
        ["a photo of a cat."],
        ["a photo of a cat.", "a photo of a hot dog.", "a photo of a cat."],
        ["cat", "catalogue of cats", ""],
        ["the same", "the same"],
    ],
)
def test_strings_are_transformers_own(clip: FrozenCLIP, texts: list[str]) -> None:
    """Sharing what the texts begin with changes nothing, whatever they begin with."""
    tokens = clip.tokenize(texts)
    text = clip.model.text_model
    for number, feature in enumerate(clip.encode_texts(texts)):
        ids = tokens.ids[number : number + 1]
        hidden = text(ids).last_hidden_state[0, tokens.eot[number]]
        torch.testing.assert_close(feature, clip.model.text_projection(hidden), rtol=2e-4, atol=2e-5)


def test_templates_are_averaged(clip: FrozenCLIP) -> None:
    templates, names = ["a photo of a {}.", "{} texture."], ["hot_dog", "cat"]
    each = torch.stack([clip.encode_texts([t.replace("{}", n) for n in ("hot dog", "cat")]) for t in templates])
    torch.testing.assert_close(clip.zeroshot_text(names, templates, normalise=False), each.mean(0))
    directions = each / each.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(clip.zeroshot_text(names, templates), directions.mean(0))


def test_bad_templates(clip: FrozenCLIP) -> None:
    with pytest.raises(ValueError, match=r"'a photo' has no \{\} for the class name"):
        clip.zeroshot_text(["cat"], ["a photo of a {}.", "a photo"])
    for nothing in ([], "a photo of a {}."):
        with pytest.raises(ValueError, match="list of at least one text"):
            clip.zeroshot_text(["cat"], nothing)


def test_a_learner_that_holds_it_neither_registers_nor_copies_it(clip: FrozenCLIP) -> None:
    learner = nn.Linear(2, 2)
    learner.clip = clip  # type: ignore[assignment]
    assert set(learner.state_dict()) == {"weight", "bias"}
    assert copy.deepcopy(learner).clip is clip  # type: ignore[comparison-overlap]


def test_tokenizer_of_another_model(model: Any) -> None:
    other = Tokenizer.openai(20)
    other.vocabulary_size = 8000
    with pytest.raises(ValueError, match="8000 tokens and the text tower 49408"):
        FrozenCLIP(model, other)
