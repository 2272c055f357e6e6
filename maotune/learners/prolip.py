"""ProLIP: the last projection of the image tower, tuned alone (Fahes et al., 2025)."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Batches, Classify, Output
from maotune.learners.feature_space import FeatureLearner


@final
class ProLIP(FeatureLearner):
    """The matrix W that projects the vectors u of the image tower to the joint space, held to its start W_0.

    x = u W, scored by cosine with the text features
    L = L_ce + weight |W - W_0|^2 (the sum of squares), weight = 1 / images a class     (its Eq. 4)

    W is the same for all classes, so it is also used for those that were not tuned. The CLIP's own projection does not
    change. Rate and weight are the authors' fixed rule for base-to-new; they use no validation images there.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of the classes, ``{}`` for the name.
        weight: of the penalty; None: 1 / images a class.
    """

    uses_frozen_features = False
    uses_unprojected_features = True

    initial: Tensor
    """(w, d) W_0, not saved."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        weight: float | None = None,
    ) -> None:
        super().__init__(clip, template)
        self.weight = weight
        self.penalty = 0.0 if weight is None else weight
        initial = clip.image_projection.T.contiguous()
        self.register_buffer("initial", initial, persistent=False)
        self.projection = nn.Parameter(initial.clone())
        self.bind(classes)

    def prepare(self, batches: Batches) -> None:
        """Set the weight of the penalty by the number of images a class."""
        if self.weight is None:
            labels = batches.support().labels
            present = labels.sum(0) > 0 if labels.is_floating_point() else labels.unique()  # type: ignore[no-untyped-call]
            classes = int(present.sum()) if labels.is_floating_point() else len(present)
            self.penalty = classes / len(labels)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) projected features."""
        features = batch.unprojected
        if features is None:
            if batch.images is None:
                raise ValueError("a batch holds neither images nor unprojected features: one of them is needed")
            features = self.clip.encode_image(batch.images, projected=False)
        return features @ self.projection

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distance from the start."""
        distance = (self.projection - self.initial).square().sum()
        return {**super().losses(output, batch, classify), "distance": self.penalty * distance}
