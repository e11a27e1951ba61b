"""What goes wrong while a network is trained, for real: every fault ends in one line, and what was done is not lost."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from g2sd_deploy.artifact import read_artifact

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux")
NUM_STEPS = 160
RECIPE = """
name: faults
data: {source: idx, root: "bundled:fashion-mnist", image_px: 28, num_channels: 1, mean: [0.286], std: [0.353], max_train_images: 64,
       max_test_images: 20}
pretrain: {encoder: {patch_px: 7, width: 16, depth: 2, heads: 2}, decoder: {width: 8, depth: 1, heads: 1}, epochs: 40, batch_size: 16,
           base_lr: 1.0e-2}
finetune: {epochs: 1, batch_size: 16, base_lr: 1.0e-3}
student: {patch_px: 7, width: 8, depth: 1, heads: 1}
generic: {method: g2sd, decoder: {width: 8, depth: 1, heads: 1}, teacher_decoder_block: 1, epochs: 1, batch_size: 16, base_lr: 1.0e-3}
specific: {method: hard, epochs: 1, batch_size: 16, base_lr: 1.0e-3}
"""
ENCODED = """
name: encoded
data: {source: folder, root: images, store: encoded, image_px: 16, num_channels: 3, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
pretrain: {encoder: {patch_px: 8, width: 16, depth: 1, heads: 2}, decoder: {width: 8, depth: 1, heads: 1}, epochs: 12, batch_size: 16,
           base_lr: 1.0e-3}
finetune: {epochs: 1, batch_size: 16, base_lr: 1.0e-3}
student: {patch_px: 8, width: 8, depth: 1, heads: 1}
generic: {method: g2sd, decoder: {width: 8, depth: 1, heads: 1}, teacher_decoder_block: 1, epochs: 1, batch_size: 16, base_lr: 1.0e-3}
specific: {method: hard, epochs: 1, batch_size: 16, base_lr: 1.0e-3}
"""
RUN = ("run", "faults.yaml", "--out", "out", "--device", "cpu", "--until", "pretrain")
EVERY_STEP = ("--checkpoint-every", "1")
STOPPED = re.compile(rf"error: stopped at step (\d+) of {NUM_STEPS}; a checkpoint is kept, and the same command goes on from there")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "faults.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(server: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nothing went wrong in."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "faults.yaml").write_text(RECIPE)
    process = server.start(folder, *RUN)
    assert process.wait() == 0, process.err
    return weights(folder)


def weights(folder: Path) -> bytes:
    artifact = read_artifact(folder / "out" / "pretrain")
    assert artifact is not None
    artifact.verify()
    return artifact.file("masked.safetensors").read_bytes()


def checkpoints(folder: Path) -> list[int]:
    """Steps of the checkpoints that are there."""
    return sorted(int(path.stem.partition("-")[2]) for path in (folder / "out" / ".pretrain.checkpoints").glob("step-*.json"))


def wait_for_checkpoint(process: Any, folder: Path, step: int = 5) -> None:
    """Wait until training has come so far."""
    end = time.monotonic() + 300
    while not any(found >= step for found in checkpoints(folder)):
        assert not process.is_over(), process.err
        assert time.monotonic() < end, process.err
        time.sleep(0.002)


def went_on_from(process: Any) -> int:
    """The step after which a command that ended well went on."""
    assert process.wait() == 0, process.err
    found = re.search(r"goes on from its last checkpoint, after step (\d+) of", process.err)
    assert found, process.err
    return int(found[1])


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_a_checkpoint_and_the_same_command_ends_with_the_same_weights(
    server: Any, folder: Path, undisturbed: bytes, number: int, exit_code: int
) -> None:
    process = server.start(folder, *RUN, "--checkpoint-every", "3")
    wait_for_checkpoint(process, folder)
    process.send(number)
    assert process.wait() == exit_code, process.err
    stopped = STOPPED.fullmatch(process.error_line())
    assert stopped and max(checkpoints(folder)) == int(stopped[1])
    assert went_on_from(server.start(folder, *RUN)) == int(stopped[1])
    assert weights(folder) == undisturbed
    assert [path.name for path in (folder / "out").glob(".*")] == [".lock"]


def test_a_signal_to_the_whole_job_reaches_loader_workers_too_and_changes_nothing(
    server: Any, make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    make_image_folder(tmp_path / "images", classes=2, per_class=16, px=700)  # loading takes most of the time
    (tmp_path / "encoded.yaml").write_text(ENCODED)
    command = ("run", "encoded.yaml", "--out", "out", "--device", "cpu", "--until", "pretrain", "--workers", "1")
    process = server.start(tmp_path, *command, *EVERY_STEP)
    wait_for_checkpoint(process, tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 143, process.err
    assert re.fullmatch(r"error: stopped at step \d+ of 24; a checkpoint is kept, .*", process.error_line())

    process = server.start(tmp_path, *command, *EVERY_STEP)
    wait_for_checkpoint(process, tmp_path, max(checkpoints(tmp_path)) + 3)
    os.kill(loader_worker_of(process.pid), signal.SIGKILL)
    assert process.wait() == 1, process.err
    assert "a data loading worker died" in process.error_line() and "lower --workers (now 1)" in process.error_line()
    assert went_on_from(server.start(tmp_path, *command)) >= max(0, *checkpoints(tmp_path), 8)


def loader_worker_of(pid: int) -> int:
    """The one grandchild: a child of the fork server."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    found = [int(word) for child in children for word in Path(f"/proc/{child}/task/{child}/children").read_text().split()]
    assert len(found) == 1, found
    return found[0]


def test_a_signal_outside_of_training_leaves_nothing_half_done(server: Any, folder: Path) -> None:
    command = ("run", "faults.yaml", "--out", "out", "--device", "cpu", "--set", "pretrain.epochs=1")
    process = server.start(folder, *command)
    end = time.monotonic() + 300
    while "report: starts" not in process.err:
        assert not process.is_over() and time.monotonic() < end, process.err
        time.sleep(0.002)
    process.send(signal.SIGTERM)
    assert process.wait() == 143, process.err
    assert process.error_line() == "error: stopped; finished stages are kept, and the same command goes on with the next one"
    assert not (folder / "out" / "report").exists() and not list((folder / "out").glob(".report*"))
    again = server.start(folder, *command)
    assert again.wait() == 0, again.err
    assert "specific: starts" not in again.err and (folder / "out" / "report" / "report.html").is_file()


AT_THE_LAST_STEP = f"""
import os, signal
from g2sd_deploy.training.average import MovingAverage
update = MovingAverage.update
def late(self, num_steps):
    update(self, num_steps)
    if num_steps == {NUM_STEPS}:
        os.kill(os.getpid(), signal.SIGTERM)
MovingAverage.update = late
"""


def test_a_signal_during_the_last_step_is_not_lost(server: Any, folder: Path, undisturbed: bytes) -> None:
    process = server.start(folder, *RUN, "--checkpoint-every", "7", first=AT_THE_LAST_STEP)
    assert process.wait() == 143, process.err
    assert process.error_line() == "error: stopped; finished stages are kept, and the same command goes on with the next one"
    assert went_on_from(server.start(folder, *RUN)) == NUM_STEPS // 7 * 7
    assert weights(folder) == undisturbed


FULL_DISK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
user, group = os.getuid(), os.getgid()
if libc.unshare(0x00020000 | (0 if user == 0 else 0x10000000)):
    os._exit(77)
if user:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        open(f"/proc/self/{name}", "w").write(text)
libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)
place = os.path.abspath("out/.pretrain.checkpoints")
os.makedirs(place, exist_ok=True)
if libc.mount(b"tmpfs", place.encode(), b"tmpfs", 0, b"size=SIZEk"):
    os._exit(77)
