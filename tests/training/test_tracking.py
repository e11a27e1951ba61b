"""metrics.jsonl through kills and stages, and TensorBoard's files read by TensorBoard."""

import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from g2sd_deploy.training.record import Row
from g2sd_deploy.training.tracking import MetricsFile, Trackers


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def row(step: int, loss: float = 1.0) -> Row:
    return {"step": step, "epoch": step / 10, "loss": loss, "lr": 1e-3}


def test_rows_of_all_stages_stand_in_one_file_with_speed_and_time(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for stage in ("generic", "specific"):
        file = MetricsFile(path, stage, 20)
        file.begin([])
        file.add(row(0, 0.5), 123.456)
        file.add(row(10, 0.25), 130.0)
    found = rows_of(path)
    assert [(one["stage"], one["step"], one["loss"]) for one in found] == [
        ("generic", 0, 0.5),
        ("generic", 10, 0.25),
        ("specific", 0, 0.5),
        ("specific", 10, 0.25),
    ]
    assert found[0]["images_per_s"] == 123.5 and found[0]["time"].endswith("Z")


def test_a_stage_that_goes_on_keeps_what_its_checkpoint_knew_and_drops_what_came_after(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for stage in ("generic", "specific"):
        file = MetricsFile(path, stage, 21)
        file.begin([])
        for step in (0, 10, 20):
            file.add(row(step), 1.0)
    with path.open("a") as file_:
        file_.write('{"stage": "specific", "step": 3')  # killed while it wrote
    again = MetricsFile(path, "specific", 21)
    again.begin([row(0), row(10)])
    again.add(row(20), 2.0)
    assert [(one["stage"], one["step"]) for one in rows_of(path)] == [
        *(("generic", step) for step in (0, 10, 20)),
        *(("specific", step) for step in (0, 10, 20)),
    ]
    assert {one["num_steps"] for one in rows_of(path)} == {21}, "also in the rows that a checkpoint knew"


def trackers(folder: Path) -> Trackers:
    config = {"generic": {"epochs": 2, "betas": [0.9, 0.95]}, "name": "tiny"}
    return Trackers(("tensorboard",), folder, project="tiny", stage="generic", identity="0123", config=config)


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard itself shows."""
    found = EventAccumulator(str(folder / "tracking" / "generic"), size_guidance={"scalars": 0})
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_shows_the_rows(tmp_path: Path) -> None:
    sent = trackers(tmp_path)
    sent.begin(0)
    for step, loss in ((0, 0.5), (10, 0.25)):
        sent.add(row(step, loss), 100.0)
    sent.finish()
    assert scalars(tmp_path, "loss") == [(0, 0.5), (10, 0.25)]
    assert scalars(tmp_path, "images_per_s") == [(0, 100.0), (10, 100.0)]


def test_tensorboard_forgets_what_a_killed_attempt_had_sent_after_its_checkpoint(tmp_path: Path) -> None:
    first = trackers(tmp_path)
    first.begin(0)
    for step in (0, 10, 20):
        first.add(row(step, 1.0), 1.0)
    first.finish()
    second = trackers(tmp_path)
    second.begin(11)
    for step in (20, 30):
        second.add(row(step, 2.0), 1.0)
    second.finish()
    assert scalars(tmp_path, "loss") == [(0, 1.0), (10, 1.0), (20, 2.0), (30, 2.0)]
