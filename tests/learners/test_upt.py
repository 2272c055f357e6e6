"""UPT against its formulas written out."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.learners.upt import UPT
from tests.learners.plainly import FLOWERS, cosines, image_feature, pictures, same_gradients, text_feature
from tests.learners.sizes import tuned, vit_b16
from tests.parity.harness import tiny_clip


def row_by_row(learner: UPT) -> Tensor:
    """(L, W) tokens, each of which attends to all."""
    (tokens,) = learner.tokens
    queries, keys, values = (tokens @ learner.attention.in_proj_weight.T + learner.attention.in_proj_bias).chunk(3, 1)
    rows = []
    for token, query in zip(tokens, queries, strict=True):
        weights = torch.stack([query @ key for key in keys]).div(tokens.shape[1] ** 0.5).softmax(0)
        attended = learner.attention.out_proj(weights @ values)
        one = learner.norm1(token + attended)
        rows.append(one + learner.down(F.relu(learner.up(learner.norm2(one)))))
    return torch.stack(rows)


@pytest.mark.parametrize("lengths", [(4, 4), (2, 5)])
def test_loss_and_gradients_are_those_of_tokens_that_attend(lengths: tuple[int, int]) -> None:
    clip, given = tiny_clip(), pictures(tiny_clip(), len(FLOWERS))
    learner = UPT(clip, FLOWERS, context_length=lengths[0], visual_length=lengths[1]).eval()
    terms = learner.losses(learner(given), given, F.cross_entropy)
    assert list(terms) == ["cross_entropy"]
    textual, visual = row_by_row(learner).split(lengths)
    texts = [text_feature(clip, [textual, f"{name}."]) for name in FLOWERS]
    shown = visual @ learner.project.weight.T + learner.project.bias
    images = [image_feature(clip, image, [shown]) for image in given.images]
    same_gradients(learner, terms["cross_entropy"], F.cross_entropy(cosines(clip, images, texts), given.labels))


def test_both_towers_have_the_prompts_of_one_pass() -> None:
    """With dropout, two passes would give each tower other prompts."""
    clip, given = tiny_clip(), pictures(tiny_clip(), len(FLOWERS))
    learner = UPT(clip, FLOWERS, dropout=0.5).train()
    torch.manual_seed(1)
    output = learner(given)
    torch.manual_seed(1)
    textual, visual = learner.prompts()
    torch.testing.assert_close(output.text, learner.encode_texts(textual, None))
    torch.testing.assert_close(output.image, learner.encode_images(visual, given))
    assert not torch.equal(learner.prompts()[0][0], textual[0])
    assert torch.equal(learner.eval().prompts()[0][0], learner.prompts()[0][0])


def test_parameters_at_vit_b16() -> None:
    learner = UPT(vit_b16(), FLOWERS)
    assert tuned(learner) == 1_976_064
    assert {*learner.state_dict()} == {name for name, _ in learner.named_parameters()}


@pytest.mark.parametrize("settings", [{"context_length": 0}, {"visual_length": 0}, {"dropout": 1.0}])
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1 token for each tower, and a share from 0 to below 1"):
        UPT(tiny_clip(), FLOWERS, **settings)
