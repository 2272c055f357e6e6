"""Names as people write them; files for programs keep those of settings."""

from collections.abc import Iterable

from maotune.learners import LEARNERS
from maotune.mao.methods import ZEROSHOT
from maotune.runs.labeler_alone import INDUCTIVE, TRANSDUCTIVE

TWO_PROMPTS, ONE_SET = "two-prompts", "one-set"
LABELER_ALONE = (TRANSDUCTIVE, INDUCTIVE)
METHODS = {
    ZEROSHOT: "zero-shot",
    "mao": "MAO",
    "dpc": "DPC",
    "dpc-mao": "DPC + MAO",
    TWO_PROMPTS: "two prompts",
    ONE_SET: "one set",
    TRANSDUCTIVE: "labeler alone",
    INDUCTIVE: "class means of the pool",
}
HYPHENATED = {
    "lp++": "LP++",
    "linear": "linear probe",
    "clip-adapter": "CLIP-Adapter",
    "tip-adapter": "Tip-Adapter",
    "clip-lora": "CLIP-LoRA",
    "mmrl++": "MMRL++",
}
"""Learners whose names are no class names."""
EXPLAINED = {
    "plain": "the learner as published",
    "step-matched": "plain tuning with as many updates as MAO",
    "dpc": "base classes by a mixture of plain and parallel prompts, new ones by plain prompts",
    "dpc-mao": "base classes as DPC, new ones by MAO's new stage, with as many updates as MAO",
    TWO_PROMPTS: "base classes by plain tuning, new classes by zero-shot CLIP: two prompts without MAO",
    ONE_SET: "both halves by the prompts of MAO's last stage",
    TRANSDUCTIVE: "nothing is tuned, the labeler of the new stage labels the test images of each half as a pool",
    INDUCTIVE: "nothing is tuned, new classes by the means of the unlabelled images with the labeler's labels, base "
    "classes by zero-shot CLIP",
}
"""What is not clear from its name."""


def learner_name(learner: str) -> str:
    """Return the name of a learner, which a variant may follow: ``coop+dept (x)`` is ``CoOp + DePT (x)``."""
    name, space, rest = (learner or "CLIP").partition(" ")
    alone = name.removesuffix("+dept")
    parts = [alone, *["dept"] * (alone != name)] if alone in LEARNERS else name.split("+")
    parts = [
        HYPHENATED.get(part) or (LEARNERS[part].__name__ if part in LEARNERS else part.replace("dept", "DePT"))
        for part in parts
    ]
    return " + ".join(parts) + space + rest


def method_name(method: str) -> str:
    """Return the name of a method or control."""
    return METHODS.get(method, method)


def explain(methods: Iterable[str], measures: Iterable[str] = ()) -> str:
    """Say once what methods and measures are."""
    there = {*methods}
    texts = {method_name(method): text for method, text in EXPLAINED.items() if method in there}
    h = {"H": "harmonic mean of base and new accuracy"} if "h" in measures else {}
    return " ".join(f"{name[0].upper()}{name[1:]}: {text}." for name, text in (texts | h).items())
