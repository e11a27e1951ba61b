"""Archives that are not what they should be: nothing leaves the folder, only plain files are taken, and each fault is told in one line."""

import errno
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from g2sd_deploy.data.testsets import unpacking
from g2sd_deploy.data.testsets.unpacking import Limits, Unpacked, by_label, by_tail, read_file, unpack
from g2sd_deploy.errors import UserError

GENEROUS = Limits(1000, 1 << 20)
PLACE = by_tail(["."], ["cat", "dog"])
SPECIAL = {"fifo": tarfile.FIFOTYPE, "character device": tarfile.CHRTYPE, "block device": tarfile.BLKTYPE}
LINKS = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "outer" / "out"
    folder.mkdir(parents=True)
    return folder


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def images(num: int = 4) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(member(f"set/{name}/{i}.jpg"), bytes([i]) * 700) for name in ("cat", "dog") for i in range(num // 2)]


def make_zip(path: Path, members: list[tuple[str, bytes]], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def run(archive: Path, out: Path, limits: Limits = GENEROUS, place: unpacking.Place = PLACE) -> Unpacked:
    return unpack(archive, out, place, limits, tick=lambda done, total: None)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, out: Path, message: str, limits: Limits = GENEROUS) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(archive, out, limits)
    assert str(caught.value).startswith(f"{archive}: ") and "\n" not in str(caught.value)
    assert {path.name for path in out.parent.iterdir()} == {"out"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_of_any_compression_is_unpacked_whatever_its_name_and_its_top_folder(tmp_path: Path, out: Path, mode: str) -> None:
    archive = make_tar(tmp_path / "set.tar.gz", [(member("set/", tarfile.DIRTYPE), b""), (member("./set/dog/"), b""), *images()], mode)
    assert run(archive, out) == Unpacked(4, 1, ["./set/dog/"])
    assert files(out) == {f"{name}/{i}.jpg": bytes([i]) * 700 for name in ("cat", "dog") for i in range(2)}


def test_a_zip_is_unpacked(tmp_path: Path, out: Path) -> None:
    assert run(make_zip(tmp_path / "set.bin", [("sketch/", b""), ("sketch/cat/1.JPEG", b"one")]), out).num_files == 1
    assert files(out) == {"cat/1.JPEG": b"one"}


def test_files_without_a_place_in_the_set_are_left_out_and_named(tmp_path: Path, out: Path) -> None:
    left_out = ["set/README.txt", "set/cat/._1.jpg", "__MACOSX/set/cat/._2.jpg", "set/cow/1.jpg", "set/cat/notes.txt", "1.jpg"]
    names = [*left_out, "set/cat/1.jpg"]
    found = run(make_tar(tmp_path / "a.tar", [(member(name), b"x") for name in names]), out)
    assert (found.num_files, found.num_left_out, found.left_out) == (1, 6, left_out)
    assert set(files(out)) == {"cat/1.jpg"}


def test_corruptions_and_severities_are_part_of_the_place() -> None:
    place = by_tail(["snow/1", "snow/2"], ["cat"])
    assert place(PurePosixPath("weather/snow/2/cat/a.jpg")) == PurePosixPath("snow/2/cat/a.jpg")
    assert place(PurePosixPath("snow/6/cat/a.jpg")) is place(PurePosixPath("2/cat/a.jpg")) is None


def test_a_flat_archive_is_sorted_by_labels() -> None:
    place = by_label({"val_1": "dog"}, "val")
    assert place(PurePosixPath("any/val_1.JPEG")) == PurePosixPath("val/dog/val_1.JPEG")
    assert place(PurePosixPath("val_2.JPEG")) is place(PurePosixPath("val_1.txt")) is None


def test_owner_mode_and_time_of_the_archive_mean_nothing(tmp_path: Path, out: Path) -> None:
    info = member("cat/1.jpg")
    info.mode, info.uid, info.mtime = 0o6777, 12345, 1
    run(make_tar(tmp_path / "a.tar", [(info, b"x")]), out)
    found = (out / "cat" / "1.jpg").stat()
    assert found.st_mode & 0o7111 == 0 and found.st_uid == out.stat().st_uid and found.st_mtime > 1e9


@pytest.mark.parametrize("name", ["../cat/1.jpg", "cat/../../cat/1.jpg", "/cat/1.jpg", "C:/cat/1.jpg", "..\\cat\\1.jpg", "cat\\1.jpg"])
def test_a_path_that_leads_out_refuses_a_tar_and_a_zip(tmp_path: Path, out: Path, name: str) -> None:
    refused(
        make_tar(tmp_path / "a.tar", [*images(), (member(name), b"x")]), out, "its member .* leads out of the folder; it was not unpacked"
    )
    refused(make_zip(tmp_path / "a.zip", [(name, b"x")]), out, "its member .* leads out of the folder; it was not unpacked")


def test_a_zero_byte_in_a_zips_name_is_refused(tmp_path: Path, out: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("cat/1_.jpg", b"x")])
    archive.write_bytes(archive.read_bytes().replace(b"cat/1_.jpg", b"cat/1\0.jpg"))
    refused(archive, out, "leads out of the folder")


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("target", ["/etc/passwd", "cat/0.jpg"])
def test_a_link_refuses_the_archive_wherever_it_leads(tmp_path: Path, out: Path, kind: str, target: str) -> None:
    refused(
        make_tar(tmp_path / "a.tar", [(member("cat/1.jpg", LINKS[kind], target), b"")]),
        out,
        f"cat/1.jpg is a link to {target}, which no set",
    )


def test_a_folder_link_cannot_redirect_later_members(tmp_path: Path, out: Path) -> None:
    refused(
        make_tar(tmp_path / "a.tar", [(member("cat", tarfile.SYMTYPE, ".."), b""), (member("cat/1.jpg"), b"x")]), out, "cat is a link to "
    )


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_device_refuses_the_archive(tmp_path: Path, out: Path, kind: str) -> None:
    refused(make_tar(tmp_path / "a.tar", [(member("cat/1.jpg", SPECIAL[kind]), b"")]), out, "is a device or another special file")


@pytest.mark.parametrize(
    ("mode", "told"), [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFIFO | 0o644, "is a device or another special file")]
)
def test_a_zip_has_links_and_devices_too(tmp_path: Path, out: Path, mode: int, told: str) -> None:
    refused(make_zip(tmp_path / "a.zip", [("cat/1.jpg", b"/etc/passwd")], mode), out, told)


