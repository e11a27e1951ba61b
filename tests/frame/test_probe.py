"""`g2sd plan --probe`: what it says of a run against arithmetic by hand and against the run itself, and what it leaves behind."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.probe import estimates, sizing
from g2sd_deploy.probe.estimates import Estimate
from g2sd_deploy.probe.watching import Series, Watch
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.recipe import bundled_recipes, load_recipe
from g2sd_deploy.settings import Recipe

RECIPE = """
name: tiny
data: {source: idx, root: "bundled:fashion-mnist", image_px: 28, num_channels: 1, mean: [0.286], std: [0.353],
  max_train_images: 2100, max_test_images: 2500}
student: {patch_px: 7, width: 8, depth: 2, heads: 1}
generic: {method: mae, decoder: {width: 8, depth: 1, heads: 1}, epochs: 2, warmup_epochs: 0.5, batch_size: 64, base_lr: 1.0e-3}
specific: {method: finetune, epochs: 0.4, batch_size: 32, base_lr: 1.0e-3, ema_decay: 0.9}
evaluate: {corruptions: {names: [contrast, fog], severities: [1, 5], max_images: 300}}
export: {}
profile: {batches: [1], threads: 1, seconds: 2}
"""
STAGES = ["data", "generic", "specific", "evaluate", "export", "profile", "report"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def probe(g2sd: Callable[..., Any], recipe: Path, out: Path, *more: str) -> dict[str, Any]:
    answer = g2sd("plan", recipe, "--out", out, "--probe", "--device", "cpu", "--workers", "0", "--json", *more)
    assert answer.code == 0, answer.err
    return dict(json.loads(answer.out))


def by_stage(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in found["stages"]}


@pytest.fixture(scope="module")
def probed(g2sd: Callable[..., Any], recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A probe, and the folder in which the run would lie."""
    folder = tmp_path_factory.mktemp("probed")
    return folder, probe(g2sd, recipe_file, folder / "out")


