"""What `g2sd data verify` finds, with a real file of each kind."""

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data import verifying
from g2sd_deploy.data.encoding import Encoding
from g2sd_deploy.data.preparing import Options, prepare
from g2sd_deploy.data.sources import FolderSource
from g2sd_deploy.data.verifying import PROBLEMS, Verified, look_at, noted, verify
from g2sd_deploy.errors import UserError

RNG = np.random.default_rng(0)


def picture(width: int = 60, height: int = 50, mode: str = "RGB") -> Image.Image:
    small = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str, **saving: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that states a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(), "JPEG", exif=exif)


JPEG = encoded(picture(), "JPEG")
PNG = encoded(picture(), "PNG")
DEEP = Image.fromarray(RNG.integers(0, 65536, (20, 30)).astype(np.uint16))
FILES: dict[str, tuple[str, bytes]] = {
    "empty file": ("a.jpg", b""),
    "truncated": ("a.jpg", JPEG[: len(JPEG) // 2]),
    "not decodable": ("a.jpg", b"<!doctype html><title>404</title>"),
    "gigapixel": ("a.png", png_of_size(40_000, 40_000)),
    "floating point": ("a.tif", encoded(Image.fromarray(np.ones((20, 30), np.float32)), "TIFF")),
    "CMYK": ("a.jpg", encoded(picture(mode="CMYK"), "JPEG")),
    "wrong suffix": ("a.jpg", PNG),
    "very narrow": ("a.jpg", encoded(picture(2000, 10), "JPEG")),
    "16 bits": ("a.png", encoded(DEEP, "PNG")),
    "transparency": ("a.png", encoded(picture(mode="P"), "PNG", transparency=3)),
    "animated": ("a.gif", encoded(picture(), "GIF", save_all=True, append_images=[picture()])),
    "turned by EXIF": ("a.jpg", turned()),
}


@pytest.mark.parametrize("problem", FILES)
def test_a_file_of_each_kind_is_found_and_has_no_other_problem(problem: str) -> None:
    name, content = FILES[problem]
    assert [found for found, _ in look_at(content, name)] == [problem]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jpg", JPEG),
        ("a.JPEG", encoded(picture(mode="L"), "JPEG")),
        ("a.png", PNG),
        ("a.webp", encoded(picture(), "WEBP")),
        ("a.bmp", encoded(picture(), "BMP")),
        ("a.tif", encoded(picture(), "TIFF")),
        ("a.ppm", encoded(picture(), "PPM")),
        ("image 7", PNG),
    ],
)
def test_a_sound_file_has_no_problem(name: str, content: bytes) -> None:
    assert look_at(content, name) == []


