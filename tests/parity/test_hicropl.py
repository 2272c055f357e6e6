"""HiCroPL against the official networks, used as the paper draws them."""

from collections.abc import Sequence

import pytest
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.learners.descriptions import Descriptions
from maotune.learners.hicropl import HiCroPL
from tests.parity.harness import GoldenBatches, check, describe, read, section, tiny_clip

CASE, K, DEPTH = "hicropl_paper", 2, 4
PARTS = {"norm1": "ln_1", "norm2": "ln_2", "attention.in_proj": "attn.in_proj", "attention.out_proj": "attn.out_proj"}
LINEAR = {"query": "linear_q", "key": "linear_k", "value": "linear_v", "up": "ffn.c_fc", "down": "ffn.c_proj"}


def names() -> dict[str, str | tuple[str, int]]:
    own = {"text.prompts.0": "ctx", "visual.prompts.0": "cross_prompts_visual.0"}
    nets = {"to_image": "text2visual_net", "to_text": "visual2text_net"}
    for j in range(1, DEPTH):
        own |= {f"text.prompts.{j}": f"cross_prompts_text.{j}", f"visual.prompts.{j}": f"cross_prompts_visual.{j}"}
    for ours, theirs in {"text": "text", "image": "visual"}.items():
        for j in range(K):
            own[f"{ours}_proxies.{j}.token"] = f"{theirs}_proxy_token.{j}"
            nets[f"{ours}_proxies.{j}"] = f"attn_pooling_{theirs}_nets.{j}"
    for net, official in nets.items():
        for part, name in (PARTS | LINEAR if net.startswith("to_") else PARTS).items():
            mark = "_" if part.endswith("in_proj") else "."
            own |= {f"{net}.{part}{mark}{kind}": f"{official}.{name}{mark}{kind}" for kind in ("weight", "bias")}
    return {f"prompt_learner.{official}": ours for ours, official in own.items()}


class Recorded(Descriptions):
    """The recorded features of the sentences: the tiny CLIP of these tests lacks their words."""

    def features(self, classes: Sequence[str]) -> Tensor:
        rows = [describe(CASE)["classnames"].index(name) for name in classes]
        return read(CASE)["fixed_embeddings"][rows]


def make(clip: FrozenCLIP, classes: Sequence[str]) -> HiCroPL:
    learner = HiCroPL(clip, classes, context_length=4, depth=DEPTH, cross_layer=K, initial_words="a photo of a")
    learner.descriptions = Recorded(clip, describe(CASE)["gpt_prompts"])
    return learner


def test_hicropl() -> None:
    check(CASE, make, names(), tiny={"to_image.key.bias", "to_text.key.bias"})


def test_each_term_of_the_first_step() -> None:
    learner = make(tiny_clip(), describe(CASE)["classnames"])
    learner.load_state_dict(section(CASE, "init.", names()))
    (batch,) = GoldenBatches(CASE, [[0]]).epoch(0)
    terms = {name: value.item() for name, value in learner.losses(learner(batch), batch, F.cross_entropy).items()}
    entropy, text, image = (value for _, value in describe(CASE)["step0_terms"])
    official = {"cross_entropy": entropy, "text": 12 * (1 - text), "image": 12 * (1 - image)}
    assert terms == pytest.approx(official, rel=1e-4)