@pytest.fixture(scope="module")
def done(g2sd: Callable[..., Any], recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run itself, as far as the evaluation."""
    folder = tmp_path_factory.mktemp("done") / "out"
    answer = g2sd("run", recipe_file, "--out", folder, "--device", "cpu", "--workers", "0", "--until", "evaluate")
    assert answer.code == 0, answer.err
    return folder


def test_a_probe_tells_of_every_stage_and_leaves_nothing(probed: tuple[Path, dict[str, Any]]) -> None:
    folder, found = probed
    assert list(folder.iterdir()) == []
    assert [row["stage"] for row in found["stages"]] == STAGES
    assert all(row["runs"] and row["seconds"] > 0 and row["peak_mib"] > 50 for row in found["stages"])
    assert [row["stage"] for row in found["stages"] if not row["disk_bytes"]] == ["profile"]  # its figures are in its description
    assert (found["device"], found["processes"]) == ("cpu", 1)


def test_trainings_are_extended_from_twenty_steps_to_all_of_them(probed: tuple[Path, dict[str, Any]]) -> None:
    rows = by_stage(probed[1])
    # 2100 // 64 = 32 steps an epoch, 2 epochs; 2100 // 32 = 65 steps an epoch, 0.4 epochs
    assert {name: (row["steps"], row["steps_tried"]) for name, row in rows.items() if row["steps"]} == {
        "generic": (64, 20),
        "specific": (26, 20),
    }
    for name, batch in (("generic", 64), ("specific", 32)):
        row = rows[name]
        assert row["images_per_s"] == pytest.approx(1000 * batch / row["step_ms"])
        assert row["seconds"] >= row["steps"] * row["step_ms"] / 1000
        assert row["hours"] == pytest.approx(row["seconds"] / 3600, abs=1e-6)
    assert {name for name, row in rows.items() if row["checkpoint_bytes"]} == {"generic", "specific"}


def test_totals_are_sums_and_the_largest(probed: tuple[Path, dict[str, Any]]) -> None:
    rows, totals = probed[1]["stages"], probed[1]["totals"]
    assert totals["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert totals["disk_bytes"] == sum(row["disk_bytes"] for row in rows)
    assert totals["peak_mib"] == max(row["peak_mib"] for row in rows)
    assert totals["checkpoint_bytes"] == max(row["checkpoint_bytes"] for row in rows)


@pytest.mark.parametrize(
    ("stage", "within"), [("data", 0.002), ("generic", 0.02), ("specific", 0.02), ("evaluate", 0.3)]
)  # the predictions are compressed, and those of a trial's student are dull
def test_the_disk_that_is_told_is_the_disk_that_a_run_takes(
    probed: tuple[Path, dict[str, Any]], done: Path, stage: str, within: float
) -> None:
    artifact = read_artifact(done / stage)
    assert artifact is not None
    taken = sum(file["bytes"] for file in artifact.files.values())
    assert by_stage(probed[1])[stage]["disk_bytes"] == pytest.approx(taken, rel=within)


def test_steps_and_checkpoints_are_those_of_the_run(g2sd: Callable[..., Any], recipe_file: Path, probed: Any, tmp_path: Path) -> None:
    """The largest checkpoint of a real training, without the description before its tensors."""
    sizes: list[int] = []
    from g2sd_deploy.training import checkpoints

    original = checkpoints._save_file

    def counted(tensors: Any, path: Path) -> None:
        sizes.append(sum(value.numel() * value.element_size() for value in tensors.values()))
        original(tensors, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_save_file", counted)
        more = ("--until", "specific", "--checkpoint-every", "20", "--device", "cpu", "--workers", "0")
        assert g2sd("run", recipe_file, "--out", tmp_path / "out", *more).code == 0
    rows = by_stage(probed[1])
    assert sizes == [rows["generic"]["checkpoint_bytes"] // 2] * 3 + [rows["specific"]["checkpoint_bytes"] // 2]
    found = read_artifact(tmp_path / "out" / "generic")
    assert found is not None and found.metrics["num_steps"] == rows["generic"]["steps"]


def test_stages_that_are_up_to_date_are_skipped_and_the_run_is_left_alone(
    g2sd: Callable[..., Any], recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert g2sd("run", recipe_file, "--out", out, "--until", "generic", "--device", "cpu").code == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    rows = by_stage(probe(g2sd, recipe_file, out, "--until", "specific"))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")} == before
    assert [(name, row["runs"], row["reason"]) for name, row in rows.items()] == [
        ("data", False, "up to date"),
        ("generic", False, "up to date"),
        ("specific", True, "has not run"),
    ]
    assert all(rows[name]["seconds"] == rows[name]["disk_bytes"] == rows[name]["hours"] == 0 for name in ("data", "generic"))
    assert rows["specific"]["steps_tried"] == 20


def test_a_run_that_is_done_takes_nothing(g2sd: Callable[..., Any], recipe_file: Path, done: Path) -> None:
    found = probe(g2sd, recipe_file, done, "--until", "evaluate")
    assert [row["runs"] for row in found["stages"]] == [False] * 4
    assert found["totals"]["seconds"] == 0


def test_fewer_steps_are_done_where_time_is_short(g2sd: Callable[..., Any], recipe_file: Path, tmp_path: Path) -> None:
    answer = g2sd(
        "plan", recipe_file, "--out", tmp_path / "out", "--probe", "--probe-minutes", "0", "--until", "generic", "--device", "cpu"
    )
    assert answer.code == 0, answer.err
    assert "from 3 steps" in answer.out and "generic: time was up before 20 steps; --probe-minutes gives them more" in answer.out
    assert "CPU hours" in answer.out


@pytest.mark.parametrize(
    "changed",
    [("data.root=/nowhere/at/all",), ("generic.batch_size=4096",)],
)
def test_what_a_run_refuses_is_refused_in_the_same_words(
    g2sd: Callable[..., Any], recipe_file: Path, tmp_path: Path, changed: tuple[str, ...]
) -> None:
    sets = [word for setting in changed for word in ("--set", setting)]
    words = [
        g2sd(*command, recipe_file, "--out", tmp_path / "out", "--device", "cpu", *sets) for command in (("plan", "--probe"), ("run",))
    ]
    assert [answer.code for answer in words] == [2, 2]
    assert words[0].err.splitlines()[-1] == words[1].err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "option", [("--workers", "2"), ("--micro-batch", "4"), ("--compile",), ("--probe-minutes", "1"), ("--device", "cpu")]
)
def test_a_plan_alone_refuses_what_only_a_probe_heeds(g2sd: Callable[..., Any], recipe_file: Path, option: tuple[str, ...]) -> None:
    answer = g2sd("plan", recipe_file, *option)
    assert (answer.code, answer.err) == (2, f"error: {option[0]}: a plan computes nothing; add --probe, or leave it out\n")


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM that a process could heed")
def test_a_probe_that_is_stopped_cleans_up(recipe_file: Path, tmp_path: Path, python: str, process_environment: dict[str, str]) -> None:
    command = [python, "-m", "g2sd_deploy", "plan", str(recipe_file), "--out", str(tmp_path / "out"), "--probe", "--device", "cpu"]
    process = subprocess.Popen(command, env=process_environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("generic: starts"):
            break
    assert [path.name.startswith(".g2sd-probe-") for path in tmp_path.iterdir()] == [True]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.splitlines()[-1] == "error: the probe was stopped; nothing is kept"
    assert list(tmp_path.iterdir()) == []


def test_two_processes_try_it_together(recipe_file: Path, tmp_path: Path, python: str, process_environment: dict[str, str]) -> None:
    launch = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "g2sd_deploy"]
    more = ["--probe", "--device", "cpu", "--until", "generic", "--json", "--workers", "0"]
    done = subprocess.run(
        [*launch, "plan", str(recipe_file), "--out", str(tmp_path / "out"), *more],
        env=process_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # one object: only the first process speaks
    assert found["processes"] == 2
    rows = by_stage(found)
    assert (rows["generic"]["steps"], rows["generic"]["steps_tried"]) == (64, 20)
    assert rows["generic"]["hours"] == pytest.approx(2 * rows["generic"]["seconds"] / 3600, abs=1e-6)
    assert list(tmp_path.iterdir()) == []


# Arithmetic


def test_a_trainings_time_is_what_comes_once_and_its_steps() -> None:
    # 20 steps of 100 ms in 5 s: 3 s come once; 1000 steps take 100 s
    assert estimates.training_seconds(5.0, 20, 1000, 100.0) == pytest.approx(103.0)
    # batches that were loaded ahead of time made the trial faster than its steps will be
    assert estimates.training_seconds(1.0, 20, 1000, 100.0) == pytest.approx(100.0)


def test_only_the_parts_that_grow_are_stretched() -> None:
    # 1 s that stays, 2 s that become 20, 3 s that become 6
    assert estimates.stretched_seconds(6.0, [(2.0, 10.0), (3.0, 2.0)]) == pytest.approx(1 + 20 + 6)


def test_the_time_that_the_trial_cut_its_series_short_by_is_added() -> None:
    # 6 series of at most 4 s instead of 0.1 s
    assert estimates.profile_seconds(3.0, 6, 0.1, 4.0) == pytest.approx(3 + 6 * 3.9)
    assert estimates.profile_seconds(3.0, 6, 0.1, 0.05) == 3.0


@pytest.mark.parametrize(
    ("compute", "loader", "step", "waits"), [(100.0, 40.0, 100.0, 0.0), (100.0, 400.0, 400.0, 0.75), (100.0, 0.0, 100.0, 0.0)]
)
def test_the_slower_of_computing_and_loading_decides(compute: float, loader: float, step: float, waits: float) -> None:
    figures = {"compute_ms": compute, "loader_ms": loader}
    assert estimates.step_ms_of(figures) == step
    assert estimates.waits_of(figures) == pytest.approx(waits)


def test_files_grow_by_their_names() -> None:
    files = {"train_images.npy": 1000, "test_images.npy": 100, "dataset.json": 7}
    assert estimates.full_bytes(files, {"train_": 12.5, "test_": 3.0}) == 12500 + 300 + 7


def test_hours_are_those_of_all_processes() -> None:
    one = Estimate("generic", runs=True, reason="", seconds=7200.0, processes=8, peak_mib=3.0, disk_bytes=5, checkpoint_bytes=20)
    other = Estimate("report", runs=True, reason="", seconds=3600.0, processes=8, peak_mib=9.0, disk_bytes=7)
    assert estimates.totals_of([one, other]) == estimates.Totals(10800.0, 24.0, 9.0, 12, 20)


def series_of(total: int, *points: tuple[float, int]) -> Series:
    series = Series(total)
    for seconds, done in points:
        series.add(seconds, done)
    return series


def test_a_series_takes_as_long_as_its_units_without_the_first_that_sets_things_up() -> None:
    calls = series_of(160, (10.0, 0), (15.0, 40), (16.0, 80), (17.0, 120), (18.0, 160))  # the first call takes 5 s, the others 1 s
    assert calls.seconds == pytest.approx(8.0)
    assert calls.settled_seconds == pytest.approx(4.0)
    assert series_of(80, (10.0, 0), (15.0, 40), (16.0, 80)).settled_seconds == pytest.approx(6.0)  # one call is too few to go by
    assert series_of(10, (10.0, 0), (12.0, 10)).settled_seconds == pytest.approx(2.0)


def test_a_watch_tells_series_apart_and_times_stages() -> None:
    now = [0.0]
    watch = Watch(SilentProgress(), torch.device("cpu"), clock=lambda: now[0])
    watch.begin("export")
    for seconds, done in ((1.0, 0), (2.0, 1), (3.0, 2), (3.0, 0), (5.0, 1), (7.0, 2)):
        now[0] = seconds
        watch.update(done, 2, "proving" if seconds < 3 or done == 2 else "timing")
    now[0] = 9.0
    watch.end()
    found = watch.stages["export"]
    assert found.seconds == 9.0
    assert [(one.note, one.seconds) for one in found.series] == [("proving", 2.0), ("timing", 4.0)]
    assert found.peak_mib > 0


def full_recipe(name: str, *changed: str) -> Recipe:
    return load_recipe(next(path for path in bundled_recipes() if path.stem == name), list(changed))


def test_encoded_images_are_read_once_and_stored_ones_decoded_sparingly() -> None:
    recipe = full_recipe("g2sd_vit_small")  # encoded; batches of 4096 and 1024
    extent = sizing.extent_of(recipe, 1_281_167, 50_000)
    assert (extent.trial_train, extent.trial_test, extent.trial_corrupted, extent.corrupted) == (20 * 4096, 160, 16, 2000)
    stored = full_recipe("g2sd_vit_small", "data.store=arrays")
    assert sizing.extent_of(stored, 1_281_167, 50_000, 16).trial_train == 4096
    assert sizing.extent_of(stored, 300, 50_000).trial_train == 300
    small = full_recipe("quickstart")  # 28 px; batches of 64 and 32
    assert sizing.extent_of(small, 20_000, 5000, 2).trial_test == 2000
    assert sizing.extent_of(small, 20_000, 5000, 2).trial_train == 2000


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda path: path.stem)
def test_a_trial_changes_how_long_and_not_what(path: Path) -> None:
    recipe = load_recipe(path)
    extent = sizing.extent_of(recipe, 60_000, 10_000, 2)
    running = sizing.training_of(recipe).keys() - {"specific"}
    trial = sizing.trial_recipe(recipe, extent, set(running))
    assert (trial.student, trial.teacher, trial.seed, trial.data.image_px) == (
        recipe.student,
        recipe.teacher,
        recipe.seed,
        recipe.data.image_px,
    )
    for name, settings in sizing.training_of(recipe).items():
        short = getattr(trial, name)
        steps = round(short.epochs * (settings.num_trained(extent.trial_train) // short.batch_size))
        assert steps == (20 if name in running else 1)
        changed = {key for key, value in short.model_dump().items() if value != settings.model_dump()[key]}
        assert changed <= {"epochs", "warmup_epochs", "base_lr", "min_lr", "loss_band"}


@pytest.mark.parametrize(
    ("note", "factor"),
    [
        ("proving fp32-openvino", 5000 / 2000),
        ("test images, corrupted", 500 / 8),
        ("quantising: nncf", 3 * 300 / 300),
        ("making int8-openvino", 1.0),
        ("timing", 1.0),
    ],
)
def test_only_what_goes_over_images_grows_in_an_export(note: str, factor: float) -> None:
    recipe = full_recipe("quickstart", "export.target=cpu-x86", "export.only=[]", "export.max_quantisers=3", "export.max_images=null")
    extent = sizing.extent_of(recipe, 20_000, 5000, 2)
    assert recipe.export is not None
    assert sizing.export_factor(note, recipe, extent) == pytest.approx(factor)


def test_a_trial_keeps_training_images_to_judge_its_int8_file_on() -> None:
    recipe = full_recipe("g2sd_vit_small", "data.store=arrays", "generic.batch_size=128", "specific.batch_size=128")
    extent = sizing.extent_of(recipe, 100_000, 5000, 1)
    trial = sizing.trial_recipe(recipe, extent, set())
    assert extent.trial_train == 160 and trial.export is not None and trial.export.calibration_images == 40
    assert recipe.export is not None
    assert sizing.export_factor("quantising: nncf", recipe, extent) == pytest.approx(300 / 40 * 5)


def test_the_arrays_of_the_data_stage_are_sized_by_arithmetic() -> None:
    stored = full_recipe("g2sd_vit_small", "data.store=arrays", "data.stored_px=256")
    assert sizing.decoded_bytes(stored, 10, 4) == (10 * 256 * 256 * 3, 4 * 224 * 224 * 3)
    assert sizing.decoded_bytes(full_recipe("g2sd_vit_small"), 10, 4) == (0, 4 * 224 * 224 * 3)
