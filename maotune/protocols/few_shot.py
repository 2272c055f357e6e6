"""Few-shot recognition, the measure of CoOp's paper: tuned on a few images of all classes, scored on all of them."""

from maotune.data import draw
from maotune.data.sets.dataset import Dataset
from maotune.protocols.splits import Split, Splits, Test, by_last, left_to_train, scored


def few_shot(dataset: Dataset, shots: int, seed: int, split: Split = "test") -> Splits:
    """Tune on ``shots`` images of every class of ``dataset``, and score all classes together.

    There is no new class and so no new stage: MAO is its base stage over all epochs.

    Raises:
        ValueError: a class without training image, or no image to score.
    """
    drawn = draw.few_shot(dataset, shots, seed)
    tuned = {sample.image.name for sample in drawn.train}
    return Splits(
        name=dataset.name,
        classes=dataset.classes,
        shots=drawn.train,
        train=left_to_train(drawn, dataset, split),
        new_stage=False,
        tests={"all": Test(dataset.classes, scored(dataset, split, tuned))},
        templates=dataset.templates,
        choose=by_last,
    )
