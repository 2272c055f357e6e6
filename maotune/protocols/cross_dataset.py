"""Cross-dataset transfer (paper, Table 2): prompts tuned on all classes of one data set, scored on others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from maotune.data.draw import few_shot
from maotune.data.sets.dataset import Dataset
from maotune.protocols.protocol import DrawSettings, Protocol, Splits, Test, scored, tunable


class CrossDataset(Protocol):
    """Tunes on ``shots`` images of every class of the source; scores it and, untouched, every target.

    A test has the name of its data set. Each is scored among its own classes, zero-shot CLIP with the target's own
    texts. ``average`` is over the targets, without those that show the source's own classes in another way (ImageNetV2
    and its like are shifts of the domain, which the paper's average leaves out too).
    """

    name = "cross-dataset"
    summary = "tuned on all classes of one data set, which is scored, and so are others, as they are"
    settings = MappingProxyType({"epochs": 5, "lr": 0.0035, "mao.lr": 0.0035})  # Appendix B
    measures = ("average",)
    takes_targets = True

    def draw(self, datasets: Sequence[Dataset], settings: DrawSettings) -> Splits:
        """See ``Protocol``.

        Raises:
            ValueError: no target, two data sets of one name, a class without training image, or no image to score.
        """
        source, *targets = datasets
        if not targets:
            raise ValueError(f"there is no data set to score beside {source.name}: name some (data.targets)")
        counts = Counter(dataset.name for dataset in datasets)
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{repeated[0]} is there twice: the source and its targets must be different data sets")
        drawn = few_shot(source, settings.shots, settings.seed)
        tuned = {sample.image.name for sample in drawn.train}
        return Splits(
            name=source.name,
            classes=source.classes,
            shots=drawn.train,
            train=tunable(drawn, source, settings.split),
            new_stage=False,
            tests={
                dataset.name: Test(dataset.classes, scored(dataset, settings.split, tuned), dataset.templates)
                for dataset in datasets
            },
            averaged=tuple(target.name for target in targets if not {*target.classes} <= {*source.classes}),
            templates=source.templates,
        )

    def means(self, splits: Splits, accuracy: Mapping[str, float]) -> dict[str, float]:
        """Add the ``average`` over the targets, where there are any."""
        if not splits.averaged:
            return dict(accuracy)
        return {**accuracy, "average": sum(accuracy[name] for name in splits.averaged) / len(splits.averaged)}
