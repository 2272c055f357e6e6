"""A finished run: its tuned prompts at work, and the file that holds all there is to deploy."""

import glob
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner
from maotune.data.images.scan import scan_images
from maotune.data.sets.catalog import load_dataset, names
from maotune.data.sets.dataset import Dataset, Sample, Skipped, UnreadableImage, list_skipped
from maotune.data.sets.hub import PREFIX
from maotune.data.sets.labels import ALL_TRAIN, DRAWN
from maotune.data.sets.tables import read_frame
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.methods import ZEROSHOT
from maotune.protocols import PROTOCOLS
from maotune.protocols.protocol import CROSS_VALIDATED
from maotune.recipe.schema import Recipe, choose
from maotune.runs.answers import Assessment, Predictions
from maotune.runs.build import build_clip, build_learner
from maotune.runs.calibration import Calibration, Rejection, resemblance_of
from maotune.runs.events import Callback, Progress
from maotune.runs.folder import recorded_recipe
from maotune.runs.given import ClassNames, Images, class_names_of, is_there, samples_of
from maotune.runs.mixing import StagePrompts, with_prompts
from maotune.runs.pipeline import Pipeline
from maotune.runs.result import Result
from maotune.runs.saved import PROMPTS, check_prompts, read_saved_run, within_size_of
from maotune.runs.transduce import check_transducer, label_together
from maotune.train.session import CheckpointError, save_prompts

log = logging.getLogger(__name__)


