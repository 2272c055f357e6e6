"""What is done about trials that end in every possible way; how real engines end them is in the tests of these."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from maotune.files import lock
from maotune.runs.folder import LOCK
from maotune.sweep.engine import ATTEMPTS, Engine, SweepError, SweepProgress, TrialExit, run_trials
from maotune.sweep.trial import ERROR, ExitStatus

Life = Iterator[ExitStatus | None]


class Theatre(Engine):
    """Plays trials: each start takes the next scene of the trial, which leaves the files that a process would leave."""

    def __init__(self, jobs: int | None, scenes: dict[Path, Callable[[Path], Life]]) -> None:
        self.jobs = jobs
        self.lives = {folder: scene(folder) for folder, scene in scenes.items()}
        self.started: list[Path] = []
        self.most = 0
        self._running: list[Path] = []

    def start(self, folders: Sequence[Path]) -> None:
        self.started += folders
        self._running += folders
        self.most = max(self.most, len(self._running))

    def wait(self, seconds: float) -> list[TrialExit]:
        if not self._running:
            time.sleep(0.01)
            return []
        folder = self._running.pop(0)
        status = next(self.lives[folder])
        return [TrialExit(folder, status, "killed" if status is None else "")]

    def stop(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._running.clear()


def finish(folder: Path) -> None:
    (folder / "result.json").write_text("{}", encoding="utf-8")


def succeeds(folder: Path) -> Life:
    finish(folder)
    yield ExitStatus.FINISHED


def fails(folder: Path) -> Life:
    (folder / ERROR).write_text("Traceback\nValueError: no such image\n", encoding="utf-8")
    yield ExitStatus.FAILED


def killed_for_ever(folder: Path) -> Life:
    while True:
        yield None


def killed_but_gets_on(folder: Path) -> Life:
    for step in range(3 * ATTEMPTS):
        if step % (ATTEMPTS - 1) == 0:
            path = folder / "checkpoint.safetensors"
            path.unlink(missing_ok=True)
            path.write_text(str(step), encoding="utf-8")
        yield None
    finish(folder)
    yield ExitStatus.FINISHED


def stopped_once(folder: Path) -> Life:
    yield ExitStatus.STOPPED
    finish(folder)
    yield ExitStatus.FINISHED


def play(root: Path, jobs: int | None, *scenes: Callable[[Path], Life]) -> tuple[Theatre, SweepProgress]:
    by_folder = {}
    for number, scene in enumerate(scenes):
        folder = root / f"{number}-{scene.__name__}"
        folder.mkdir()
        by_folder[folder] = scene
    theatre = Theatre(jobs, by_folder)
    return theatre, run_trials(theatre, list(by_folder))


def test_all_are_run_so_many_at_a_time(tmp_path: Path) -> None:
    theatre, progress = play(tmp_path, 2, *[succeeds] * 5)
    assert sorted(progress.finished) == sorted(theatre.started)
    assert len(theatre.started) == 5
    assert theatre.most == 2
    assert progress.remaining == 0
    theatre, _ = play(tmp_path / theatre.started[0], None, *[succeeds] * 5)
    assert theatre.most == 5


def test_a_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    theatre, progress = play(tmp_path, 1, fails, succeeds)
    assert {folder.name: reason for folder, reason in progress.failed.items()} == {
        "0-fails": "ValueError: no such image"
    }
    assert [folder.name for folder in progress.finished] == ["1-succeeds"]
    assert len(theatre.started) == 2, "a failure is not tried again"


def test_a_killed_trial_goes_on_while_it_gets_further(tmp_path: Path) -> None:
    theatre, progress = play(tmp_path, 1, killed_but_gets_on)
    assert len(progress.finished) == 1
    assert len(theatre.started) == 3 * ATTEMPTS + 1


def test_a_trial_that_never_gets_further_is_given_up(tmp_path: Path) -> None:
    theatre, progress = play(tmp_path, 2, killed_for_ever, succeeds, stopped_once)
    (folder,) = progress.failed
    assert progress.failed[folder] == f"killed, {ATTEMPTS} times without getting any further"
    assert (folder / ERROR).read_text(encoding="utf-8").strip() == progress.failed[folder]
    assert theatre.started.count(folder) == ATTEMPTS
    assert len(progress.finished) == 2


def test_what_another_process_runs_is_waited_for(tmp_path: Path) -> None:
    with ExitStack() as other:

        def is_busy_and_then_finished(folder: Path) -> Life:
            other.enter_context(lock(folder / LOCK, 0))
            yield ExitStatus.BUSY
            pytest.fail("it was begun beside the other one")

        def ends(progress: SweepProgress) -> None:
            if progress.foreign:
                (folder,) = progress.foreign
                finish(folder)
                other.close()

        folder = tmp_path / "trial"
        folder.mkdir()
        progress = run_trials(Theatre(1, {folder: is_busy_and_then_finished}), [folder], ends)
    assert progress.finished == [folder]


def test_what_another_process_leaves_unfinished_is_taken_over(tmp_path: Path) -> None:
    def is_busy_and_then_free(folder: Path) -> Life:
        yield ExitStatus.BUSY
        yield from succeeds(folder)

    theatre, progress = play(tmp_path, 1, is_busy_and_then_free)
    assert len(theatre.started) == 2
    assert len(progress.finished) == 1


def test_what_failed_elsewhere_counts_as_failed(tmp_path: Path) -> None:
    def fails_elsewhere(folder: Path) -> Life:
        (folder / ERROR).write_text("ValueError: there\n", encoding="utf-8")
        yield ExitStatus.BUSY

    _, progress = play(tmp_path, 1, fails_elsewhere)
    assert list(progress.failed.values()) == ["ValueError: there"]


def test_what_was_finished_meanwhile_is_not_begun(tmp_path: Path) -> None:
    def finishes_the_other(folder: Path) -> Life:
        finish(folder)
        finish(tmp_path / "1-succeeds")
        yield ExitStatus.FINISHED

    theatre, progress = play(tmp_path, 1, finishes_the_other, succeeds)
    assert [folder.name for folder in theatre.started] == ["0-finishes_the_other"]
    assert len(progress.finished) == 2


def test_a_folder_that_workers_cannot_see_stops_the_sweep(tmp_path: Path) -> None:
    def unseen(folder: Path) -> Life:
        yield ExitStatus.FOLDER_MISSING

    with pytest.raises(SweepError, match="must lie on a file system that all machines share"):
        play(tmp_path, 1, unseen, succeeds)
