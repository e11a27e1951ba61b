"""Progress: a bar for a person, plain lines for a pipe."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from g2sd_deploy import progress
from g2sd_deploy.progress import BarProgress, LineProgress, SilentProgress, make_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_lines_tell_start_middle_and_end(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    lines = LineProgress(stream)
    lines.begin("generic")
    clock.now = 10.0
    lines.update(10, 100, "loss 0.5")  # too soon for a line
    clock.now = 20.0
    lines.update(20, 100, "loss 0.4000, 1,000 images/s")
    clock.now = 30.0
    lines.update(30, 100, "loss 0.3")  # ten seconds after the last line
    lines.end()
    assert stream.getvalue().splitlines() == [
        "generic: starts",
        "generic: 20% (20/100) loss 0.4000, 1,000 images/s, 80 s left",
        "generic: done in 30.0 s",
    ]


def test_lines_have_no_control_characters_and_work_without_a_note(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    lines = LineProgress(stream)
    lines.begin("data")
    clock.now = 100.0
    lines.update(0, 50)
    lines.abort()
    assert stream.getvalue() == "data: starts\ndata: 0% (0/50), 5000 s left\ndata: stopped\n"


def test_a_bar_shows_loss_speed_and_time_left() -> None:
    stream = io.StringIO()
    bar = BarProgress(Console(file=stream, force_terminal=True, width=100))
    bar.begin("generic")
    bar.update(50, 100, "loss 0.4000, 1,000 images/s")
    bar.end()
    text = stream.getvalue()
    assert "generic" in text and "50%" in text and "loss 0.4000, 1,000 images/s" in text and "left" in text
    assert "done" in text.splitlines()[-1]


def test_a_warning_is_told_at_once_with_its_stage(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    lines = LineProgress(stream)
    lines.begin("generic")
    lines.warn("heads differ")
    lines.end()
    assert stream.getvalue().splitlines() == ["generic: starts", "generic: WARNING heads differ", "generic: done in 0.0 s"]


def test_a_warning_stands_above_a_bar_whole_and_as_it_is_written() -> None:
    stream = io.StringIO()
    bar = BarProgress(Console(file=stream, force_terminal=True, width=40, color_system=None))
    text = "the encoder has 3 [bold] heads and " + "is " * 30 + "fine-tuned with 6"
    bar.begin("generic")
    bar.update(50, 100)
    bar.warn(text)
    bar.end()
    assert f"warning generic: {text}" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_warning_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    progress = make_progress()
    progress.begin("generic")
    progress.warn("heads differ")
    out, err = capsys.readouterr()
    assert out == "" and "generic: WARNING heads differ" in err


def test_a_bar_that_is_aborted_leaves_no_line() -> None:
    stream = io.StringIO()
    bar = BarProgress(Console(file=stream, force_terminal=True, width=100))
    bar.begin("generic")
    bar.update(50, 100)
    bar.abort()
    assert "done" not in stream.getvalue()
    bar.update(60, 100)
    bar.end()
    assert "done" not in stream.getvalue(), "nothing is under way"


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(make_progress(), BarProgress)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_progress(), LineProgress)


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    silent = SilentProgress()
    silent.begin("data")
    silent.update(1, 2)
    silent.warn("heads differ")
    silent.end()
    silent.abort()
    assert capsys.readouterr() == ("", "")
