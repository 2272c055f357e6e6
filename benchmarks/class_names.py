"""Zero-shot accuracy of IconCLIP on icons-11 where class names are spelled in the ways that folders are.

    python benchmarks/class_names.py

Each name is given as it is spelled, and as it is written as words by default (``data.as_words``).
"""

from collections.abc import Callable
from statistics import fmean

from maotune.clip import load_clip
from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.class_names import names_as_words
from maotune.learners.zeroshot import ZeroShot
from maotune.protocols.protocol import Test
from maotune.recipe import load_recipe
from maotune.recipe.suites import find_suite
from maotune.runs.pipeline import Pipeline

SPELLINGS: dict[str, Callable[[int, str], str]] = {
    "lady beetle": lambda number, name: name,
    "lady_beetle": lambda number, name: name.replace(" ", "_"),
    "lady-beetle": lambda number, name: name.replace(" ", "-"),
    "LadyBeetle": lambda number, name: "".join(word[:1].upper() + word[1:] for word in name.split()),
    "009.lady_beetle": lambda number, name: f"{number:03}.{name.replace(' ', '_')}",
    "c9": lambda number, name: f"c{number}",
}
"""Spelling by what it makes of "lady beetle"."""


def main() -> None:
    """Print a line per spelling: the mean over the data sets as spelled, then written as words."""
    clip = load_clip("iconclip")
    accuracies: dict[str, list[tuple[float, float]]] = {spelling: [] for spelling in SPELLINGS}
    for source in find_suite("icons-11"):
        dataset = load_dataset(source)
        pipeline = Pipeline(clip, load_recipe(None, {"data.source": source}))

        def score(names: tuple[str, ...]) -> float:
            learner = ZeroShot(clip, names, templates=dataset.templates)  # noqa: B023 - called in this round
            return pipeline.score(learner, Test(names, dataset.test)).accuracy  # noqa: B023

        for spelling, spell in SPELLINGS.items():
            labels = tuple(spell(number, name) for number, name in enumerate(dataset.classes, 1))
            accuracies[spelling].append((score(labels), score(tuple(names_as_words(labels).values()))))
    print(f"{'':16}  as spelled  as words")
    for spelling, pairs in accuracies.items():
        spelled, words = (fmean(each) for each in zip(*pairs, strict=True))
        print(f"{spelling:16}  {spelled:10.1f}  {words:8.1f}")


if __name__ == "__main__":
    main()
