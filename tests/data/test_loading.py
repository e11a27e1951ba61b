"""The loader: the same bytes on any number of workers, bad images, and workers that die, outlive nobody and leave Ctrl-C alone."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from g2sd_deploy.data.augment import NUM_CROP_DRAWS
from g2sd_deploy.data.crop_maker import CropMaker
from g2sd_deploy.data.images import ImageSet, Samples
from g2sd_deploy.data.loading import Loaded, Loader, Ticket
from g2sd_deploy.data.pixels import crop_sample
from g2sd_deploy.data.rand_augment import fill_from_mean, rand_augment
from g2sd_deploy.data.sources import open_source
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import AugmentSettings, ClassifyAugmentSettings

MEAN = (0.5, 0.4, 0.3)
POLICY = "rand-m9-n3-p1-inc1"
NUM = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve JPEGs of different sizes in two classes; in order of the set they are 0.jpg to 11.jpg."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(NUM):
        path = root / "train" / ("cat" if index < 6 else "dog") / f"{index:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)).save(path, quality=90)
    return root


def with_bad(folder: Path, target: Path, bad: dict[int, bytes]) -> Samples:
    for index, path in enumerate(sorted(folder.glob("train/*/*"))):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(bad.get(index, path.read_bytes()))
    return samples_of(target)


def samples_of(folder: Path) -> Samples:
    return open_source("folder", str(folder), splits=("train",)).samples("train", None)


def loader(samples: Samples, augment: AugmentSettings | None = None, *, workers: int = 0, seed: int = 5, channels: int = 3) -> Loader:
    augment = augment or AugmentSettings()
    mean = MEAN[:channels]
    return Loader(CropMaker(samples, augment, seed=seed, image_px=32, num_channels=channels, mean=mean), workers=workers, pin_memory=False)


def load_one(samples: Samples, indices: Sequence[int], epoch: int = 0, augment: AugmentSettings | None = None) -> Loaded:
    return next(iter(loader(samples, augment).load([Ticket(epoch, np.array(indices))])))


TICKETS = [Ticket(epoch, np.array(indices)) for epoch in (0, 1) for indices in ([3, 0, 11, 7], [1, 2], [5, 4, 6, 8, 9, 10])]


def test_a_batch_holds_the_crops_of_its_images_under_their_own_draws(folder: Path) -> None:
    samples, indices = samples_of(folder), np.array([7, 0, 11])
    got = load_one(samples, indices, epoch=3)
    draws = uniform(5, "crop", 3, indices, NUM_CROP_DRAWS)
    expected = [crop_sample(samples.read(int(i)), row, AugmentSettings(), 32, 3) for i, row in zip(indices, draws, strict=True)]
    assert np.array_equal(got.pixels.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert got.pixels.dtype == torch.uint8
    assert got.pixels.is_contiguous()
    assert got.truth.tolist() == [1, 0, 1]
    assert got.bad == ()


def test_rand_augment_follows_the_crop(folder: Path) -> None:
    indices = np.array([7, 0, 11, 2])
    augment = ClassifyAugmentSettings(rand_augment=POLICY, interpolation="bicubic")
    got = load_one(samples_of(folder), indices, 2, augment)
    cropped = load_one(samples_of(folder), indices, 2, AugmentSettings(interpolation="bicubic")).pixels.permute(0, 2, 3, 1).contiguous()
    expected = rand_augment(cropped.numpy(), POLICY, 5, 2, indices, fill_from_mean(MEAN), interpolation="bicubic")
    assert np.array_equal(got.pixels.permute(0, 2, 3, 1).numpy(), expected)
    assert got.pixels.is_contiguous()
    assert not torch.equal(got.pixels, cropped.permute(0, 3, 1, 2))


@pytest.mark.parametrize("policy", [None, POLICY])
def test_decoded_grey_images_are_loaded_too(policy: str | None) -> None:
    data = ImageSet(np.random.default_rng(0).integers(0, 256, (6, 40, 40, 1), dtype=np.uint8), np.arange(6))
    augment, indices = ClassifyAugmentSettings(rand_augment=policy), np.array([4, 1])
    got = next(iter(loader(data, augment, channels=1).load([Ticket(0, indices)])))
    draws = uniform(5, "crop", 0, indices, NUM_CROP_DRAWS)
    expected = np.stack([crop_sample(data.images[i], row, augment, 32, 1) for i, row in zip(indices, draws, strict=True)])
    if policy:
        expected = rand_augment(expected, policy, 5, 0, indices, fill_from_mean(MEAN[:1]), interpolation="bilinear")
    assert np.array_equal(got.pixels.permute(0, 2, 3, 1).numpy(), expected)
    assert got.truth.tolist() == [4, 1]


def test_the_number_of_workers_does_not_change_a_byte(folder: Path) -> None:
    augment = ClassifyAugmentSettings(rand_augment=POLICY)
    torch.manual_seed(3)
    runs = [list(loader(samples_of(folder), augment, workers=workers).load(TICKETS)) for workers in (0, 1, 3)]
    after = torch.rand(1)
    for other in runs[1:]:
        assert len(other) == len(TICKETS)
        for a, b in zip(runs[0], other, strict=True):
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.truth, b.truth)
    assert not torch.equal(runs[0][0].pixels, runs[0][3].pixels)  # the other epoch
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)  # the global generator is left alone


def test_another_seed_crops_otherwise(folder: Path) -> None:
    one, other = (next(iter(loader(samples_of(folder), seed=seed).load(TICKETS[:1]))).pixels for seed in (5, 6))
    assert not torch.equal(one, other)


def test_a_bad_image_is_replaced_by_the_next_good_one_under_its_own_draws_and_named(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "train/dog/10.jpg").read_bytes()
    samples = with_bad(folder, tmp_path, {5: b"", 10: whole[: len(whole) // 2], 11: b"\xff\xd8\xff nothing"})
    got = load_one(samples, [10, 3, 5])
    draws = uniform(5, "crop", 0, np.array([10, 3, 5]), NUM_CROP_DRAWS)
    expected = [crop_sample(samples.read(i), row, AugmentSettings(), 32, 3) for i, row in zip((0, 3, 6), draws, strict=True)]
    assert np.array_equal(got.pixels.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert got.truth.tolist() == [0, 0, 1]  # of the images that are shown
    assert sorted(skipped.index for skipped in got.bad) == [5, 10, 11]
    assert {Path(skipped.name).name for skipped in got.bad} == {"05.jpg", "10.jpg", "11.jpg"}
    reasons = {skipped.index: skipped.reason for skipped in got.bad}
    assert "empty" in reasons[5]
    assert "truncated" in reasons[10]
    assert "cannot be decoded" in reasons[11]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_without_a_good_image_ends_the_run(folder: Path, tmp_path: Path, workers: int) -> None:
    samples = with_bad(folder, tmp_path, dict.fromkeys(range(NUM), b"GIF89a no"))
    with pytest.raises(RunFailed, match=r"03\.jpg cannot be used \(.*\), nor can any of the 11 images after it; .*verify") as caught:
        list(loader(samples, workers=workers).load(TICKETS[:1]))
    assert "\n" not in str(caught.value)


class Unreachable(ImageSet):
    def read(self, index: int) -> np.ndarray:
        raise UserError("the disk is gone")


def test_what_is_not_the_images_fault_is_no_bad_image() -> None:
    data = Unreachable(np.zeros((3, 40, 40, 3), np.uint8), np.arange(3))
    with pytest.raises(UserError, match=r"^the disk is gone$"):
        list(loader(data).load([Ticket(0, np.arange(2))]))


def started(batches: Iterator[Loaded]) -> list[multiprocessing.process.BaseProcess]:
    """The workers of an iterator, once it has given its first batch."""
    before = multiprocessing.active_children()
    next(batches)
    return [child for child in multiprocessing.active_children() if child not in before]


def test_a_killed_worker_is_one_clear_error(folder: Path) -> None:
    batches = loader(samples_of(folder), workers=2).load(TICKETS * 200)
    victim, _ = started(batches)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"a data loading worker died \(.+\); .* memory.*lower --workers \(now 2\)") as caught:
        list(batches)
    assert "\n" not in str(caught.value)


def test_workers_leave_ctrl_c_to_their_parent(folder: Path) -> None:
    batches = loader(samples_of(folder), workers=2).load(TICKETS * 20)
    workers = started(batches)
    assert len(workers) == 2
    next(batches)  # the batches come from the workers in turn: now both are at work
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == len(TICKETS) * 20 - 2


def test_workers_end_with_the_iterator(folder: Path) -> None:
    batches = loader(samples_of(folder), workers=2).load(TICKETS * 50)
    workers = started(batches)
    assert [worker.is_alive() for worker in workers] == [True, True]
    del batches
    for worker in workers:
        worker.join(10)
    assert [worker.is_alive() for worker in workers] == [False, False]


ORPHANS = """
import multiprocessing, sys, time
import numpy as np
from g2sd_deploy.data.crop_maker import CropMaker
from g2sd_deploy.data.loading import Loader, Ticket
from g2sd_deploy.data.sources import open_source
from g2sd_deploy.settings import AugmentSettings

