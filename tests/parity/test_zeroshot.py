"""Plain CLIP: tokens, features and logits are those of the official code."""

import json

import torch

from maotune.clip.ensembles import SIXTY
from maotune.contract import cosine_logits
from maotune.data.sets.named import named_sets
from tests.golden import GOLDEN
from tests.parity.harness import describe, read, tiny_clip


def test_tokens() -> None:
    clip = tiny_clip()
    for case in json.loads((GOLDEN / "tokens.json").read_text(encoding="utf-8")):
        tokens = clip.tokenize([case["text"]])
        assert tokens.ids[0].tolist() == case["ids"], case["text"]
        assert tokens.eot.tolist() == [len(case["ids"]) - 1]


def test_features_and_logits() -> None:
    clip, golden = tiny_clip(), read("zeroshot")
    prompts = describe("zeroshot")["prompts"]
    names = [prompt.removeprefix("a photo of a ").removesuffix(", a type of flower.") for prompt in prompts]
    text = clip.encode_texts(prompts)
    image = clip.encode_image(read("batches")["eval_images"])
    torch.testing.assert_close(text, golden["text_features"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(image, golden["image_features"], rtol=1e-4, atol=1e-5)
    one_template = clip.zeroshot_text(names, [named_sets()["flowers102"].template])
    for classifier in (text, one_template):
        logits = cosine_logits(image, classifier, clip.logit_scale)
        torch.testing.assert_close(logits, golden["logits_per_image"], rtol=0, atol=1e-3)


def test_padded_tokens() -> None:
    clip, golden = tiny_clip(), read("zeroshot")["tokens"].long()
    tokens = clip.tokenize(describe("zeroshot")["prompts"])
    assert torch.equal(tokens.ids, golden[:, : tokens.ids.shape[1]])
    assert not golden[:, tokens.ids.shape[1] :].any()
    assert torch.equal(tokens.eot, golden.argmax(dim=1))


def test_sixty_templates_are_the_teacher_of_promptsrc() -> None:
    names = describe("promptsrc")["classnames"]  # with underscores, as the official data sets have them
    ours = tiny_clip().zeroshot_text(names, SIXTY, normalise=False)
    torch.testing.assert_close(ours, read("promptsrc")["fixed_embeddings"], rtol=1e-4, atol=1e-5)
