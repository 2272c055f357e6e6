"""UPT against the official code, given its tokens as one sequence."""

from maotune.learners.upt import UPT
from tests.parity.harness import check

NAMES: dict[str, str | tuple[str, int]] = {
    f"prompt_learner.{official}": ours
    for official, ours in {
        "uni_ctx": "tokens",
        "self_attn.in_proj_weight": "attention.in_proj_weight",
        "self_attn.in_proj_bias": "attention.in_proj_bias",
        "self_attn.out_proj.weight": "attention.out_proj.weight",
        "self_attn.out_proj.bias": "attention.out_proj.bias",
        "linear1.weight": "up.weight",
        "linear1.bias": "up.bias",
        "linear2.weight": "down.weight",
        "linear2.bias": "down.bias",
        "norm1.weight": "norm1.weight",
        "norm1.bias": "norm1.bias",
        "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias",
        "mlp.weight": "project.weight",
        "mlp.bias": "project.bias",
    }.items()
}


def test_upt() -> None:
    check("upt_attends", lambda clip, classes: UPT(clip, classes, dropout=0.0), NAMES)