if __name__ == "__main__":
    samples = open_source("folder", sys.argv[1], splits=("train",)).samples("train", None)
    maker = CropMaker(samples, AugmentSettings(), seed=0, image_px=32, num_channels=3, mean=(0.5, 0.5, 0.5))
    loader = Loader(maker, workers=2, pin_memory=False)
    batches = loader.load(Ticket(0, np.arange(4)) for _ in range(10**6))
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_no_worker_outlives_a_killed_parent(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        alive_before = [is_alive(pid) for pid in workers]
        parent.kill()
    assert alive_before == [True, True]
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(is_alive(pid) for pid in workers)


LEFT_OPEN = """
import numpy as np
from g2sd_deploy.data.crop_maker import CropMaker
from g2sd_deploy.data.loading import Loader, Ticket
from g2sd_deploy.data.sources import open_source
from g2sd_deploy.settings import AugmentSettings

samples = open_source("folder", FOLDER).samples("train", None)
loader = Loader(CropMaker(samples, AugmentSettings(), seed=0, image_px=16, num_channels=3, mean=(0.5,) * 3), workers=2, pin_memory=False)
kept = loader.load([Ticket(0, np.arange(4))] * 500)
next(kept)
print("leaving", flush=True)
"""


def test_a_process_that_leaves_with_workers_at_work_ends(folder: Path) -> None:
    code = LEFT_OPEN.replace("FOLDER", repr(str(folder)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr
