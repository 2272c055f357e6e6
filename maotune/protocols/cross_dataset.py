"""Cross-dataset transfer (paper, Table 2): prompts tuned on all classes of one data set, scored on others."""

from collections.abc import Mapping, Sequence
from functools import partial

from maotune.data.draw import few_shot
from maotune.data.sets.dataset import Dataset
from maotune.protocols.splits import Split, Splits, Test, by_last, left_to_train, scored


def cross_dataset(source: Dataset, targets: Sequence[Dataset], shots: int, seed: int, split: Split = "test") -> Splits:
    """Tune on ``shots`` images of every class of ``source``; score it and, untouched, every one of ``targets``.

    A test is called by its data set. Each is scored among its own classes, zero-shot CLIP with the target's own texts.
    ``average`` is over the targets, without those that show the source's own classes in another way (ImageNetV2 and
    its like: those are shifts of the domain, which the paper's average leaves out too).

    Raises:
        ValueError: no target, two data sets of one name, a class without training image, or no image to score.
    """
    everything = [source, *targets]
    if not targets:
        raise ValueError(f"there is no data set to score beside {source.name}: name some (data.targets)")
    counts = {dataset.name: 0 for dataset in everything}
    for dataset in everything:
        counts[dataset.name] += 1
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"{twice[0]} is there twice: the source and its targets must be different data sets")
    drawn = few_shot(source, shots, seed)
    tuned = {sample.image.name for sample in drawn.train}
    elsewhere = [target.name for target in targets if not {*target.classes} <= {*source.classes}]
    return Splits(
        name=source.name,
        classes=source.classes,
        shots=drawn.train,
        train=left_to_train(drawn, source, split),
        new_stage=False,
        tests={
            dataset.name: Test(dataset.classes, scored(dataset, split, tuned), dataset.templates)
            for dataset in everything
        },
        templates=source.templates,
        choose=by_last,
        means=partial(with_average, elsewhere),
    )


def with_average(targets: Sequence[str], accuracy: Mapping[str, float]) -> dict[str, float]:
    """The accuracies, and their ``average`` over ``targets``, where there are any."""
    if not targets:
        return dict(accuracy)
    return {**accuracy, "average": sum(accuracy[name] for name in targets) / len(targets)}