def test_an_encrypted_zip_is_refused(tmp_path: Path, out: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("cat/1.jpg", b"x")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag, in the entry and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    refused(archive, out, "cat/1.jpg is encrypted")


@pytest.mark.parametrize("second", ["cat/1.jpg", "./cat/1.jpg", "cat//1.jpg", "other/cat/1.jpg"])
def test_two_members_that_fall_together_are_refused(tmp_path: Path, out: Path, second: str) -> None:
    refused(make_tar(tmp_path / "a.tar", [(member("cat/1.jpg"), b"1"), (member(second), b"2")]), out, f"holds {second} twice")


def test_a_bomb_of_members_is_refused(tmp_path: Path, out: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [(member(f"cat/{i}.txt"), b"") for i in range(20)])
    refused(archive, out, "holds more than the 10 entries that the set can explain", Limits(10, 1000))


def test_a_bomb_of_bytes_is_refused_before_it_is_written(tmp_path: Path, out: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [(member("cat/1.jpg"), bytes(500_000))], "w:gz")
    assert archive.stat().st_size < 2000
    refused(archive, out, "unpacks to more than the 400,000 bytes", Limits(10, 400_000))
    assert files(out) == {}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0.31, 0.62])
def test_a_truncated_tar_is_told(tmp_path: Path, out: Path, mode: str, share: float) -> None:
    noisy = [(info, bytes((i * 7919 + j * j) % 251 for j in range(700))) for i, (info, _) in enumerate(images(40))]
    archive = make_tar(tmp_path / "a.tar", noisy, mode)
    end = 40 * (512 + 1024) if mode == "w" else archive.stat().st_size
    archive.write_bytes(archive.read_bytes()[: int(end * share)])
    refused(archive, out, "is truncated; fetch it again")


