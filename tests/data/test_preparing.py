"""Prepared data sets: what is in them, that they are the same each time, and what a kill, a full disk or a bad image leaves."""

import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import g2sd_deploy
import g2sd_export
from g2sd_deploy.data import preparing
from g2sd_deploy.data.encoding import Encoding
from g2sd_deploy.data.manifest import read_manifest
from g2sd_deploy.data.preparing import Options, Outcome, TooManyBad, prepare, stored_order
from g2sd_deploy.data.sources import FolderSource, guess_kind, open_source
from g2sd_deploy.errors import RunFailed, UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

SHORT, PER_SHARD = 48, 7
SPLITS = ("train", "val")
ROOTS = os.pathsep.join(sorted({str(Path(str(package.__file__)).parent.parent) for package in (g2sd_deploy, g2sd_export)}))
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOTS, "OMP_NUM_THREADS": "1"}


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth colours, so that a JPEG is close to it."""
    return Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def make_source(root: Path, *, per_class: int = 6) -> Path:
    """Two splits of two classes: every third image is small enough to be copied, and some of those are PNG, WebP and BMP."""
    rng = np.random.default_rng(0)
    for split, name in itertools.product(SPLITS, ("cat", "dog")):
        (root / split / name).mkdir(parents=True)
        for i in range(per_class):
            small = picture(rng, 40, 44 + i)
            large = picture(rng, 90 + i, 70)
            suffix = ("png", "webp", "bmp", "jpg")[i // 3 % 4]
            (small if i % 3 == 0 else large).save(root / split / name / f"{i:03}.{suffix if i % 3 == 0 else 'jpg'}")
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return make_source(tmp_path_factory.mktemp("here") / "pets")


def options(*, shards: bool = True, short_side: int | None = SHORT, quality: int = 95, size: int = PER_SHARD) -> Options:
    return Options(Encoding(short_side, quality), shards, size, SPLITS)


def prepared(source: Path, target: Path, wanted: Options | None = None, *, workers: int = 1, max_bad: int = 0) -> Outcome:
    return prepare(FolderSource(source), source.name, target, wanted or options(), workers=workers, max_bad=max_bad, tick=lambda *_: None)


def tree(root: Path) -> dict[str, str]:
    """Every file with its hash."""
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(root.rglob("*")) if f.is_file()}


def opened(file: Path) -> Image.Image:
    """An image that keeps no file open."""
    return Image.open(io.BytesIO(file.read_bytes()))


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def shards(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as shards, by an uninterrupted run; not to be changed."""
    target = tmp_path_factory.mktemp("shards") / "out"
    assert prepared(source, target).num == {"train": 12, "val": 12}
    return target


@pytest.fixture(scope="module")
def folders(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as class folders; not to be changed."""
    target = tmp_path_factory.mktemp("folders") / "out"
    prepared(source, target, options(shards=False, size=1000))
    return target


def test_tar_and_the_manifest_agree(shards: Path) -> None:
    manifest = read_manifest((shards / "manifest.json").read_text(), "manifest.json")
    assert sorted(tree(shards)) == ["manifest.json", *(f"{split}-{i:06d}.tar" for split in SPLITS for i in range(2))]
    for split in SPLITS:
        assert [shard.num for shard in manifest.splits[split].shards] == [7, 5]
        for shard in manifest.splits[split].shards:
            file = shards / shard.file
            assert (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) == (shard.bytes, shard.sha256)
            assert file.stat().st_size % 10240 == 0 and file.read_bytes().endswith(bytes(1024)), "a tar ends with two empty blocks"
            listed = subprocess.run(["tar", "tf", file], capture_output=True, text=True, check=True).stdout.split()
            assert [name.partition(".")[0] for name in listed[::2]] == [name.partition(".")[0] for name in listed[1::2]]
            assert len(listed) == 2 * shard.num and all(name.endswith(".cls") for name in listed[1::2])


READ_BY_WEBDATASET = """
import json, sys, webdataset
samples = webdataset.WebDataset(sys.argv[1:], shardshuffle=False, empty_check=False).decode("pil")
print(json.dumps([(sample["__key__"], sample["cls"], [(key, value.size) for key, value in sample.items() if key in ("jpg", "png", "webp")])
                  for sample in samples]))
"""


def test_the_webdataset_library_reads_what_was_written(shards: Path, source: Path) -> None:
    # in a process of its own: the library leaves its files open
    arguments = [sys.executable, "-c", READ_BY_WEBDATASET, *map(str, sorted(shards.glob("val-*.tar")))]
    samples = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert [key for key, _, _ in samples] == [f"{i:09d}" for i in range(12)]
    assert [label for _, label, _ in samples] == [0] * 6 + [1] * 6
    for (_, _, images), file in zip(samples, sorted((source / "val").rglob("*.*")), strict=True):
        ((kind, size),) = images
        assert min(size) == min(SHORT, *opened(file).size)
        assert kind == {".jpg": "jpg", ".png": "png", ".webp": "webp", ".bmp": "png"}[file.suffix]


def test_our_own_reader_reads_what_was_written(shards: Path, source: Path) -> None:
    assert guess_kind(str(shards)) == "shards"
    ours, theirs = open_source("shards", str(shards), splits=SPLITS), FolderSource(source)
    assert ours.class_names == theirs.class_names
    samples, files = ours.samples("val", None), theirs.samples("val", None)
    assert samples.labels.tolist() == files.labels.tolist() and samples.block_sizes.tolist() == [7, 5]
    small = [i for i in range(12) if i % 3 == 0 and not files.name(i).endswith(".bmp")]
    assert small and all(samples.read(i) == files.read(i) for i in small)


def test_the_bytes_depend_on_the_images_and_their_names_alone(source: Path, shards: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(source, tmp_path / "elsewhere" / "pets", copy_function=shutil.copyfile))
    prepared(moved, tmp_path / "again", workers=3)
    assert tree(tmp_path / "again") == tree(shards)


def test_training_images_are_mixed_by_their_names_and_test_images_are_not(shards: Path) -> None:
    labels = {
        split: [int(data) for file in sorted(shards.glob(f"{split}-*.tar")) for name, data in members(file).items() if name.endswith("cls")]
        for split in SPLITS
    }
    assert labels["val"] == sorted(labels["val"]) and sorted(labels["train"]) == labels["val"] != labels["train"]
    names = [f"train/{c}/{i}.jpg" for c in "ab" for i in range(500)]
    order = stored_order(names, shuffled=True)
    assert sorted(order.tolist()) == list(range(1000)) and 200 < (order[:500] < 500).sum() < 300
    back = stored_order(names[::-1], shuffled=True)
    assert [names[i] for i in order] == [names[::-1][i] for i in back]


def test_small_files_are_copied_and_large_ones_resized_as_stated(source: Path, folders: Path) -> None:
    for file in source.rglob("*.*"):
        (made,) = (folders / file.relative_to(source)).parent.glob(f"{file.stem}.*")
        if file.stem in ("000", "003"):
            if file.suffix == ".bmp":
                assert made.suffix == ".png" and np.array_equal(np.asarray(opened(made)), np.asarray(opened(file)))
            else:
                assert (made.name, made.read_bytes()) == (file.name, file.read_bytes())
            continue
        image = opened(file)
        wanted = image.resize((int(SHORT * image.width / image.height), SHORT), Image.Resampling.BICUBIC)
        got = opened(made)
        assert (got.format, got.size, made.suffix) == ("JPEG", wanted.size, ".jpg")
        assert got.layer[1][1:3] == (1, 1) and got.layer[0][1:3] == (2, 2)  # 4:2:0
        assert np.abs(np.asarray(got, np.int16) - np.asarray(wanted)).mean() < 2


def spoil(source: Path, num: int) -> list[str]:
    """Cut `num` training images short."""
    files = sorted((source / "train").rglob("*.jpg"))[:num]
    for file in files:
        file.write_bytes(file.read_bytes()[:150])
    return sorted(file.relative_to(source).as_posix() for file in files)


@pytest.mark.parametrize("as_shards", [True, False])
def test_bad_images_are_left_out_only_where_that_is_allowed(tmp_path: Path, as_shards: bool) -> None:
    source = make_source(tmp_path / "pets")
    names = spoil(source, 2)
    with pytest.raises(TooManyBad, match=r"2 images cannot be used and --max-bad is 1: add --max-bad 2 to leave them out") as caught:
        prepared(source, tmp_path / "out", options(shards=as_shards), max_bad=1)
    assert sorted(one.name for one in caught.value.skipped) == names
    assert not list((tmp_path / "out").glob("*.json"))
    before = tree(tmp_path / "out")
    outcome = prepared(source, tmp_path / "out", options(shards=as_shards), max_bad=2)
    assert outcome.num == {"train": 10, "val": 12} and outcome.skipped == caught.value.skipped
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in before if not name.startswith(".unf")} == {
        name: digest for name, digest in before.items() if not name.startswith(".unf")
    }
    held = json.loads(outcome.manifest.read_text())
    assert sorted(one["name"] for one in held["prepared"]["skipped"]) == names
    assert held["splits"]["train"]["num"] == 10
    if as_shards:
        kept = [name for file in sorted((tmp_path / "out").glob("train-*.tar")) for name in members(file) if name.endswith(".cls")]
        assert len(kept) == 10 and [shard["num"] for shard in held["splits"]["train"]["shards"]] != [7, 5]


@pytest.mark.parametrize("as_shards", [True, False])
def test_a_file_that_a_power_cut_shortened_is_written_again(tmp_path: Path, as_shards: bool) -> None:
    source, wanted = make_source(tmp_path / "pets"), options(shards=as_shards)
    spoil(source, 1)
    prepared(source, tmp_path / "whole", wanted, max_bad=1)
    with pytest.raises(TooManyBad):  # leaves every part and no manifest
        prepared(source, tmp_path / "out", wanted)
    made = sorted(path for path in (tmp_path / "out").rglob("*.*") if path.suffix in (".tar", ".jpg"))
    made[0].write_bytes(made[0].read_bytes()[:-10])
    made[-1].unlink()
    prepared(source, tmp_path / "out", wanted, max_bad=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_source_that_is_bad_throughout_is_not_read_to_its_end(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pets", per_class=90)
    spoil(source, 150)
    with pytest.raises(TooManyBad, match=r"^101 images cannot be used and --max-bad is 0: the search for more was stopped"):
        prepared(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (options(short_side=32), "short_side 48 there, 32 now"),
        (options(short_side=None), "short_side 48 there, none now"),
        (options(quality=90), "quality 95 there, 90 now"),
        (options(size=8), "images_per_shard 7 there, 8 now"),
        (options(shards=False), "layout shards there, class folders now"),
        (Options(Encoding(SHORT, 95), True, PER_SHARD, ("train",)), "splits train,val there, train now"),
    ],
)
def test_other_options_on_a_prepared_folder_are_refused(source: Path, shards: Path, other: Options, told: str) -> None:
    before = tree(shards)
    with pytest.raises(UserError, match=told):
        prepared(source, shards, other)
    assert tree(shards) == before


def test_a_finished_folder_is_left_as_it_is_and_a_damaged_one_refused(source: Path, shards: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(shards, tmp_path / "out"))
    assert prepared(source, out).fresh is False
    (out / "val-000001.tar").write_bytes(b"short")
    with pytest.raises(UserError, match=r"val-000001\.tar: is not there with its"):
        prepared(source, out)


def test_images_that_changed_since_the_begin_are_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pets")
    names = spoil(source, 1)
    with pytest.raises(TooManyBad):
        prepared(source, tmp_path / "out")
    picture(np.random.default_rng(1), 60, 60).save(source / names[0])
    with pytest.raises(UserError, match=r"prepared otherwise \(the source's images were changed since\); use another folder"):
        prepared(source, tmp_path / "out")
    (source / names[0]).unlink()
    with pytest.raises(UserError, match="the source's list of images is another one"):
        prepared(source, tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else; give a new or an empty folder"):
        prepared(source, tmp_path)


def test_a_second_process_in_the_same_folder_is_refused(source: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def meanwhile(done: int, total: int) -> None:
        if not told:
            with pytest.raises(UserError, match="another process is preparing it") as caught:
                prepared(source, tmp_path / "out")
            told.append(str(caught.value))

    prepare(FolderSource(source), "pets", tmp_path / "out", options(), workers=1, max_bad=0, tick=meanwhile)
    assert len(told) == 1


def test_images_that_differ_by_their_suffix_alone_keep_it_in_their_name(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pets")
    picture(np.random.default_rng(0), 90, 90).save(source / "train" / "cat" / "001.png")
    prepared(source, tmp_path / "out", options(shards=False))
    made = {path.name for path in (tmp_path / "out" / "train" / "cat").iterdir()}
    assert {"001.jpg.jpg", "001.png.jpg", "002.jpg"} < made and len(made) == 7


def test_classes_whose_labels_folders_would_change_are_refused(tmp_path: Path) -> None:
    fashion = open_source("idx", "bundled:fashion-mnist")
    wanted = Options(Encoding(None, 95), False, 1000, ("test",))
    with pytest.raises(UserError, match=r"'T-shirt/top' cannot be a folder's name; add --shards"):
        prepare(fashion, "fashion", tmp_path / "out", wanted, workers=1, max_bad=0, tick=lambda *_: None)
    assert not (tmp_path / "out").exists()


# A process that is killed, or runs out of disk


def command(source: Path, target: Path, *more: str) -> list[str]:
    return ["data", "prepare", str(source), str(target), "--short-side", str(SHORT), *more]


AS_SHARDS = ("--shards", "--images-per-shard", str(PER_SHARD), "--workers", "1")


def g2sd(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "g2sd_deploy", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120, **more
    )


class Deadly:
    """Kills this process at the next call once `left` calls were let through."""

    def __init__(self, left: int) -> None:
        self.left = left

    def around(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return call


def in_this_process(work: Callable[[object], object], inputs: Iterator[object], *, workers: int) -> Iterator[object]:
    """Stands for the worker processes, which write nothing: a process that is killed again and again need not start them each time."""
    for one in inputs:
        yield work(one)


def status_when_killed_after(calls: int, action: Callable[[], object]) -> int:
    """Run an action in a forked process that is killed after so many calls that change the disk; returns its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child does not use
        child = os.fork()
    if child == 0:
        deadly = Deadly(calls)
        for name in ("fsync", "replace", "unlink", "rmdir"):
            setattr(os, name, deadly.around(getattr(os, name)))
        Path.write_bytes = deadly.around(Path.write_bytes)  # type: ignore[assignment, method-assign]
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("as_shards", [True, False])
def test_a_kill_at_any_step_changes_nothing_in_the_end(
    source: Path, shards: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_shards: bool
) -> None:
    monkeypatch.setattr(preparing, "map_in_order", in_this_process)
    wanted, out = options(shards=as_shards, size=PER_SHARD if as_shards else 1000), tmp_path / "out"
    whole = tree(shards if as_shards else folders)
    for calls in itertools.count():
        shutil.rmtree(out, ignore_errors=True)
        status = status_when_killed_after(calls, lambda: prepared(source, out, wanted))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        prepared(source, out, wanted)
        assert tree(out) == whole, f"after {calls} calls"
    assert tree(out) == whole and calls >= 30


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def has_shards(out: Path, num: int) -> bool:
    return (out / ".unfinished").is_dir() and len(list(out.glob("*.tar"))) >= num


def group_has_ended(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_kills_at_random_moments_leave_no_worker_behind_and_change_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pets", per_class=60)
    arguments = ("--shards", "--images-per-shard", "30", "--workers", "2")
    assert g2sd(*command(source, tmp_path / "whole", *arguments)).returncode == 0
    out, rng = tmp_path / "out", np.random.default_rng(0)
    for shards_there in (0, 2, 5):
        started = subprocess.Popen(
            [sys.executable, "-m", "g2sd_deploy", *command(source, out, *arguments)],
            env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(partial(has_shards, out, shards_there))
        time.sleep(float(rng.uniform(0, 0.05)))
        started.kill()
        assert started.wait() == -signal.SIGKILL
        wait_until(partial(group_has_ended, started.pid), 10)
    last = g2sd(*command(source, out, *arguments))
    assert last.returncode == 0, last.stderr
    assert tree(out) == tree(tmp_path / "whole")


def test_a_worker_that_is_killed_ends_the_command_with_one_sentence(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_encode_task", die)
    with pytest.raises(RunFailed, match=r"one of the 2 worker processes was killed, most likely because memory ran out"):
        prepared(source, tmp_path / "out", workers=2)
    monkeypatch.undo()
    assert prepared(source, tmp_path / "out").fresh


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_file_limit_ends_the_command_with_one_line_and_it_goes_on_without(source: Path, shards: Path, tmp_path: Path) -> None:
    limit = 20_000
    assert max(path.stat().st_size for path in shards.glob("*.tar")) > limit
    out = tmp_path / "out"
    stopped = g2sd(*command(source, out, *AS_SHARDS), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    check_full(stopped, out)
    assert g2sd(*command(source, out, *AS_SHARDS)).returncode == 0
    assert tree(out) == tree(shards)


def check_full(stopped: subprocess.CompletedProcess[str], out: Path) -> None:
    assert stopped.returncode == 1
    told = "the disk is full; what is finished is kept, and the same command goes on from there once there is room"
    assert [line for line in stopped.stderr.splitlines() if line.startswith("error")] == [f"error: {out}: {told}"]
    assert "Traceback" not in stopped.stderr
    assert not [name for name in tree(out) if name.startswith(".unfinished") and name.endswith(".tar")], "half a shard fills the disk"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("this machine lets nobody here mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_the_command_with_one_line_and_it_goes_on_with_room(source: Path, tmp_path: Path, small_disk: Path) -> None:
    source = make_source(tmp_path / "pets", per_class=30)
    out = small_disk / "out"
    check_full(g2sd(*command(source, out, *AS_SHARDS)), out)
    finished = sorted(path.name for path in out.glob("*.tar"))
    assert finished
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert g2sd(*command(source, out, *AS_SHARDS)).returncode == 0
    assert g2sd(*command(source, tmp_path / "whole", *AS_SHARDS)).returncode == 0
    assert tree(out) == tree(tmp_path / "whole")
