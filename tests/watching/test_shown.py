"""The live view and the plain lines: what a person reads."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from g2sd_deploy.watching import words
from g2sd_deploy.watching.news_clock import NewsClock
from g2sd_deploy.watching.plain_lines import PlainLines
from g2sd_deploy.watching.terminal import render, sparkline
from g2sd_deploy.watching.watcher import Watcher


@pytest.fixture
def watcher(run_folder: Any, clock: Any) -> Watcher:
    return Watcher(run_folder.folder, NewsClock(clock.now, clock.tick))


def drawn(watcher: Watcher, width: int = 80, *, ascii_only: bool = False) -> str:
    view = watcher.look()
    assert view is not None
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(render(view, width=width, ascii_only=ascii_only))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def training_run(run_folder: Any) -> Any:
    run_folder.begin().finish("data").finish("teacher").work_on("generic").hold("node7")
    return run_folder.train("generic", range(0, 51, 10), loss=0.25)


def test_a_sparkline_falls_with_the_loss_and_is_as_wide_as_asked() -> None:
    line = sparkline([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], 8)
    assert line == "█▇▆▅▄▃▂▁"
    assert len(sparkline([0.5] * 1000, 60)) == 60 and set(sparkline([0.5] * 1000, 60)) == {"▁"}
    assert sparkline([], 8) == "" and sparkline([3.0], 8) == "▁"
    assert sparkline([1.0, 0.5, 0.0], 3, ascii_only=True).isascii()


def test_a_sparkline_over_decades_is_drawn_on_a_log_scale() -> None:
    losses = [100.0, 10.0, 1.0]
    assert sparkline(losses, 3) == "█▅▁"
    assert sparkline([100.0, 10.0, -1.0], 3) == "█▂▁", "not where a loss is negative"


def test_each_character_of_a_sparkline_is_a_mean() -> None:
    assert sparkline([1.0, 3.0, 0.0, 0.0], 2) == sparkline([2.0, 0.0], 2)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (719, "12 min"), (7200, "2 h 0 min"), (187_000, "2 d 3 h")]
)
def test_ages_are_told_as_a_person_would(seconds: float, told: str) -> None:
    assert words.rough(seconds) == told
    assert words.age(seconds) == (f"{told} ago" if seconds else "just now")


def test_the_view_says_all_that_is_known_of_a_training(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    training_run(run_folder)
    run_folder.add({"stage": "generic", "warning": "cat.jpg: [cut] off"}, file="warnings.jsonl")
    clock.wait(5)
    text = drawn(watcher)
    for told in (
        "step 51 of 100 (51 %), epoch 2.0 of 4",
        "loss 0.2500, smoothed 0.2500",
        "learning rate 0.001, 640 images/s, 5 s left",
        "last news just now",
        "generic: cat.jpg: [cut] off",
        "begun on node7 (process 7); whether it lives cannot be seen from here",
    ):
        assert told in text, text


def test_a_run_without_news_says_since_when(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    training_run(run_folder)
    clock.wait(725)
    text = drawn(watcher)
    assert "no news since 12 min" in text and "left" not in text.replace("left it", "") and "dead" not in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, watcher: Watcher, run_folder: Any) -> None:
    training_run(run_folder)
    assert all(len(line.rstrip()) <= width for line in drawn(watcher, width).splitlines())


def test_a_terminal_without_unicode_is_given_ascii(watcher: Watcher, run_folder: Any) -> None:
    training_run(run_folder)
    assert drawn(watcher, ascii_only=True).isascii()


def test_plain_lines_tell_each_thing_once(watcher: Watcher, run_folder: Any, clock: Any) -> None:
    said: list[str] = []
    lines = PlainLines(said.append, clock.tick)

    def look() -> list[str]:
        said.clear()
        view = watcher.look()
        lines.show(view) if view else lines.waiting("out", watcher.problem)
        return said

    assert look() == ["waiting for out: no run there yet: it has no run.json"]
    assert look() == []
    training_run(run_folder)
    clock.wait(5)
    assert look() == [
        "data: done in 3.0 s",
        "teacher: done in 3.0 s",
        "generic: trains",
        "generic: step 51 of 100 (51 %), epoch 2.0 of 4, loss 0.2500, smoothed 0.2500, learning rate 0.001, 640 images/s, 5 s left",
        "begun on node7 (process 7); whether it lives cannot be seen from here",
    ]
    run_folder.train("generic", [60], first_s=6)
    assert look() == [], "a step is told of now and then only"
    clock.wait(15)
    assert [line.partition(",")[0] for line in look()] == ["generic: step 61 of 100 (61 %)"]
    clock.wait(700)
    assert look() == ["generic: no news for a while"]
    clock.wait(700)
    assert look() == []
    run_folder.add({"stage": "generic", "warning": "cat.jpg: cut off"}, file="warnings.jsonl")
    assert look() == ["generic: warning: cat.jpg: cut off"]
    run_folder.finish("generic", metrics={"first_loss": 0.4, "final_loss": 0.05})
    assert look() == ["generic: done in 3.0 s: loss 0.4000 → 0.05000"]


def test_the_outcome_of_a_stage_is_told_in_its_own_figures(watcher: Watcher, run_folder: Any) -> None:
    models = {name: {"clean": {"top1": top1}} for name, top1 in (("student", 0.91), ("teacher", 0.95))}
    run_folder.begin().finish("data", metrics={"models": models}).finish(
        "export", metrics={"default": "int8-openvino", "model_bytes": 2**20, "verdict": "passed"}
    )
    run_folder.finish("specific", metrics={"first_loss": "broken"})
    view = watcher.look()
    assert view is not None
    notes = {stage.name: stage.note for stage in view.stages}
    assert (notes["data"], notes["export"], notes["specific"]) == ("", "int8-openvino, 1.00 MiB, parity passed", "")
