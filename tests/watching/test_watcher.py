"""What a viewer sees of a run at each moment of its life."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.watching.command import as_json
from g2sd_deploy.watching.news_clock import NewsClock
from g2sd_deploy.watching.view import RunView, StageView
from g2sd_deploy.watching.watcher import Watcher


@pytest.fixture
def watcher(run_folder: Any, clock: Any) -> Watcher:
    return Watcher(run_folder.folder, NewsClock(clock.now, clock.tick))


def seen(watcher: Watcher) -> RunView:
    view = watcher.look()
    assert view is not None, watcher.problem
    return view


def stage(watcher: Watcher, name: str) -> StageView:
    return next(one for one in seen(watcher).stages if one.name == name)


def states(watcher: Watcher) -> dict[str, str]:
    return {one.name: one.state for one in seen(watcher).stages}


def test_a_run_that_does_not_exist_yet_is_waited_for(watcher: Watcher, run_folder: Any) -> None:
    assert watcher.look() is None and watcher.problem == "no run there yet: it has no run.json"
    run_folder.begin()
    assert states(watcher) == dict.fromkeys(("data", "teacher", "generic", "specific", "export", "report"), "waiting")
    assert watcher.problem == ""


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": "a"}', '{"recipe": "a", "command": "b", "resolved": 3, "stages": {}}'])
def test_a_damaged_run_file_is_told(content: str, watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin()
    (run_folder.folder / "run.json").write_text(content)
    assert watcher.look() is None and watcher.problem.startswith("run.json is damaged, or of another version")


def test_only_the_stages_that_were_asked_for_are_shown(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin({"data": [], "teacher": ["data"]}).finish("data").finish("teacher")
    assert states(watcher) == {"data": "done", "teacher": "done"} and seen(watcher).ended


def test_a_stage_goes_from_waiting_over_running_to_done(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().finish("data", seconds=4.0).work_on("teacher").hold("node7")
    assert states(watcher)["teacher"] == "running" and stage(watcher, "data").seconds == 4.0
    run_folder.finish("teacher").work_on("generic")
    assert (states(watcher)["teacher"], states(watcher)["generic"], states(watcher)["specific"]) == ("done", "running", "waiting")
    assert not seen(watcher).ended


def test_a_training_tells_where_it_is_how_fast_and_how_long(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    run_folder.begin().finish("data").finish("teacher").work_on("generic").hold("node7").train("generic", range(0, 51, 10), loss=0.25)
    clock.wait(5.0)  # the last row was written just now
    training = stage(watcher, "generic").training
    assert training is not None
    assert (training.done_steps, training.num_steps, training.num_epochs, training.share) == (51, 100, 4.0, 0.51)
    assert (training.loss, training.smoothed_loss, training.lr) == (0.25, 0.25, 1e-3)
    assert training.images_per_s == pytest.approx(640), "64 images in 0.1 s, whatever the mean over the whole training is"
    assert training.seconds_left == pytest.approx(4.9)
    assert training.row_age_s == pytest.approx(0) and not training.is_late
    clock.wait(2.0)
    later = stage(watcher, "generic").training
    assert later is not None and later.seconds_left == pytest.approx(2.9) and stage(watcher, "generic").seconds == pytest.approx(7.0)


def test_a_half_written_row_changes_nothing(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7").train("generic", [0, 10])
    with (run_folder.folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "generic", "step": 20, "lo')
    training = stage(watcher, "generic").training
    assert training is not None and training.done_steps == 11


def test_a_resumed_training_shows_the_history_that_its_checkpoint_knew(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7").train("generic", range(0, 60, 10))
    assert len(stage(watcher, "generic").training.losses) == 6  # type: ignore[union-attr]
    kept = [run_folder.row("generic", step, time_s=None) for step in (0, 10, 20)]
    (run_folder.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    training = stage(watcher, "generic").training
    assert training is not None and (training.done_steps, len(training.losses)) == (21, 3)
    assert training.row_age_s is None and training.seconds_left is None, "no step of this attempt yet"
    clock.wait(60)
    run_folder.train("generic", [30, 40], first_s=60.0)
    training = stage(watcher, "generic").training
    assert training is not None and training.done_steps == 41 and training.row_age_s == pytest.approx(0)
    assert training.seconds_left == pytest.approx(5.9), "the speed is that of this attempt"


def test_rows_of_an_earlier_run_are_not_taken_for_those_of_a_training_that_begins(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().train("generic", [0, 10], first_s=-500).work_on("generic").hold("node7", since_s=-10)
    assert (stage(watcher, "generic").state, stage(watcher, "generic").training) == ("running", None)


def test_a_training_without_news_is_told_and_not_declared_dead(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7").train("generic", [0, 10])
    clock.wait(720)
    found = stage(watcher, "generic")
    assert found.state == "running" and found.training is not None and found.training.is_late
    assert found.training.seconds_left is None and found.training.row_age_s == pytest.approx(719)


def test_slow_steps_are_given_the_time_they_take(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7")
    run_folder.add(run_folder.row("generic", 0, time_s=0), run_folder.row("generic", 10, time_s=600))
    clock.wait(1500)
    training = stage(watcher, "generic").training
    assert training is not None and training.row_age_s == pytest.approx(900) and not training.is_late


def test_a_killed_run_of_this_machine_is_stopped_where_it_was(watcher: Watcher, run_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "here")
    run_folder.begin().finish("data").finish("teacher").work_on("generic").hold("here", pid=2**22 + 1).train("generic", [0, 10])
    assert states(watcher)["generic"] == "stopped" and states(watcher)["specific"] == "waiting"
    assert seen(watcher).holder.state == "gone" and not seen(watcher).ended


def test_the_newest_checkpoint_is_shown_with_its_age(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7").train("generic", [0, 10])
    folder: Path = run_folder.folder / ".generic.checkpoints"
    folder.mkdir()
    for steps in (200, 1000):
        (folder / f"step-{steps:09d}.json").write_text("{}")
    (folder / "step-x.json").write_text("{}")
    (folder / "step-000002000.safetensors").write_text("without a description it is none")
    found = stage(watcher, "generic").checkpoint
    assert found is not None and found.num_steps == 1000 and found.age_s >= 0


def test_what_comes_after_a_failure_is_not_waited_for(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin()
    for name in ("data", "teacher", "generic"):
        run_folder.finish(name)
    run_folder.finish("specific", failure="the accuracy is under its floor").finish("report")
    assert states(watcher) == {
        "data": "done",
        "teacher": "done",
        "generic": "done",
        "specific": "failed",
        "export": "blocked",
        "report": "done",
    }
    assert stage(watcher, "specific").note == "the accuracy is under its floor" and seen(watcher).ended


def test_what_an_earlier_run_left_is_not_taken_for_finished(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin()
    for name in ("data", "teacher", "generic", "specific"):
        run_folder.finish(name)
    run_folder.work_on("generic").hold("node7")
    assert [states(watcher)[name] for name in ("teacher", "generic", "specific", "export")] == ["done", "running", "earlier", "waiting"]
    run_folder.finish("generic", digest="another")
    assert states(watcher)["specific"] == "earlier", "its parent is another one now"
    run_folder.finish("specific", parents={name: f"digest of {name}" for name in ("data", "teacher")} | {"generic": "another"})
    assert states(watcher)["specific"] == "done"
    run_folder.resolved["specific"] = {"epochs": 9}
    assert states(watcher)["specific"] == "done"
    run_folder.begin()
    assert states(watcher)["specific"] == "earlier", "the settings of the run changed"


def test_warnings_are_shown_while_a_stage_runs_and_when_it_is_done(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7")
    run_folder.add({"stage": "generic", "warning": "cat.jpg: cut off"}, {"stage": "specific", "warning": "other"}, file="warnings.jsonl")
    assert stage(watcher, "generic").warnings == ("cat.jpg: cut off",)
    run_folder.finish("data", metrics={"warnings": ["dog.jpg: left out"]})
    assert stage(watcher, "data").warnings == ("dog.jpg: left out",)


@pytest.mark.parametrize(
    ("steps", "loss", "told"),
    [
        ([0], 0.05, "the first loss is 0.050, outside"),
        ([0, 10], 0.3, "under 0.2 after 50% of the steps, not yet asked"),
        ([0, 40, 50], 0.3, "after 50% of the steps the loss is 0.300, not under"),
        ([0, 40, 50, 60], 0.15, "under 0.2 after 50% of the steps, held"),
    ],
)
def test_the_loss_band_is_judged_as_the_run_judges_it(steps: list[int], loss: float, told: str, watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7").train("generic", steps, loss=loss)
    assert told in stage(watcher, "generic").note


def test_a_run_ends_when_its_last_stage_is_done_and_not_while_its_process_may_begin_another(
    watcher: Watcher, run_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder.begin()
    for name in ("data", "teacher", "generic", "specific", "export", "report"):
        run_folder.finish(name)
    assert seen(watcher).ended
    from g2sd_deploy.run_folder import locked

    if Path("/proc/locks").is_file():
        with locked(run_folder.folder):
            assert not seen(watcher).ended, "the same command with --force has just begun"


def test_a_loss_that_is_no_number_breaks_neither_the_view_nor_its_json(watcher: Watcher, run_folder: Any) -> None:
    run_folder.begin().work_on("generic").hold("node7").train("generic", [0, 10])
    run_folder.train("generic", [20], loss=float("nan"))
    training = stage(watcher, "generic").training
    assert training is not None and len(training.losses) == 2
    found = json.dumps(as_json(seen(watcher)), allow_nan=False)
    assert json.loads(found)["stages"][2]["training"]["loss"] is None


def test_looking_writes_nothing(watcher: Watcher, run_folder: Any, at: Callable[[float], str]) -> None:
    run_folder.begin().finish("data").work_on("generic").hold("node7").train("generic", [0, 10])
    before = {path: path.stat().st_mtime_ns for path in run_folder.folder.rglob("*")}
    seen(watcher)
    assert {path: path.stat().st_mtime_ns for path in run_folder.folder.rglob("*")} == before
