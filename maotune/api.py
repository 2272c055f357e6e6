"""The practitioner's objects: tune, predict, evaluate, save, load."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner
from maotune.data.images.decode import ImageFile, MemoryImage, Skipped, scan
from maotune.data.images.shards import SHARD
from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.dataset import Sample
from maotune.data.sets.readers import read_unlabelled
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.stages import ZEROSHOT
from maotune.protocols.splits import Test
from maotune.recipe import Recipe, build_clip, build_learner, choose, load_recipe
from maotune.runs.tune import Bench, Listener, Progress, Prompts, Result, run
from maotune.train.evaluate import Prediction, predict
from maotune.train.session import CheckpointError, load_prompts, restore_prompts, save_prompts

PROMPTS = "prompts.safetensors"
"""The file of a run's folder that is all there is to deploy."""

Images = str | Path | Image.Image | Iterable[str | Path | Image.Image]


@dataclass(frozen=True)
class Predictions:
    """What a run takes images for."""

    images: Prediction
    skipped: tuple[Skipped, ...]
    """Images that could not be read."""
    prompts: str
    """The stage whose prompts were used, or ``zeroshot``."""

    def __len__(self) -> int:
        return len(self.images.names)

    def __iter__(self) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """``(name of the image, [(class, probability), ...])``, most probable class first."""
        found = self.images
        for name, indices, probabilities in zip(found.names, found.indices, found.probabilities, strict=True):
            yield (
                name,
                [
                    (found.classes[index], probability)
                    for index, probability in zip(indices.tolist(), probabilities.tolist(), strict=True)
                ],
            )


