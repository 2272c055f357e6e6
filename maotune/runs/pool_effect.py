"""Whether the unlabelled images of one's own helped, in words."""

from maotune.protocols.adapt import deciding_test
from maotune.runs.result import Result


def pool_in_words(result: Result) -> str | None:
    """Return a sentence on the new stage of a run, by images that were held out; None where there is none of either."""
    measure = deciding_test(result.scored_with)
    if result.pseudo_labels is None or len(result.stages) < 2 or measure is None:
        return None
    first, last = result.stages[0], result.stages[-1]
    without, having = first["accuracy"][measure], last["accuracy"][measure]
    effect = "made no difference" if without == having else "helped" if having > without else "hurt"
    used = result.scored_with[measure]
    whose = f"the prompts of the stage {used} are used" if used in (first["name"], last["name"]) else f"{used} is used"
    empty = int(result.pseudo_labels["classes_without_image"])
    rest = f"; {empty} class{'es' * (empty != 1)} got no unlabelled image" if empty else ""
    return (
        f"the {result.pseudo_labels['images']:.0f} unlabelled images {effect} ({having:.1f} % of the held-out images "
        f"are right with them, {without:.1f} % without): {whose}{rest}"
    )
