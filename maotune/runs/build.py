"""The objects that a recipe names: the frozen CLIP, the learner, the images."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from maotune.clip import FrozenCLIP, load_clip
from maotune.clip.ensembles import SIXTY
from maotune.contract import AbstractLearner
from maotune.data.images.scan import scan_images
from maotune.data.sets.catalog import load_dataset, load_unlabelled
from maotune.data.sets.dataset import Dataset
from maotune.data.sets.labels import ALL_TRAIN, DRAWN
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.learners.teacher import OpenRun
from maotune.printable import without_folders
from maotune.protocols.protocol import Splits
from maotune.recipe.schema import OWN_TEXT, ClipSettings, Recipe, RecipeError, arguments, learner_settings
from maotune.recipe.suites import targets_of
from maotune.runs.corrections import with_labels
from maotune.runs.readable import Drawn, draw_readable, read_all, without


def build_clip(settings: ClipSettings, allow_download: bool = True) -> FrozenCLIP:
    """Load the frozen model (``maotune.clip.load_clip``)."""
    return load_clip(
        settings.source,
        device=settings.device,
        dtype=settings.dtype,
        activation=settings.activation,
        activation_checkpointing=settings.activation_checkpointing,
        allow_download=allow_download,
    )


def build_learner(
    recipe: Recipe, clip: FrozenCLIP, classes: Sequence[str], open_run: OpenRun | None = None
) -> AbstractLearner:
    """Build the learner with fresh prompts, bound to ``classes``; torch's random state decides the prompts.

    Args:
        recipe: names the learner and its settings.
        clip: the frozen model.
        classes: to bind.
        open_run: for learners that learn from a finished run (``learns_from_run``).

    Raises:
        ValueError: the classes do not fit into the context.
    """
    build: Any = LEARNERS[recipe.learner_name]
    settings = learner_settings(recipe.learner)
    if unresolved := [key for key, value in settings.items() if value == OWN_TEXT]:
        raise RecipeError(
            f"learner.{unresolved[0]} is {OWN_TEXT!r}, the data set's own text, and there is no data set: give the text"
        )
    if build.learns_from_run:
        settings["open_run"] = open_run
    learner: AbstractLearner = build(clip, classes, **settings)
    if recipe.dept is None:
        return learner
    width = clip.joint_width if learner.text_depends_on_image else None  # else it finds its own
    return DePT(learner, width, **arguments(DePT, recipe.dept, "dept"))


def with_own_texts(recipe: Recipe, own: str) -> Recipe:
    """Replace ``dataset`` among the learner's settings by what it stands for, the data set's text ``own``.

    As ``template`` the whole of it; as ``words`` (TCP) what follows the learned context: the rest after "a photo of a",
    or from the class name on where it begins in another way ("{} texture.", "a centered satellite photo of {}.").
    """
    rest = own.removeprefix("a photo of a ")
    texts = {"template": own, "words": rest if rest != own else own[own.index("{}") :]}
    resolved = {key: texts[key] for key, value in recipe.learner.items() if key in texts and value == OWN_TEXT}
    return recipe.model_copy(update={"learner": {**recipe.learner, **resolved}}) if resolved else recipe


def templates_of(recipe: Recipe, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts of zero-shot CLIP; ``own`` are the data set's."""
    return _texts(recipe.templates, own)


def labeler_templates(recipe: Recipe, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts of zero-shot CLIP as the labeler of MAO's new stage; ``own`` are the data set's."""
    return _texts(recipe.mao.template or recipe.templates, own)


def _texts(setting: str, own: tuple[str, ...]) -> tuple[str, ...]:
    return {"dataset": own, "ensemble": SIXTY}.get(setting, (setting,))


def load_readable(recipe: Recipe, split: str) -> Dataset:
    """Load the data set of a recipe; of ``split`` (train, val, test), only the images that can be read.

    Raises:
        ValueError: no such data.
        UnreadableImage: an image cannot be read, and ``data.strict`` is set.
    """
    data = recipe.data
    dataset = load_dataset(data.source, data.root, data.classes, as_words=data.as_words)
    kept: dict[str, Any] = {split: read_all(getattr(dataset, split), data.strict).kept}
    return replace(dataset, **kept)


def build_splits(recipe: Recipe, own: Dataset | None = None) -> Drawn:
    """Draw the readable images of a run (``draw_readable``); ``own``: the data set, where it is in memory.

    Raises:
        ValueError: no such data, or it does not fit the protocol.
        UnreadableImage: an image cannot be read, and ``data.strict`` is set.
    """

    def draw(datasets: Sequence[Dataset]) -> Splits:
        return recipe.protocol_in_use.draw(datasets, recipe.draw_settings)

    whole_train = recipe.mao.pool == "train"
    return draw_readable(draw, load_datasets(recipe, own), strict=recipe.data.strict, whole_train=whole_train)


def redraw_splits(recipe: Recipe, skipped: Collection[str]) -> Splits:
    """Draw the images of a run of which it is known that these images, by name, could not be read.

    No other image is decoded. Those that can be read by now are not left out any more.

    Raises:
        ValueError: no such data, or it does not fit the protocol.
    """
    datasets = load_datasets(recipe)
    if names := {*skipped}:
        own = recipe.data.own_paths
        known = [
            sample
            for dataset in datasets
            for sample in chain(dataset.train, dataset.val, dataset.test, dataset.unlabelled)
            if not names.isdisjoint((sample.image.name, without_folders(sample.image.name, own)))
        ]
        unreadable = scan_images(known).skipped
        datasets = [without(dataset, unreadable) for dataset in datasets]
    return recipe.protocol_in_use.draw(datasets, recipe.draw_settings)


def load_datasets(recipe: Recipe, own: Dataset | None = None) -> list[Dataset]:
    """Load the data set of a recipe, or take ``own``; then the targets, where its protocol takes any."""
    data, protocol = recipe.data, recipe.protocol_in_use
    if data.unlabelled is not None and not protocol.takes_unlabelled:
        raise RecipeError(
            f"data.unlabelled (--unlabelled) goes with the protocol adapt; {protocol.name} draws the unlabelled images "
            "that it needs itself: leave it out, or set protocol=adapt"
        )
    fractions = ALL_TRAIN if protocol.cross_validates and data.folds else DRAWN
    source = own or load_dataset(data.source, data.root, data.classes, fractions, as_words=data.as_words)
    if data.unlabelled is not None:
        pool = load_unlabelled(data.unlabelled)
        images, skipped = (*source.unlabelled, *pool.unlabelled), (*source.skipped, *pool.skipped)
        source = replace(source, unlabelled=images, skipped=skipped)
    if data.labels is not None:
        source = with_labels(source, data.labels, data.classes)
    targets = targets_of(recipe) if protocol.takes_targets else ()
    return [source, *(load_dataset(target, data.root, as_words=data.as_words) for target in targets)]