class Run:
    """Tuned prompts with the frozen CLIP that they belong to."""

    def __init__(self, recipe: Recipe, clip: FrozenCLIP, stages: Mapping[str, Prompts], result: Result) -> None:
        self.recipe, self.clip, self.stages, self.result = recipe, clip, stages, result

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in self.result.scores.items())
        return f"Run({self.result.dataset}, {self.result.learner}, {self.result.method}: {scores})"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that were tuned on with labelled images."""
        return next(iter(self.stages.values())).classes

    def learner(self, classes: Sequence[str] | None = None, prompts: str = "auto") -> AbstractLearner:
        """The tuned learner, bound to ``classes`` (default: those tuned on).

        Args:
            classes: any names, also ones never tuned on.
            prompts: a stage of ``stages``, ``zeroshot``, or ``auto``: in the protocol adapt those that scored best on
                validation images; in base-to-new those of the first stage where all of ``classes`` were tuned on there,
                else, as in the other protocols, those of the last.

        Raises:
            RecipeError: no such prompts. ValueError: a class name that does not fit.
        """
        classes = tuple(classes) if classes is not None else self._default_classes()
        name = self._choose(classes) if prompts == "auto" else choose("prompts", prompts, [*self.stages, ZEROSHOT])
        if name == ZEROSHOT:
            return ZeroShot(self.clip, classes, templates=tuple(self.result.templates))
        learner = build_learner(self.recipe, self.clip, self.classes)
        restore_prompts(learner, self.stages[name].tensors)
        learner.bind(classes)
        return learner.eval()

    def predict(
        self,
        images: Images,
        classes: Sequence[str] | None = None,
        *,
        top_k: int = 1,
        prompts: str = "auto",
        strict: bool = False,
        listen: Listener = lambda event: None,
    ) -> Predictions:
        """Classify images: files, folders, or pictures in memory.

        The class names are encoded once a call: give many images at a time.

        Args:
            images: paths of files, folders and tar shards, Pillow images, or a mixture of them.
            classes: as in ``learner``.
            top_k: classes an image.
            prompts: as in ``learner``.
            strict: stop at an unreadable image, instead of leaving it out and listing it.
            listen: hears of progress.

        Raises:
            ValueError: no image can be read, or ``classes`` and ``prompts`` do not fit.
            UnreadableImage: an image cannot be read, if ``strict``.
        """
        classes = tuple(classes) if classes is not None else self._default_classes()
        name = self._choose(classes) if prompts == "auto" else prompts
        learner = self.learner(classes, name)
        found = scan(_samples(images), strict, lambda done, total: listen(Progress("reading", done, total)))
        if not found.kept:
            raise ValueError(f"no image to classify. {found.summary()}")
        bench = Bench(self.clip, self.recipe, listen, keep=False)  # seen once: not for the bank on disk
        batches = bench.test_batches(learner, [Sample(sample.image, 0) for sample in found.kept])
        return Predictions(predict(learner, batches, top_k), found.skipped, name)

    def evaluate(
        self,
        source: str | Path,
        *,
        root: str | Path | None = None,
        classes: str | Path | None = None,
        prompts: str = "auto",
        split: str = "test",
        listen: Listener = lambda event: None,
    ) -> float:
        """Accuracy in percent on a split of a labelled data set, over all of its classes and readable images.

        Args:
            source: a data set, as in ``tune``.
            root: where it is looked for; default: where the run's own data set was, if it is that one.
            classes: its class names file; default: the run's own, if it is that data set.
            prompts: as in ``learner``.
            split: test, val or train.
            listen: hears of progress.

        Raises:
            ValueError: no such data set, or no image in that split.
        """
        data = self.recipe.data
        if str(source) == data.source:
            root, classes = root or data.root, classes or data.classes
        dataset = load_dataset(source, Path(root) if root else None, Path(classes) if classes else None)
        found = scan(getattr(dataset, choose("split", split, ("train", "val", "test"))))
        if not found.kept:
            raise ValueError(f"{dataset.name} has no readable image in its {split} split")
        bench = Bench(self.clip, self.recipe, listen)
        return bench.score(self.learner(dataset.classes, prompts), Test(dataset.classes, found.kept)).accuracy

    def save(self, path: str | Path) -> Path:
        """Write all there is to deploy to one small file, which ``maotune.load`` reads."""
        path = Path(path)
        metadata = {
            "recipe": self.recipe.model_dump(mode="json"),
            "clip": {"source": self.recipe.clip.source, "fingerprint": self.clip.fingerprint},
            "stages": {name: list(stage.classes) for name, stage in self.stages.items()},
            "result": asdict(self.result),
        }
        tensors = {f"{name}/{key}": t for name, stage in self.stages.items() for key, t in stage.tensors.items()}
        save_prompts(path, tensors, metadata)
        return path

    def _default_classes(self) -> tuple[str, ...]:
        """Those labelled images were given for; in the protocol adapt all that have a name."""
        last = [*self.stages.values()][-1]
        return last.classes if self.result.protocol == "adapt" else self.classes

    def _choose(self, classes: Sequence[str]) -> str:
        scored = self.result.scored_with
        if {"base", "new"} <= scored.keys():
            return scored["base"] if {*classes} <= {*self.classes} else scored["new"]
        return next(iter(scored.values()))


def tune(
    source: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    listen: Listener | None = None,
    **settings: Any,
) -> Run:
    """Tune prompts and score them.

    Args:
        source: a shipped set, a folder of images, or a table: ``data.source`` of the recipe.
        recipe: a YAML file, or the name of a shipped one (``icons/coop``); default: the learner's.
        folder: for prompts, checkpoints and the result; None: nothing is written.
        resume: go on with what is in ``folder``.
        clip: the frozen model, if it has been loaded already.
        listen: hears of the plan, of stages, steps and progress.
        settings: the recipe's, with ``__`` for the dot: ``method="mao"``, ``seed=2``, ``shots=8``, ``data__views=4``,
            ``learner="kgcoop"``, ``learner__context_length=4``.

    Raises:
        RecipeError: unknown settings or names.
        CheckpointError: ``folder`` holds another run, or this one and ``resume`` is off.
        ValueError: the data cannot be used.
    """
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    if source is not None:
        overrides["data.source"] = str(source)
    return tune_recipe(load_recipe(recipe, overrides), folder, resume=resume, clip=clip, listen=listen)


def tune_recipe(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    listen: Listener | None = None,
    estimates: bool = True,
) -> Run:
    """``tune`` for a recipe that has been read already; ``estimates`` as in ``maotune.runs.tune.run``."""
    clip = clip or build_clip(recipe.clip)
    where = Path(folder) if folder is not None else None
    outcome = run(recipe, where, clip=clip, resume=resume, listen=listen, estimates=estimates)
    finished = Run(outcome.recipe, clip, outcome.prompts, outcome.result)
    if where is not None:
        where.mkdir(parents=True, exist_ok=True)
        finished.save(where / PROMPTS)
        outcome.scoring.save(where)
        outcome.result.save(where)  # the last: where it is, all is
    return finished


def load(path: str | Path, *, clip: FrozenCLIP | None = None) -> Run:
    """A tuned run, from its folder or from the file that ``Run.save`` wrote, wherever they have been moved.

    Args:
        path: of the folder or the file.
        clip: the CLIP that it was tuned on, if it has been loaded already or is not where it was.

    Raises:
        CheckpointError: no such file, or its prompts belong to another CLIP.
    """
    path = Path(path)
    if path.is_dir():
        path = path / PROMPTS
        if not path.exists():
            raise CheckpointError(
                f"{path.parent} holds no finished run: finish it with the command that began it and --resume"
            )
    tensors, about = load_prompts(path)
    if "stages" not in about:
        raise CheckpointError(f"{path} holds the prompts of one stage: load {PROMPTS}, which stands beside it")
    try:
        recipe, result = Recipe.model_validate(about["recipe"]), Result(**about["result"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was written by another version of maotune: {error}") from error
    clip = clip or build_clip(recipe.clip)
    if clip.fingerprint != about["clip"]["fingerprint"]:
        raise CheckpointError(
            f"the prompts in {path} were tuned on {about['clip']['source']} with other weights (fingerprint "
            f"{about['clip']['fingerprint'][:12]}, here {clip.fingerprint[:12]}): prompts fit only the CLIP they were "
            "tuned on. Give that one (--clip, clip=...)"
        )
    stages = {
        name: Prompts(
            tuple(classes),
            {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")},
        )
        for name, classes in about["stages"].items()
    }
    return Run(recipe, clip, stages, result)


def _samples(images: Images) -> list[Sample]:
    if isinstance(images, str | Path | Image.Image):
        images = [images]
    samples: list[Sample] = []
    for number, image in enumerate(images):
        if isinstance(image, Image.Image):
            samples.append(Sample(MemoryImage(image, f"image {number}"), -1))
        elif Path(image).is_dir() or Path(image).suffix.lower() == SHARD:
            samples += read_unlabelled(Path(image))
        else:
            samples.append(Sample(ImageFile(Path(image)), -1))
    return samples
