"""Base-to-new generalisation (paper, Table 1): labelled images of base classes, unlabelled ones of new classes."""

from collections.abc import Mapping, Sequence

from maotune.data.draw import base_new, draw_unlabelled_pool, few_shot, leave_held_out
from maotune.data.sets.dataset import Dataset
from maotune.protocols.protocol import DrawSettings, Protocol, Splits, Test, scored, tunable
from maotune.train.evaluate import harmonic_mean


class BaseToNew(Protocol):
    """Tunes on ``shots`` images of each base class; scores both halves of the classes, each among itself.

    The few shots are drawn over all classes before these are split, as in CoOp's code; those of the new classes, their
    labels hidden, are the balanced pool of MAO's new stage. With another number of unlabelled images per class
    (Fig. 4), the pool is drawn anew from the training images of the new classes.
    """

    name = "base-to-new"
    summary = "tuned on half of the classes, with unlabelled images of the others; both halves scored"
    measures = ("h", "base", "new")
    joint = True

    def draw(self, datasets: Sequence[Dataset], settings: DrawSettings) -> Splits:
        """See ``Protocol``.

        Raises:
            ValueError: fewer than two classes, a class without training image, or no image to score.
        """
        (dataset,) = datasets
        shots, seed, split = settings.shots, settings.seed, settings.split
        base, new = base_new(few_shot(dataset, shots, seed))
        all_base, all_new = base_new(dataset)
        pool_shots = settings.pool_shots or shots
        source = new if settings.pool == "balanced" and pool_shots == shots else all_new
        outside = all_base if settings.pool == "natural+off-class" else None
        pool = draw_unlabelled_pool(source, pool_shots, seed, settings.pool, outside)
        if split == "held-out":
            pool = leave_held_out(pool, dataset, base.train, shots)
        tuned = {sample.image.name for sample in (*base.train, *pool.samples)}
        halves = {"base": all_base, "new": all_new}
        return Splits(
            name=dataset.name,
            classes=base.classes,
            shots=base.train,
            train=tunable(base, all_base, split),
            new_classes=new.classes,
            unlabelled=pool,
            tests={name: Test(half.classes, scored(half, split, tuned)) for name, half in halves.items()},
            templates=dataset.templates,
        )

    def means(self, splits: Splits, accuracy: Mapping[str, float]) -> dict[str, float]:
        """Add the harmonic mean ``h`` of base and new."""
        return {**accuracy, "h": harmonic_mean(accuracy["base"], accuracy["new"])}
