"""docs/reproduce.md: every table and figure has its commands, and they do what the page says."""

import re
import shlex
from pathlib import Path

import pytest

from maotune.data.sets.dataset import Sample
from maotune.data.sets.icons import load
from maotune.experiments.catalog import EXPERIMENTS, plan_runs
from maotune.recipe.suites import SUITES
from maotune.sweep.manifest import Sweep
from tests.cli.conftest import Maotune

PAGE = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
LIGHT = ("--seeds", "1", "--jobs", "1", "shots=2", "epochs=2", "data.views=1")
"""Small enough for a test; what is asked for last holds."""


def commands(text: str) -> list[list[str]]:
    """Arguments of the maotune commands in shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("maotune ")]


FEWER = {
    "cross-dataset": ["--learners", "coop", "data.targets=[icons-weather]"],
    "plug-in": ["--learners", "coop"],
    "few-shot": ["--learners", "coop", "--methods", "plain"],
}
"""The other learners and methods are tuned for other tables."""

SECTIONS = {
    heading: commands(text) for heading, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}
HERE = [command for command in commands(PAGE) if "coop-11" not in command]
THERE = [command for command in commands(PAGE) if "coop-11" in command]


@pytest.mark.parametrize("counterpart", [*(f"Table {n}" for n in range(1, 9)), *(f"Figure {n}" for n in range(3, 7))])
def test_every_table_and_figure_has_a_command_for_both_suites(counterpart: str) -> None:
    ((heading, given),) = (
        (heading, given) for heading, given in SECTIONS.items() if heading.startswith(f"{counterpart}:")
    )
    if counterpart == "Table 6":
        assert given == [["list", "settings"]]
        return
    here, there = given
    assert here[:2] == there[:2] == ["run", here[1]], heading
    assert re.search(rf"\b{counterpart.split()[1]}\b", EXPERIMENTS[here[1]].counterpart)
    assert "coop-11" in there


def test_the_page_shows_every_experiment_of_the_paper() -> None:
    shown = {command[1] for command in commands(PAGE) if command[0] == "run"}
    assert shown == {name for name in EXPERIMENTS if name != "distillation"}, "which the paper argues against"


def test_the_page_counts_the_trials() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.M)
    assert {name for name, *_ in rows} == {name for name, one in EXPERIMENTS.items() if not one.make_figure} - {
        "distillation"
    }
    done: set[str] = set()
    for name, *said in rows:
        experiment, counts = EXPERIMENTS[name], []
        for suite, extra in (("icons-11", {}), ("coop-11", {"clip.source": "openai/clip-vit-base-patch16"})):
            sources = experiment.sets(suite, SUITES[suite])
            planned = plan_runs(experiment, sources, settings=extra)
            slugs = {one.recipe.slug for one in planned}
            counts += [len(slugs), len(slugs - done)] if suite == "icons-11" else [len(slugs)]
            done |= slugs
        assert list(map(int, said)) == counts, name


@pytest.mark.parametrize("command", [one for one in THERE if "--data" not in one], ids=lambda command: command[1])
def test_the_papers_data_sets_can_be_planned(command: list[str], maotune: Maotune, tmp_path: Path) -> None:
    given = [str(tmp_path) if word == "DIR" else word for word in command]
    answer = maotune(*given, "--dry-run", "--folder", tmp_path / "sweep", "--json")
    assert answer.code == 0, answer.err
    assert not (tmp_path / "sweep").exists()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few images of six classes of weather."""
    weather, root = load("icons-weather"), tmp_path_factory.mktemp("few") / "weather"
    counts = {"train": 3, "val": 1, "test": 2}

    def first(samples: tuple[Sample, ...], label: int, count: int) -> list[Sample]:
        return [sample for sample in samples if sample.label == label][:count]

    for label, name in enumerate(weather.classes[:6]):
        for split, count in counts.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, sample in enumerate(first(tuple(getattr(weather, split)), label, count)):
                sample.image.read().save(folder / f"{number}.png")
    return root


@pytest.mark.slow
def test_every_command_runs(maotune: Maotune, few: Path, tmp_path: Path) -> None:
    """In one folder, so that what two tables share is tuned once, as the page says."""
    sweep = tmp_path / "sweep"
    for given in {shlex.join(command): command for command in HERE}.values():
        command = [str(sweep) if word == "runs/paper" else word for word in given]
        if command[0] == "run":
            command += [*LIGHT, "--data", str(few), "--clip", "iconclip", "--folder", str(sweep)]
        command += FEWER.get(command[1], [])
        answer = maotune(*command)
        assert answer.code == 0, f"{shlex.join(command)}\n{answer.err}"
    trials = Sweep.read(sweep).trials
    assert {trial.experiment for trial in trials} == {
        name for name, one in EXPERIMENTS.items() if not one.make_figure and name != "distillation"
    }
    results = [trial.result() for trial in trials]
    assert all(result is not None and 0 <= min(result.scores.values()) <= 100 for result in results)
    assert {path.suffix for path in sweep.glob("*-weather-seed1.*")} == {".json"}, "which the report draws"
    assert (sweep / "report" / "index.html").exists()
