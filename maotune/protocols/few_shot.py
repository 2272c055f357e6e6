"""Few-shot recognition, as in CoOp's paper: tuned on a few images of all classes, scored on all of them."""

from collections.abc import Sequence

from maotune.data import draw
from maotune.data.sets.dataset import Dataset
from maotune.protocols.protocol import DrawSettings, Protocol, Splits, Test, scored, tunable


class FewShot(Protocol):
    """Tunes on ``shots`` images of every class and scores all classes together.

    There is no new class and so no new stage: MAO is its base stage over all epochs.
    """

    name = "few-shot"
    summary = "tuned on a few images of all classes, scored on all of them"
    measures = ("all",)

    def draw(self, datasets: Sequence[Dataset], settings: DrawSettings) -> Splits:
        """See ``Protocol``. Raises ``ValueError`` for a class without training image, or no image to score."""
        (dataset,) = datasets
        drawn = draw.few_shot(dataset, settings.shots, settings.seed)
        tuned = {sample.image.name for sample in drawn.train}
        return Splits(
            name=dataset.name,
            classes=dataset.classes,
            shots=drawn.train,
            train=tunable(drawn, dataset, settings.split),
            new_stage=False,
            tests={"all": Test(dataset.classes, scored(dataset, settings.split, tuned))},
            templates=dataset.templates,
        )
