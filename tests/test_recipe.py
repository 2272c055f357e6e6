"""Recipes: those that are shipped run, settings are checked at every level, errors name what was meant."""

import json
import math
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from maotune.learners import LEARNERS
from maotune.protocols import PROTOCOLS
from maotune.recipe import Recipe, RecipeError, load_recipe
from maotune.recipe.describe import flat, listings, shown
from maotune.recipe.load import shipped_recipes
from maotune.recipe.paper import departures, in_words
from maotune.recipe.suites import find_suite, targets_of
from maotune.runs.build import build_learner, with_own_texts
from maotune.runs.events import RunPlan
from maotune.runs.tune import tune_and_score
from tests.toys import COLOURS, paint_photos, toy_clip

TITLES = {f"{family}/dept": "coop+dept" for family in ("icons", "vit-b16")}
"""Of recipes that are not called by their learner."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    described = json.loads((files("maotune") / "assets" / "descriptions" / "icons-11.json").read_text(encoding="utf-8"))
    assert COLOURS.keys() <= described.keys(), "CoPrompt needs descriptions of the toy classes"
    return paint_photos(tmp_path_factory.mktemp("recipes"), train=2, val=1, test=1, heap=0)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_runs_a_step_on_a_toy(name: str, photos: Path) -> None:
    small = {"epochs": 1, "batch_size": 4, "data.shots": 2, "data.views": 1, "data.bank": False}
    own = {"data.source": str(photos), "protocol": "base-to-new"}
    recipe = load_recipe(name, small | own)
    told: list[Any] = []
    outcome = tune_and_score(recipe, clip=toy_clip(), callback=told.append)
    result, history = outcome.result, outcome.history
    (plan,) = (event for event in told if isinstance(event, RunPlan))
    updates = 0 if LEARNERS[recipe.learner_name].closed_form else 1
    assert plan.updates == updates
    assert plan.estimate.tuning < 60
    assert (plan.estimate.tuning > 0) == (updates > 0)
    assert result.learner == TITLES.get(name, name.partition("/")[2])
    assert [stage["updates"] for stage in result.stages] == [updates]
    assert result.stages[0]["seconds"] > 0
    assert all(math.isfinite(loss) for epoch in result.stages[0]["losses"] for loss in epoch.values())
    assert set(result.scores) == {"base", "new", "h"}
    assert history["plain"].prompts


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_goes_with_cross_dataset(name: str, photos: Path) -> None:
    given = {"protocol": "cross-dataset", "data.targets": [str(photos)], "method": "mao"}
    recipe = load_recipe(name, given)
    if LEARNERS[recipe.learner_name].tunes_prompts:
        assert (recipe.epochs, recipe.lr, recipe.mao.lr) == (5, 0.0035, 0.0035), "Appendix B"
    else:
        assert recipe.lr == load_recipe(name).lr, "Appendix B is about prompts"
    small = {"epochs": 1, "data.shots": 1, "data.views": 1, "data.bank": False, "mao.b": 1, "mao.k": 2}
    other = photos.with_name("same")
    if not other.exists():
        shutil.copytree(photos, other)
    recipe = load_recipe(name, given | small | {"data.source": str(other)})
    result = tune_and_score(recipe, clip=toy_clip()).result
    assert set(result.scores) == {"photos", "same"}
    assert set(result.scored_with.values()) == {"base"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_says_how_to_run_it(name: str) -> None:
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"maotune train --recipe {name} " in text
    assert load_recipe(name).clip.source == {"icons": "iconclip", "vit-b16": "ViT-B/16"}[name.partition("/")[0]]


def test_every_learner_has_a_recipe_for_both_kinds_of_clip() -> None:
    assert set(shipped_recipes()) == {
        f"{family}/{name}" for family in ("icons", "vit-b16") for name in (*LEARNERS, "dept")
    }
    for name in LEARNERS:
        assert load_recipe(None, {"learner": name}) == load_recipe(f"icons/{name}")
        other = {"learner.name": name, "clip.source": "ViT-B/16"}
        assert load_recipe(None, other) == load_recipe(f"vit-b16/{name}")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("epoch=1", "'epoch'; did you mean epochs"),
        ("clip.sorce=x", "'clip.sorce'; did you mean source"),
        ("data.shot=1", "'data.shot'; did you mean shots"),
        ("mao.labeller=tuned", "'mao.labeller'; did you mean labeler"),
        ("train.optimzer=SGD", "'train.optimzer'; did you mean optimizer"),
        ("train.average={mean: 3, stdd: 1}", "'train.average.stdd'; did you mean std"),
        ("learner.contxt_length=4", "'learner.contxt_length'; did you mean context_length"),
        ("dept={wight: 0.5}", "'dept.wight'; did you mean weight"),
        ("learner.name=copo", "unknown learner 'copo'; did you mean coop"),
        ("method=moa", "unknown method 'moa'; did you mean mao"),
        ("learner.context_length=many", "learner.context_length"),
        ("data.split=dev", "data.split"),
        ("epochs=0", "epochs"),
        ("lr=0", "lr"),
        ("mao.b=0", "b is 0"),
        ("templates=photo", "{}"),
        ("epochs", "is not key=value"),
        ("data.classes= ", "has no value (is a shell variable unset?): give one, or null for none"),
        ("epochs=[1", "is not YAML"),
        ("epochs.x.y=1", "holds a value, not settings"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_meant(override: str, wanted: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(wanted)):
        load_recipe(None, [override])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("- coop\n", "holds a list"), ("a: [\n", "is not YAML"), ("learner: copo\n", "did you mean coop")],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=wanted):
        load_recipe(tmp_path / "mine.yaml")
    with pytest.raises(RecipeError, match=r"Shipped recipes: .*icons/coop"):
        load_recipe(tmp_path / "gone.yaml")


def test_overrides_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("learner: tcp\ntrain: {optimizer: AdamW}\n")
    recipe = load_recipe(mine, ["train.accumulate=2", "mao.k=3", "learner.context_length=5"])
    assert recipe.learner == {"name": "tcp", "context_length": 5}
    assert (recipe.train.optimizer, recipe.train.accumulate, recipe.mao.k) == ("AdamW", 2, 3)
    assert recipe.epochs == Recipe().epochs, "nothing is said of it"
    assert load_recipe(mine, {"epochs": 3}).epochs == 3
    assert load_recipe(mine, ["shots=2"]).data.shots == 2


@pytest.mark.parametrize(("written", "meant"), [("true", "distinct"), ("false", "short"), ("repeat", "repeat")])
def test_a_recipe_of_an_older_version_fills_batches_as_it_did(tmp_path: Path, written: str, meant: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"mao: {{fill: {written}}}\n")
    assert load_recipe(mine).mao.fill == load_recipe(None, [f"mao.fill={written}"]).mao.fill == meant
    with pytest.raises(RecipeError, match=r"mao\.fill: Input should be 'repeat', 'distinct' or 'short'"):
        load_recipe(None, ["mao.fill=full"])


def test_another_learner_drops_the_settings_of_the_first() -> None:
    recipe = load_recipe("icons/coop", {"learner.name": "vpt", "learner.depth": 2})
    assert recipe.learner == {"name": "vpt", "depth": 2}
    assert load_recipe("icons/coop", {"learner.name": "coop"}) == load_recipe("icons/coop")


def test_a_folder_is_named_after_all_that_decides_the_result() -> None:
    first = load_recipe(None, {"data.source": "some/My photos", "seed": 3})
    assert first.slug.startswith("my-photos-coop-plain-seed3-")
    slugs: set[str] = set()
    changes: list[dict[str, Any]] = [{}, {"seed": 4}, {"lr": 0.1}, {"mao.k": 3}, {"dept": {}}, {"data.flip": True}]
    for change in changes:
        slugs.add(load_recipe(None, {"data.source": "some/My photos", "seed": 3, **change}).slug)
    assert len(slugs) == len(changes)


def test_the_settings_of_a_protocol_go_over_a_file_for_another_and_under_one_of_its_own(tmp_path: Path) -> None:
    assert (load_recipe("icons/coop").epochs, load_recipe("icons/coop", ["protocol=cross-dataset"]).epochs) == (20, 5)
    assert load_recipe("icons/coop", ["epochs=7", "protocol=cross-dataset"]).epochs == 7
    mine = tmp_path / "mine.yaml"
    mine.write_text("protocol: cross-dataset\nepochs: 3\n")
    recipe = load_recipe(mine)
    assert (recipe.epochs, recipe.lr, recipe.mao.lr) == (3, 0.0035, 0.0035)
    assert load_recipe(mine, ["protocol=cross-dataset"]) == recipe
    assert load_recipe(mine, ["protocol=few-shot"]).lr == Recipe().lr
    with pytest.raises(RecipeError, match="unknown protocol 'cross-datasets'; did you mean cross-dataset"):
        load_recipe(mine, ["protocol=cross-datasets"])


def test_the_targets_of_a_source_are_the_rest_of_its_suite_and_other_looks_at_its_classes(tmp_path: Path) -> None:
    places = load_recipe(None, {"data.source": "icons-places"})
    assert set(targets_of(places)) == {*find_suite("icons-11")} - {"icons-places"}
    generic = load_recipe(None, {"data.source": "icons-generic"})
    assert {*targets_of(generic)} == {*find_suite("icons-11"), *find_suite("icons-shifts")} - {"icons-generic"}
    assert targets_of(load_recipe(None, {"data.source": "icons-food", "data.targets": ["a", "b"]})) == ("a", "b")
    root = {"data.root": str(tmp_path)}
    ten = {*find_suite("coop-11")} - {"imagenet"}
    assert set(targets_of(load_recipe(None, {"data.source": "imagenet", **root}))) == ten
    (tmp_path / "imagenet-rendition").mkdir()
    assert set(targets_of(load_recipe(None, {"data.source": "imagenet", **root}))) == {*ten, "imagenet-r"}
    with pytest.raises(RecipeError, match="photos is in no suite"):
        targets_of(load_recipe(None, {"data.source": "photos"}))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("a photo of a {}.", "{}."),
        ("a photo of a {}, a type of pet.", "{}, a type of pet."),
        ("a photo of {}, a type of food.", "{}, a type of food."),
        ("{} texture.", "{} texture."),
        ("a centered satellite photo of {}.", "{}."),
        ("a photo of a person doing {}.", "person doing {}."),
    ],
)
def test_the_data_sets_own_text_as_a_template_and_as_what_follows_the_context(own: str, words: str) -> None:
    recipe = load_recipe("vit-b16/tcp")
    assert (recipe.learner["template"], recipe.learner["words"]) == ("dataset", "dataset")
    said = with_own_texts(recipe, own)
    assert (said.learner["template"], said.learner["words"]) == (own, words)
    assert load_recipe(None, said.model_dump()) == said, "as a finished run keeps it"
    plain = load_recipe("icons/coop")
    assert with_own_texts(plain, own) == plain


def test_a_run_keeps_the_text_that_its_data_set_stood_for(photos: Path) -> None:
    given = {
        "data.source": str(photos),
        "epochs": 1,
        "data.shots": 1,
        "data.bank": False,
        "learner.template": "dataset",
    }
    outcome = tune_and_score(load_recipe("icons/kgcoop", given), clip=toy_clip())
    assert outcome.recipe.learner["template"] == "a photo of a {}."
    assert outcome.result.recipe["learner"]["template"] == "a photo of a {}."
    with pytest.raises(RecipeError, match="there is no data set: give the text"):
        build_learner(load_recipe("vit-b16/kgcoop"), toy_clip(), ("rain", "sun"))


def test_the_protocol_goes_by_the_data() -> None:
    assert load_recipe(None, {"data.source": "icons-food"}).protocol_in_use.name == "base-to-new"
    assert load_recipe(None, {"data.source": "photos"}).protocol_in_use.name == "adapt"
    assert load_recipe(None, {"data.source": "photos", "clip.source": "ViT-B/16"}).protocol_in_use.name == "adapt"
    assert load_recipe(None, {"data.source": "photos", "protocol": "base-to-new"}).protocol_in_use.name == "base-to-new"


def test_the_suite_is_the_eleven_shipped_sets() -> None:
    assert len(find_suite("icons-11")) == 11
    assert all(name.startswith("icons-") for name in find_suite("icons-11"))


@pytest.mark.parametrize("name", [f"vit-b16/{learner}" for learner in LEARNERS])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_recipes_of_the_paper_are_its_settings(name: str, protocol: str) -> None:
    given: dict[str, Any] = {"protocol": protocol, "seed": 2, "method": "mao", "data.source": "dtd", "data.root": "x"}
    recipe = load_recipe(name, given)
    assert departures(recipe) == {}
    assert in_words([recipe.name], {}) == f"recipe {name}; settings as in the paper"
    assert departures(load_recipe(name, {**given, "clip.source": "openai/clip-vit-base-patch16"})) == {}
    short = departures(load_recipe(name, {**given, "mao.fill": "short", "data.shots": 8}))
    assert short == {"data.shots": {"here": 8, "paper": 16}, "mao.fill": {"here": "short", "paper": "repeat"}}


def test_a_run_says_which_recipe_it_has_and_where_that_departs_from_the_paper(photos: Path) -> None:
    recipe = load_recipe(None, {"data.source": str(photos), "data.shots": 1, "epochs": 1, "protocol": "base-to-new"})
    assert recipe.name == "icons/coop"
    told: list[Any] = []
    result = tune_and_score(recipe, clip=toy_clip(), callback=told.append).result
    assert result.recipe["name"] == "icons/coop"
    assert set(result.departures) == {
        "clip.source", "data.shots", "data.crop_scale", "data.flip", "epochs", "lr", "mao.lr"
    }  # fmt: skip
    assert result.departures["data.crop_scale"] == {"here": [0.5, 1.0], "paper": [0.08, 1.0]}
    (plan,) = (event for event in told if isinstance(event, RunPlan))
    assert "recipe icons/coop; not as in the paper: " in str(plan)
    assert "data.crop_scale=[0.5, 1.0] (paper: [0.08, 1.0])" in str(plan)


def test_the_name_of_a_recipe_is_that_of_its_file_and_decides_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(shipped_recipes()["icons/coop"].read_text(encoding="utf-8"))
    recipe, shipped = load_recipe(mine), load_recipe("icons/coop")
    assert (recipe.name, shipped.name) == (str(mine), "icons/coop")
    assert recipe.deciding() == shipped.deciding()
    assert recipe.slug == shipped.slug
    assert load_recipe(None, recipe.model_dump()) == recipe, "as a finished run keeps it"


def test_a_learner_that_the_paper_lacks_departs_in_no_setting_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, "mine", LEARNERS["coop"])
    recipe = Recipe(learner={"name": "mine", "context_length": 9}, lr=0.1)
    assert departures(recipe) == {
        "clip.source": {"here": "iconclip", "paper": "ViT-B/16"}, "lr": {"here": 0.1, "paper": 0.002}
    }  # fmt: skip


def test_the_list_of_settings_shows_what_train_takes_without_a_recipe() -> None:
    told = listings()["settings"]()
    taken = flat(load_recipe(None).model_dump(mode="json"))
    assert taken.keys() - {"name", "learner.name", "dept", "train.average"} <= told.keys()
    for key, value in taken.items():
        if key in told and not key.startswith("learner."):
            assert re.search(rf"Default: {re.escape(shown(value))}(\.|; as in the paper: )", told[key]), key
    assert "Default: [0.5, 1.0]; as in the paper: [0.08, 1.0]." in told["data.crop_scale"]
    assert "[coop, cocoop, kgcoop] L, tokens of context. Default: 4." in told["learner.context_length"]
    assert "Default: 3; as in the paper: 9." in told["learner.depth"]


def test_settings_are_listed_with_meaning_and_default() -> None:
    told = listings()["settings"]()
    for key in ("epochs", "clip.dtype", "data.shots", "mao.labeler", "train.optimizer", "train.average.mean"):
        assert told[key].count("Default:") == 1, key
        assert len(told[key].partition("Default:")[0]) > 10, f"{key} is not explained"
    assert "coop" in told["learner.context_length"]
    assert "tokens" in told["learner.context_length"]
    assert "Default: 0.7" in told["dept.weight"]


def aliases(line: str) -> str:
    """Ten lines, each of which holds the one before it nine times."""
    lines = [f"a{number}: &a{number} {line}" for number in range(1, 10)]
    return "a0: &a0 {x: 1}\n" + "\n".join(
        each.replace("@", ",".join([f"*a{number}"] * 9)) for number, each in enumerate(lines)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (aliases("[@]"), "more than 20 aliases"),
        (aliases("{<<: [@]}"), "more than 20 aliases"),
        ("[" * 30_000, "nested more than 20 deep"),
        ("{a: " * 10_000, "nested more than 20 deep"),
        ("data: &a\n  source: *a\n", "data.source: Input should be a valid string"),
        ("a: " + "x" * 70_000, "at most 65,536 are read"),
        ("seed: 2020-99-99", "month must be in 1..12"),
        ("seed: " + "9" * 5000, "limit"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("\n".join(f"k{number}: 1" for number in range(3000)), "and 2990 more"),
        ("lr: .inf", "lr: Input should be a finite number"),
        ("mao: {lr: .nan}", "mao.lr: Input should be a finite number"),
        ("train: {gradient_clip: .inf}", "train"),
    ],
)
def test_a_recipe_that_would_grow_or_holds_no_number_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_recipe_may_repeat_itself_a_few_times(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("lr: &rate 0.1\nmao: {lr: *rate}\n", encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").mao.lr == 0.1


def test_an_endless_file_is_no_recipe() -> None:
    with pytest.raises(RecipeError, match="it is no regular file"):
        load_recipe("/dev/zero")