def test_a_cut_is_found_wherever_it_is() -> None:
    for whole in (JPEG, PNG):
        for kept in range(1, len(whole) - 30, max(1, len(whole) // 40)):
            assert [found for found, _ in look_at(whole[:kept], "a")][:1] in (["truncated"], ["not decodable"])


def test_a_huge_image_is_decoded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert look_at(JPEG, "a.jpg") == [("huge", "60 x 50")]
    assert look_at(encoded(picture(100, 50), "JPEG"), "a.jpg") == [("gigapixel", "too many pixels: 5,000, and at most 4,000 are decoded")]


def test_every_problem_is_caused_by_a_test() -> None:
    """Those of files above, the others below."""
    others = {"empty class", "missing class", "damaged shard", "no image of a class", "huge", "in two splits", "not read"}
    assert set(PROBLEMS) == {*FILES, *others}


def make_source(root: Path) -> Path:
    for split in ("test", "train"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(10):
                (root / split / name / f"{i}.jpg").write_bytes(encoded(picture(), "JPEG"))
    return root


def verified(root: Path | str, kind: str = "folder", splits: tuple[str, ...] = ("test", "train"), *, workers: int = 1) -> Verified:
    return verify(kind, str(root), splits, workers=workers, tick=lambda *_: None)


def test_a_sound_folder_has_no_finding_and_is_counted_whole(tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    found = verify("folder", str(make_source(tmp_path)), ("test", "train"), workers=2, tick=lambda *of: ticks.append(of))
    assert (found.num, found.findings) == ({"test": 20, "train": 20}, [])
    assert ticks == [(16, 40), (20, 40), (36, 40), (40, 40)]


def test_findings_are_sorted_and_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    root = make_source(tmp_path)
    for i, (name, content) in enumerate(FILES.values()):
        (root / "train" / "dog" / f"bad{i:02}{Path(name).suffix}").write_bytes(content)
    (root / "train" / "dog" / "notes.txt").write_text("mine")
    (root / "train" / "dog" / ".hidden").write_text("mine")
    shutil.copy(root / "test" / "cat" / "3.jpg", root / "train" / "cat" / "copy.jpg")
    (root / "test" / "eel").mkdir()
    (root / "test" / "eel" / "readme.md").write_text("soon")
    found = verified(root)
    rank = list(PROBLEMS)
    assert [rank.index(finding.problem) for finding in found.findings] == sorted(rank.index(finding.problem) for finding in found.findings)
    here = [*FILES, "in two splits", "empty class", "missing class", "not read", "not read"]
    assert sorted(finding.problem for finding in found.findings) == sorted(here)
    by_problem = {finding.problem: finding for finding in found.findings}
    assert by_problem["in two splits"] == noted("in two splits", "train/cat/copy.jpg", "the same as test/cat/3.jpg")
    assert by_problem["empty class"] == noted("empty class", "test/eel", "1 files, none of them an image")
    assert by_problem["missing class"].name == "train/eel"
    assert (found.count("error"), found.count("warning"), found.count("note")) == (7, 4, 6)
    assert verified(root, workers=3) == found


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no split valid; correct --splits"):
        verified(make_source(tmp_path), splits=("train", "valid"))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    options = Options(Encoding(None, 95), True, 10, ("test", "train"))
    prepare(FolderSource(make_source(tmp_path / "pets")), "pets", tmp_path / "out", options, workers=1, max_bad=0, tick=lambda *_: None)
    return tmp_path / "out"


def test_sound_shards_have_no_finding(shards: Path) -> None:
    assert verified(shards, "shards") == Verified({"test": 20, "train": 20}, [])


def test_a_flipped_bit_in_a_shard_is_found_by_its_hash(shards: Path) -> None:
    content = bytearray((shards / "test-000001.tar").read_bytes())
    content[512 + 200] ^= 1  # within the first image's data
    (shards / "test-000001.tar").write_bytes(content)
    found = verified(shards, "shards")
    assert noted("damaged shard", "test-000001.tar", "not the manifest's SHA-256") in found.findings
    assert found.num == {"test": 20, "train": 20}


def test_shards_that_are_cut_or_gone_are_told_before_their_images(shards: Path) -> None:
    whole = (shards / "test-000001.tar").read_bytes()
    (shards / "test-000001.tar").write_bytes(whole[:3000])
    (shards / "train-000000.tar").unlink()
    assert verified(shards, "shards") == Verified(
        {"test": 0, "train": 0},
        [
            noted("damaged shard", "test-000001.tar", f"3000 bytes instead of {len(whole)}"),
            noted("damaged shard", "train-000000.tar", "missing"),
        ],
    )


def test_arrays_are_looked_at_too() -> None:
    found = verified("bundled:fashion-mnist", "idx")
    assert found.num == {"test": 5000, "train": 10000}
    assert {finding.problem for finding in found.findings} <= {"in two splits"}


def test_a_class_without_an_image_in_shards_is_a_warning() -> None:
    labels = np.array([0, 2, 2], dtype=np.int64)
    samples = verifying.look_at_labels({"test": FakeSamples(labels)}, ("cat", "dog", "eel"))  # type: ignore[dict-item]
    assert samples == [noted("no image of a class", "test: dog")] and samples[0].severity == "warning"


class FakeSamples:
    """Labels without images."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