class Run:
    """Tuned prompts with the frozen CLIP that they belong to."""

    def __init__(self, recipe: Recipe, clip: FrozenCLIP, stages: Mapping[str, StagePrompts], result: Result) -> None:
        self.recipe, self.clip, self.stages, self.result = recipe, clip, stages, result

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in self.result.scores.items())
        return f"Run({self.result.dataset}, {self.result.learner}, {self.result.method}: {scores})"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that were tuned on with labelled images."""
        return self._tuned_classes[0]

    @property
    def known_classes(self) -> tuple[str, ...]:
        """The classes to predict among by default: those of labelled images; in the protocol adapt, all."""
        return PROTOCOLS[self.result.protocol].known_classes(self._tuned_classes)

    def learner(self, classes: ClassNames | None = None, prompts: str = "auto") -> AbstractLearner:
        """Return the tuned learner, bound to ``classes`` (default: those tuned on).

        Args:
            classes: any names, also ones never tuned on; or one text: the path of a class names file, or ``a,b,c``.
            prompts: a stage of ``stages``, a mixture of several (``0.8 plain + 0.2 parallel``), ``zeroshot``, or
                ``auto``: in the protocol adapt those that scored best on validation images; else those that the method
                has for lists of base classes alone, or for other lists (``result.predictors``).

        Raises:
            RecipeError: no such prompts.
            ValueError: a class name that does not fit, or weights that do not sum to 1.
        """
        classes = class_names_of(classes) if classes is not None else self.known_classes
        prompts = self._prompts_for(classes) if prompts == "auto" else prompts
        names = check_prompts(prompts, self.stages)
        if names == [ZEROSHOT]:
            return ZeroShot(self.clip, classes, templates=tuple(self.result.templates))
        computed = len(self.classes) * max(self.clip.joint_width, self.clip.text_width)
        with within_size_of(self.stages[names[0]].tensors, computed):
            learner = build_learner(self.recipe, self.clip, self.classes, open_run)
        learner = with_prompts(learner, prompts, self.stages)
        learner.bind(classes)
        return learner.eval()

    def predict(
        self,
        images: Images,
        classes: ClassNames | None = None,
        *,
        top_k: int = 1,
        prompts: str = "auto",
        precision: float | None = None,
        reject: bool = False,
        transduce: str | None = None,
        strict: bool = False,
        bank: bool = False,
        callback: Callback = lambda event: None,
    ) -> Predictions:
        """Classify images: files, folders, tables, or pictures in memory.

        The class names are encoded once per call: give many images at a time.

        Args:
            images: paths of files, folders, patterns, tar shards and tables with a column ``path``, data frames with
                one, Pillow images, NumPy arrays (H, W, 3) of uint8, tensors (3, H, W), open image files or their
                bytes, or a mixture of them.
            classes: as in ``learner``.
            top_k: classes per image.
            prompts: as in ``learner``.
            precision: answer "unknown" below the confidence above which this share of the answers for held-out images
                was right.
            reject: answer "unknown" for images that resemble the classes less than 95 % of the held-out images do.
            transduce: a labeler (stata, transclip, ...) that looks at all images of the call at once and corrects the
                answers: for many images. Only stata does not collapse where classes have no image.
            strict: stop at an unreadable image, instead of skipping and listing it.
            bank: take image features from the feature bank on disk, and keep them there.
            callback: called with progress.

        Raises:
            ValueError: no image can be read, or ``classes``, ``prompts`` and ``precision`` do not fit.
            UnreadableImage: an image cannot be read, if ``strict``.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: give the number of classes per image, 1 or more")
        if transduce is not None:
            check_transducer(transduce)
            if precision is not None or reject:
                raise ValueError(
                    "transduce changes the probabilities, and thresholds were learned without it: leave out one of them"
                )
        name, learner = self._predictor(classes, prompts)
        rejection = None
        if precision is not None or reject:
            rejection = Rejection.of(self._calibration_for(name, learner.classes), precision, reject)
        samples, left_out = samples_of(images)
        if strict and left_out:
            raise UnreadableImage(f"left out, and strict is set: {list_skipped(left_out)}", left_out[0].kind)
        readable = scan_images(samples, strict, lambda done, total: callback(Progress("reading", done, total)))
        if not readable.kept:
            raise ValueError(f"no image to classify. {readable.summary()}")
        pipeline = Pipeline(self.clip, self.recipe, callback, keep=bank)  # most are seen once
        skipped = (*left_out, *readable.skipped)
        predictions = self._predictions(pipeline, learner, name, readable.kept, skipped, top_k, rejection)
        if transduce is None:
            return predictions
        features = pipeline.embed(learner, readable.kept)
        return predictions.corrected(label_together(transduce, learner, features, predictions.probabilities))

    def predict_proba(self, images: Images, classes: ClassNames | None = None, *, prompts: str = "auto") -> np.ndarray:
        """Return the probabilities (N, C) of the classes for each image, all of which must be readable.

        Columns are in the order of ``classes``, by default ``known_classes``.
        """
        return self.predict(images, classes, prompts=prompts, strict=True).probabilities.numpy()

    def embed(self, images: Images, *, prompts: str = "auto", bank: bool = False) -> np.ndarray:
        """Return the image features (N, d), of length 1, of images, all of which must be readable.

        They are those of the frozen CLIP, except where the prompts change the image tower.
        """
        _, learner = self._predictor(None, prompts)
        readable = scan_images(samples_of(images)[0], strict=True)
        pipeline = Pipeline(self.clip, self.recipe, keep=bank)
        return pipeline.embed(learner, readable.kept).numpy()

    def evaluate(
        self,
        source: str | Path | pd.DataFrame,
        *,
        root: str | Path | None = None,
        classes: str | Path | None = None,
        prompts: str = "auto",
        split: str = "auto",
        callback: Callback = lambda event: None,
    ) -> float:
        """Return the accuracy in percent on a labelled data set; arguments as in ``score``."""
        return self.score(source, root=root, classes=classes, prompts=prompts, split=split, callback=callback).accuracy

    def score(
        self,
        source: str | Path | pd.DataFrame,
        *,
        root: str | Path | None = None,
        classes: str | Path | None = None,
        prompts: str = "auto",
        split: str = "auto",
        callback: Callback = lambda event: None,
    ) -> Assessment:
        """Score a labelled data set, over all classes and readable images.

        The result has the accuracy over images, ``mean_per_class``, ``per_class``, ``confusion``, ``ece`` and more.

        Args:
            source: a data set, as in ``tune``.
            root: the folder of the data; default: where the run's own data set was, if it is that one.
            classes: its class names file; default: the run's own, if it is that data set.
            prompts: as in ``learner``.
            split: test, val, train, or all; auto: test where there is such a split, else all. The run's own folder
                has the splits that were drawn for it.
            callback: called with progress.

        Raises:
            ValueError: no such data set, or no image in that split.
        """
        choose("split", split, ("auto", "all", "test", "val", "train"))
        data = self.recipe.data
        is_frame = isinstance(source, pd.DataFrame)
        fractions = ALL_TRAIN
        own = not is_frame and (str(source) == data.source or Path(source).resolve() == Path(data.source).resolve())
        if own:
            self._check_there(source, root or data.root, data.classes if classes is None else None)
            root, classes = root or data.root, classes or data.classes
            fractions = ALL_TRAIN if self.result.cross_validated else DRAWN
        where = Path(root) if root else None, Path(classes) if classes else None, fractions
        load: Any = read_frame if is_frame else load_dataset
        dataset: Dataset = load(source, *where, as_words=data.as_words)
        if split == "auto":
            split = "test" if dataset.test else "all"
        parts = ("train", "val", "test") if split == "all" else (split,)
        readable = scan_images([sample for part in parts for sample in getattr(dataset, part)])
        if not readable.kept:
            raise ValueError(f"{dataset.name} has no readable image in {split}; it has {dataset.summary()}")
        if own and self.result.cross_validated and split != "test":
            log.warning(
                "the prompts were tuned on these images: what is to be expected on others was measured by "
                "cross-validation, %.1f %% (cv)", self.result.scores[CROSS_VALIDATED],
            )  # fmt: skip
        name, learner = self._predictor(dataset.classes, prompts)
        pipeline = Pipeline(self.clip, self.recipe, callback)
        predictions = self._predictions(pipeline, learner, name, readable.kept, readable.skipped)
        labels = torch.tensor([sample.label for sample in readable.kept])
        return Assessment(dataset.name, split, predictions, labels)

    def _predictor(self, classes: ClassNames | None, prompts: str) -> tuple[str, AbstractLearner]:
        """Return whose prompts predict among ``classes``, and the learner with them."""
        names = class_names_of(classes) if classes is not None else self.known_classes
        name = self._prompts_for(names) if prompts == "auto" else prompts
        return name, self.learner(names, name)

    def _predictions(
        self,
        pipeline: Pipeline,
        learner: AbstractLearner,
        name: str,
        samples: Sequence[Sample],
        skipped: Sequence[Skipped],
        top_k: int = 1,
        rejection: Rejection | None = None,
    ) -> Predictions:
        logits = pipeline.logits(learner, samples)
        calibration = self.result.calibration.get(name)
        probabilities = (logits / (calibration.temperature if calibration else 1.0)).softmax(dim=1)
        answered, note = torch.ones(len(samples), dtype=torch.bool), ""
        if rejection is not None:
            answered = rejection.answered(logits, probabilities)
            note = rejection.say(answered)
        images = tuple(sample.image.name for sample in samples)
        return Predictions(
            learner.classes, images, probabilities, top_k, tuple(skipped), name, answered, resemblance_of(logits), note
        )

    def _calibration_for(self, name: str, classes: Sequence[str]) -> Calibration:
        """Return what held-out images say of the prompts ``name``.

        Raises:
            ValueError: they were not asked, or for other classes.
        """
        calibration = self.result.calibration.get(name)
        if calibration is None:
            raise ValueError(
                "this run has learned no threshold, as it has no held-out labelled images of its own classes: tune on "
                "your own images (protocol adapt) with validation or test images"
            )
        if {*classes} != {*self.known_classes}:
            raise ValueError(
                "a threshold holds for the classes that it was learned with: leave out classes (--classes), or "
                "precision and reject"
            )
        return calibration

    def save(self, path: str | Path) -> Path:
        """Write all there is to deploy to one small file, which ``maotune.load`` reads."""
        path = Path(path)
        recipe = self.recipe.shareable()
        metadata = {
            "recipe": recipe.model_dump(mode="json"),
            "clip": {
                "source": recipe.clip.source,
                "activation": self.clip.activation,
                "preprocess": self.clip.preprocess.fingerprint,
                "fingerprint": self.clip.fingerprint,
                "revision": self.clip.revision,
            },
            "stages": {name: list(stage.classes) for name, stage in self.stages.items()},
            "result": asdict(self.result),
        }
        tensors = {f"{name}/{key}": t for name, stage in self.stages.items() for key, t in stage.tensors.items()}
        save_prompts(path, tensors, metadata)
        return path

    def _check_there(self, source: str | Path, root: str | Path | None, classes: str | Path | None) -> None:
        """Say what to name where the data of the run are not where they were, seen from here."""
        places = [Path(root or "") / source, Path(source)]
        known = str(source) in names() or str(source).startswith(PREFIX)
        missing = [] if known or any(is_there(place) for place in places) else [f"{source} (--data, source=...)"]
        if classes is not None and not is_there(Path(classes)):
            missing.append(f"{classes} (--classes, classes=...)")
        if missing:
            raise ValueError(
                f"the run was tuned on data that are not here, seen from {Path.cwd()}: name where they are now: "
                f"{', '.join(missing)}"
            )

    @property
    def _tuned_classes(self) -> list[tuple[str, ...]]:
        return [stage.classes for stage in self.stages.values()]

    def _prompts_for(self, classes: Sequence[str]) -> str:
        return self.result.prompts_for(classes, self.classes)