"""
NO_LARGE_FILE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_stays(server: Any, folder: Path, undisturbed: bytes) -> None:
    process = server.start(folder, *RUN, *EVERY_STEP)
    wait_for_checkpoint(process, folder)
    process.send(signal.SIGTERM)
    assert process.wait() == 143, process.err
    before = checkpoints(folder)

    process = server.start(folder, *RUN, *EVERY_STEP, first=NO_LARGE_FILE)
    assert process.wait() == 2, process.err
    assert re.match(r"error: pretrain: .*out.*: File too large; correct it and run the same command again", process.error_line())
    assert checkpoints(folder) == before

    process = server.start(folder, *RUN, *EVERY_STEP, first=FULL_DISK.replace("SIZE", "64"))
    if process.wait() == 77:
        pytest.skip("no mount namespaces here")
    assert process.exit_code == 2, process.err
    assert re.match(r"error: pretrain: .*out.*: No space left on device; correct it and run the same command", process.error_line())
    assert checkpoints(folder) == before
    assert went_on_from(server.start(folder, *RUN)) == before[-1]
    assert weights(folder) == undisturbed


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_sound(server: Any, folder: Path) -> None:
    command = (*RUN, *EVERY_STEP, "--set", "pretrain.base_lr=1.0e+25", "--set", "pretrain.warmup_epochs=40")
    for _ in range(2):
        process = server.start(folder, *command)
        assert process.wait() == 1, process.err
        assert re.match(r"error: the (loss is|weights are) not finite at step \d+ of 160; lower base_lr", process.error_line())
        kept = sorted((folder / "out" / ".pretrain.checkpoints").glob("*.safetensors"))
        assert kept
    assert "goes on from its last checkpoint" in process.err
    from safetensors.torch import load_file

    assert all(torch.isfinite(value).all() for name, value in load_file(kept[-1]).items() if name.startswith("model."))


# one arena: each thread's own would reserve 64 MiB of the address space, and how many threads allocate at once is chance
SCARCE = "import ctypes, resource; ctypes.CDLL(None).mallopt(-8, 1); "
SCARCE += "limit = int(open('/proc/self/statm').read().split()[0]) * 4096 + {} * 2**20; "
SCARCE += "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))"
WIDE = (
    *("--set", "pretrain.encoder={patch_px: 2, width: 192, depth: 3, heads: 3}", "--set", "student.patch_px=2"),
    *("--set", "pretrain.epochs=1", "--set", "pretrain.batch_size=256", "--set", "data.max_train_images=256"),
)


def test_too_little_memory_names_the_micro_batch_that_fits_and_that_runs(server: Any, folder: Path) -> None:
    process = server.start(folder, *RUN, *WIDE, first=SCARCE.format(460))
    assert process.wait() == 1, process.err
    found = re.search(r"memory of cpu does not suffice for 256 images at a time; (\d+) fit: add --micro-batch (\d+),", process.error_line())
    assert found and found[1] == found[2] and 0 < int(found[1]) <= 128, process.err
    process = server.start(folder, *RUN, *WIDE, "--micro-batch", found[1], first=SCARCE.format(460))
    assert process.wait() == 0, process.err


@pytest.mark.gpu
def test_too_little_memory_of_a_gpu_names_the_micro_batch_that_fits(server: Any, folder: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    share = "import torch; torch.cuda.set_per_process_memory_fraction(900 * 2**20 / torch.cuda.get_device_properties(0).total_memory)"
    command = [*RUN, *WIDE, "--set", "pretrain.encoder={patch_px: 2, width: 512, depth: 4, heads: 2}"]
    command[command.index("cpu")] = "cuda"
    process = server.start(folder, *command, first=share)
    assert process.wait() == 1, process.err
    found = re.search(r"memory of cuda:0 does not suffice for 256 images at a time; (\d+) fit: add --micro-batch", process.error_line())
    assert found
    process = server.start(folder, *command, "--micro-batch", found[1], first=share)
    assert process.wait() == 0, process.err


LOST = re.compile(r"error: (process 1: )?another process of this run did not answer \(.*\): it hung, died or lost its network; .*")


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_hangs_or_dies_ends_the_other_with_one_sentence(server: Any, folder: Path, victim: int, number: int) -> None:
    ranks = server.start_ranks(2, folder, *RUN, *EVERY_STEP, "--rank-timeout", "10")
    wait_for_checkpoint(ranks[0], folder)
    ranks[victim].send(number)
    other = ranks[1 - victim]
    assert other.wait() == 1, other.err
    assert LOST.fullmatch(other.error_line()), other.err
    if number == signal.SIGSTOP:
        ranks[victim].send(signal.SIGKILL)
    ranks[victim].wait()
    reached = max(checkpoints(folder))
    assert went_on_from(server.start(folder, *RUN)) == reached >= 5


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(server: Any, folder: Path, undisturbed: bytes) -> None:
    process = server.start(folder, *RUN, *EVERY_STEP)
    wait_for_checkpoint(process, folder)
    process.send(signal.SIGTERM)
    assert process.wait() == 143, process.err
    kept = checkpoints(folder)
    newest = folder / "out" / ".pretrain.checkpoints" / f"step-{kept[-1]:09d}.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    again = server.start(folder, *RUN)
    assert went_on_from(again) == kept[-2]
    assert (
        f"WARNING the checkpoint {newest.relative_to(folder)} is damaged (its hash is another one); going back to the one before"
        in again.err
    )
    assert weights(folder) == undisturbed
