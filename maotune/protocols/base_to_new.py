"""Base-to-new generalisation (paper, Table 1): labelled images of base classes, unlabelled ones of new classes."""

from collections.abc import Mapping

from maotune.data.draw import PoolMode, base_new, few_shot, unlabelled_pool
from maotune.data.sets.dataset import Dataset
from maotune.protocols.splits import Accuracies, Split, Splits, Test, left_to_train, scored
from maotune.train.evaluate import harmonic_mean


def base_to_new(
    dataset: Dataset,
    shots: int,
    seed: int,
    unlabelled: PoolMode,
    split: Split = "test",
    unlabelled_shots: int | None = None,
) -> Splits:
    """Tune on ``shots`` images of each base class; score both halves of the classes, each among itself.

    The few shots are drawn over all classes before these are split, as in CoOp's code; those of the new classes, their
    labels hidden, are the balanced pool of MAO's new stage. With another number of ``unlabelled_shots`` a new class
    (Fig. 4), the pool is drawn anew from the training images of the new classes. What is scored is ``split``.

    Raises:
        ValueError: fewer than two classes, a class without training image, or no image to score.
    """
    base, new = base_new(few_shot(dataset, shots, seed))
    all_base, all_new = base_new(dataset)
    each = unlabelled_shots or shots
    source = new if unlabelled == "balanced" and each == shots else all_new
    outside = all_base if unlabelled == "natural+off-class" else None
    pool = unlabelled_pool(source, each, seed, unlabelled, outside)
    tuned = {sample.image.name for sample in (*base.train, *pool.samples)}
    tests = {
        name: Test(half.classes, scored(half, split, tuned)) for name, half in (("base", all_base), ("new", all_new))
    }
    return Splits(
        name=dataset.name,
        classes=base.classes,
        shots=base.train,
        train=left_to_train(base, all_base, split),
        new_classes=new.classes,
        unlabelled=pool,
        tests=tests,
        templates=dataset.templates,
        choose=by_halves,
        means=with_h,
    )


def by_halves(accuracies: Accuracies) -> dict[str, str]:
    """Base classes by the prompts of the first stage, new ones by those of the last: the paper's Tables 4 and 8 can be
    read no other way."""
    prompts = [*accuracies]
    stages = prompts[:-1] or prompts
    return {"base": stages[0], "new": stages[-1]}


def with_h(accuracy: Mapping[str, float]) -> dict[str, float]:
    """The accuracies, and the harmonic mean of base and new."""
    return {**accuracy, "h": harmonic_mean(accuracy["base"], accuracy["new"])}