def test_a_tar_that_is_cut_inside_a_header_is_told(tmp_path: Path, out: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", images(2))
    archive.write_bytes(archive.read_bytes()[: 512 + 1024 + 100])
    refused(archive, out, "is truncated; fetch it again")


def test_a_tar_without_an_end_is_whole(tmp_path: Path, out: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", images(2))
    archive.write_bytes(archive.read_bytes()[: 2 * (512 + 1024)])
    assert run(archive, out).num_files == 2


def test_a_damaged_header_is_told_and_not_taken_for_the_end(tmp_path: Path, out: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", images(2))
    content = bytearray(archive.read_bytes())
    content[512 + 1024 + 20] ^= 1
    archive.write_bytes(content)
    refused(archive, out, r"is damaged \(an entry cannot be read\)")


def test_a_truncated_and_a_damaged_zip_are_told(tmp_path: Path, out: Path) -> None:
    content = make_zip(tmp_path / "a.zip", [("cat/1.jpg", b"x" * 500), ("cat/2.jpg", b"y" * 500)]).read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[:700])
    refused(tmp_path / "cut.zip", out, "is truncated; fetch it again")
    (tmp_path / "bad.zip").write_bytes(content.replace(b"y" * 500, b"y" * 499 + b"z"))
    refused(tmp_path / "bad.zip", out, "is damaged .*CRC.*; fetch it again")


@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>404</title>", b"\x1f\x8b not gzip", bytes(300)])
def test_what_is_no_archive_is_told(tmp_path: Path, out: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    refused(tmp_path / "a.tar", out, r"is no archive, or is damaged|is truncated")


class FullDisk(io.FileIO):
    """Takes the first bytes of a file and has no room for the rest."""

    def write(self, content: Any) -> int:
        if self.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(bytes(content)[:300])


@pytest.fixture
def break_open(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    def set_open(create: Callable[..., Any]) -> None:
        real = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *a, **k: create(path, *a) if a[:1] == ("xb",) else real(path, *a, **k))

    return set_open


def test_a_full_disk_is_one_line(tmp_path: Path, out: Path, break_open: Any) -> None:
    break_open(lambda path, mode: FullDisk(path, "x"))
    with pytest.raises(UserError, match=rf"^{out}/cat/0.jpg: the disk is full; archives that are unpacked are kept, .* give --to"):
        run(make_tar(tmp_path / "a.tar", images()), out)


def test_a_read_only_folder_is_one_line(tmp_path: Path, out: Path, break_open: Any) -> None:
    def refuse(path: Path, mode: str) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    break_open(refuse)
    with pytest.raises(UserError, match=r"0.jpg: it cannot be written \(Read-only file system\); "):
        run(make_tar(tmp_path / "a.tar", images()), out)


def test_a_short_write_is_carried_on(tmp_path: Path, out: Path, break_open: Any) -> None:
    class Short(io.FileIO):
        def write(self, content: Any) -> int:
            return super().write(bytes(content)[:97])

    break_open(lambda path, mode: Short(path, "x"))
    run(make_tar(tmp_path / "a.tar", images(2)), out)
    assert files(out) == {"cat/0.jpg": bytes(700), "dog/0.jpg": bytes(700)}


def test_progress_is_told_in_bytes_and_stays_within_the_archive(tmp_path: Path, out: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", images(), "w:gz")
    told: list[tuple[int, int | None]] = []
    unpack(archive, out, PLACE, GENEROUS, tick=lambda done, total: told.append((done, total)))
    size = archive.stat().st_size
    assert len(told) == 4 and all(done <= size == total for done, total in told) and told[-1][0] == size


def test_one_file_of_an_archive_is_read_by_the_end_of_its_path(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", [(member("kit/data/truth.txt"), b"1 2"), (member("kit/other/truth.txt"), b"3")], "w:gz")
    assert read_file(archive, "other/truth.txt", most_bytes=10) == b"3"
    with pytest.raises(UserError, match=r"holds no data/meta\.mat; it is another archive"):
        read_file(archive, "data/meta.mat", most_bytes=10)
    with pytest.raises(UserError, match=r"kit/data/truth\.txt has 3 bytes, more than"):
        read_file(archive, "data/truth.txt", most_bytes=2)
