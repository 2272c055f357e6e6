"""A scikit-learn classifier of images: the prompts of CLIP behind ``fit``, ``predict`` and ``predict_proba``."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from maotune.api import tune_dataset
from maotune.clip import FrozenCLIP
from maotune.data.sets.dataset import ImageRef
from maotune.data.sets.labels import number_labels, split_by_shares
from maotune.data.sets.tables import paths_of
from maotune.runs.given import image_of

__all__ = ["PromptClassifier"]


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Tunes prompts on labelled images, and predicts with them, or with zero-shot CLIP where that is better.

    X is a sequence of images as ``Run.predict`` takes them: paths, Pillow images, NumPy arrays (H, W, 3) of uint8,
    tensors, bytes of image files; or a data frame with a column ``path``. Classes are named by their labels, or by
    ``class_names`` where labels are numbers or codes.

    Args:
        clip: a CLIP that has been loaded (which is not loaded again in each fold), or what ``--clip`` takes; None: as
            ``maotune.tune`` chooses for one's own images.
        learner: name of the learner (``maotune list learners``).
        method: ``plain`` or another method; those with a new stage need ``unlabelled`` in ``fit``.
        class_names: name of the class for each label; default: the label itself.
        validation: share of each class by which prompts and zero-shot CLIP are compared, and probabilities calibrated;
            0: that is done by cross-validation, and all images are tuned on.
        seed: of the draw and the initial prompts.
        settings: further settings of the recipe with dotted keys: ``{"epochs": 10, "data.views": 4}``.

    After ``fit``: ``classes_`` (labels, sorted), and ``run_``, the tuned ``maotune.Run``.
    """

    def __init__(
        self,
        clip: FrozenCLIP | str | None = None,
        *,
        learner: str = "coop",
        method: str = "plain",
        class_names: Mapping[Any, str] | None = None,
        validation: float = 0.3,
        seed: int = 1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.clip = clip
        self.learner = learner
        self.method = method
        self.class_names = class_names
        self.validation = validation
        self.seed = seed
        self.settings = settings

    def fit(self, X: Any, y: Any, unlabelled: Any = ()) -> "PromptClassifier":
        """Tune on images ``X`` with labels ``y``; ``unlabelled``: images of any class for MAO's new stage.

        Raises:
            ValueError: numbers of images and labels differ, an image that cannot be used, or one class only.
        """
        images, labels = _images(X), np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(images):
            raise ValueError(f"there are {len(images)} images and labels of shape {labels.shape}: give one per image")
        self.classes_ = np.unique(labels)
        names = [str((self.class_names or {}).get(label, label)) for label in self.classes_.tolist()]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"two labels have the class name {twice[0]!r}: give each a name of its own (class_names)")
        name_of = dict(zip(self.classes_.tolist(), names, strict=True))
        items = [(number, name_of[label]) for number, label in enumerate(labels.tolist())]
        drawn = split_by_shares(items, lambda number: images[number].name, (1 - self.validation, self.validation))
        dataset = number_labels(
            "images",
            {split: [(images[number], name) for number, name in part] for split, part in drawn.items()},
            _images(unlabelled),
            None,
            "label",
            names,
            as_words=self.class_names is None,
        )
        overrides = {
            "learner.name": self.learner,
            "method": self.method,
            "seed": self.seed,
            "data.source": "images",
            "data.shots": max(Counter(labels.tolist()).values()),
            **({"clip.source": self.clip} if isinstance(self.clip, str) else {}),
            **(self.settings or {}),
        }
        self.run_ = tune_dataset(dataset, overrides, clip=self.clip if isinstance(self.clip, FrozenCLIP) else None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each image."""
        probabilities = self.predict_proba(X)
        labels: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (N, C) of the labels ``classes_``, calibrated on the validation images."""
        check_is_fitted(self)
        return self.run_.predict_proba(_images(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # images are no rows of numbers
        tags.input_tags.string = True
        return tags


def _images(given: Any) -> list[ImageRef]:
    """Return references to the images of ``X``."""
    if isinstance(given, pd.DataFrame):
        given = paths_of(given)
    elif isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1] == 1:  # a column of paths
        given = given[:, 0]
    elif not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise ValueError(f"X is a {type(given).__name__}: give a sequence of images")
    return [image_of(image, f"image {number}") for number, image in enumerate(given)]