def load_run(path: str | Path, *, clip: FrozenCLIP | str | Path | None = None, allow_download: bool = False) -> Run:
    """Load a tuned run, from its folder or from the file that ``Run.save`` wrote, wherever they have been moved.

    Args:
        path: the folder or the file.
        clip: the CLIP that it was tuned on, if it has been loaded already; or where it is now.
        allow_download: whether the CLIP that the file names is downloaded from the Hugging Face hub if it is not here;
            one that is given as ``clip`` always is.

    Raises:
        CheckpointError: no such file, parts of it are missing or wrong, or its prompts belong to another CLIP.
        FileNotFoundError: the CLIP is not here, and was not downloaded.
    """
    path = folder = _one_run(Path(path))
    if path.is_dir():
        path = path / PROMPTS
        if not path.exists():
            raise CheckpointError(
                f"{path.parent} holds no finished run: finish it with the command that began it and --resume"
            )
    saved = read_saved_run(path)
    recipe, recorded = saved.recipe, saved.clip
    if folder != path and (own := recorded_recipe(folder)) is not None:  # with the folders of its data
        recipe = recipe.located(own)
    if not isinstance(clip, FrozenCLIP):
        changes: dict[str, Any] = {"activation": recorded.activation or recipe.clip.activation}
        if clip is not None:
            changes |= {"source": str(clip), "device": "auto"}
        elif recorded.revision is not None and "@" not in recipe.clip.source:  # where the hub has a newer one by now
            changes["source"] = f"{recipe.clip.source}@{recorded.revision}"
        clip = build_clip(recipe.clip.model_copy(update=changes), allow_download or clip is not None)
    if clip.fingerprint != recorded.fingerprint:
        raise CheckpointError(
            f"the prompts in {path} were tuned on {recorded.source} with other weights or another activation "
            f"(fingerprint {recorded.fingerprint[:12]}, here {clip.fingerprint[:12]}): prompts fit only the CLIP "
            "they were tuned on. Give that one (--clip, clip=...)"
        )
    if clip.preprocess.fingerprint != (recorded.preprocess or clip.preprocess.fingerprint):
        raise CheckpointError(
            f"the prompts in {path} were tuned on images that were prepared in another way ({recorded.preprocess}; "
            f"here {clip.preprocess.fingerprint}): put back the preprocessing config beside the CLIP's weights"
        )
    return Run(recipe, clip, saved.stages, saved.result)


def _one_run(path: Path) -> Path:
    """Return a path, or the only run that a pattern matches, where no shell has replaced it.

    Raises:
        CheckpointError: it matches none, or several.
    """
    if is_there(path) or not glob.has_magic(str(path)):
        return path
    runs = [
        match for match in sorted(glob.glob(str(path))) if (Path(match) / PROMPTS).exists() or Path(match).is_file()
    ]
    if len(runs) != 1:
        raise CheckpointError(f"{path} matches {', '.join(runs) or 'no finished run'}: name one run")
    return Path(runs[0])


def open_run(folder: str) -> tuple[FrozenCLIP, AbstractLearner]:
    """Return the CLIP of a finished run, and its learner with the tuned prompts: a teacher for other learners."""
    run = load_run(folder)
    return run.clip, run.learner()
