"""Decoding and cropping: what torchvision and Pillow make of the same file and box, up to rounding."""

import io
import warnings
from typing import Literal

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, resized_crop

from g2sd_deploy.data import pixels as module
from g2sd_deploy.data.augment import NUM_CROP_DRAWS, crop_boxes
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.data.pixels import crop_sample
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import AugmentSettings
from g2sd_export.edge.preprocess import convert_image

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth colours under noise: compresses like a photograph, and shows any pixel that is off."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 90, width))[:, :, None] * rng.random(channels)
    return (slope + rng.integers(0, 60, (height, width, channels))).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def by_torchvision(data: bytes, draws: np.ndarray, augment: AugmentSettings, image_px: int, mode: Literal["L", "RGB"]) -> np.ndarray:
    image = convert_image(Image.open(io.BytesIO(data)), mode)
    top, left, height, width = crop_boxes(draws[None], augment, (image.height, image.width))[0].tolist()
    image = resized_crop(image, top, left, height, width, [image_px, image_px], InterpolationMode(augment.interpolation))
    image = hflip(image) if augment.flip and draws[4] < 0.5 else image
    return np.asarray(image).reshape(image_px, image_px, -1)


PHOTO = Image.fromarray(noise(93, 121))
GREY = Image.fromarray(noise(93, 121, 1)[:, :, 0])
DEEP = Image.fromarray(noise(50, 61, 1)[:, :, 0].astype(np.uint16) * 257)
CLEAR = Image.fromarray(noise(60, 50, 4))
PALETTE = PHOTO.quantize(32)
FILES = {
    "jpeg_420": encoded(PHOTO, "JPEG", subsampling="4:2:0"),
    "jpeg_422": encoded(PHOTO, "JPEG", subsampling="4:2:2"),
    "jpeg_444": encoded(PHOTO, "JPEG", subsampling="4:4:4", quality=97),
    "jpeg_progressive": encoded(PHOTO, "JPEG", progressive=True),
    "jpeg_restarts": encoded(PHOTO, "JPEG", restart_marker_rows=1),
    "jpeg_rgb": encoded(PHOTO, "JPEG", keep_rgb=True),
    "jpeg_grey": encoded(GREY, "JPEG"),
    "jpeg_cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "png_rgb": encoded(PHOTO, "PNG"),
    "png_grey": encoded(GREY, "PNG"),
    "png_16_bit": encoded(DEEP, "PNG"),
    "png_alpha": encoded(CLEAR, "PNG"),
    "png_palette": encoded(PALETTE, "PNG", transparency=3),
    "png_bilevel": encoded(GREY.convert("1"), "PNG"),
    "gif": encoded(PALETTE, "GIF"),
    "webp": encoded(PHOTO, "WEBP", lossless=True),
    "bmp": encoded(PHOTO, "BMP"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(("interpolation", "channels"), [("bilinear", 3), ("bicubic", 3), ("bicubic", 1)])
def test_a_crop_is_that_of_torchvision_on_a_pillow_image(
    kind: str, interpolation: Literal["bilinear", "bicubic"], channels: Literal[1, 3]
) -> None:
    augment = AugmentSettings(crop_scale=(0.05, 1.0), interpolation=interpolation)
    for draws in uniform(3, "crop", 0, np.arange(12), NUM_CROP_DRAWS):
        expected = by_torchvision(FILES[kind], draws, augment, 48, "RGB" if channels == 3 else "L")
        got = crop_sample(FILES[kind], draws, augment, 48, channels)
        assert got.dtype == np.uint8
        assert off(got, expected) < (5.0 if kind == "png_bilevel" else 0.5)  # black beside white is cut off in either order


def off(one: np.ndarray, two: np.ndarray) -> float:
    """Mean difference in 8-bit levels; single pixels of pure noise may differ more, where the order of the axes decides what is cut off."""
    return float(np.abs(one.astype(int) - two.astype(int)).mean())


def test_the_fast_path_takes_every_jpeg_but_cmyk_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []
    by_hand = module._open_by_pillow
    monkeypatch.setattr(module, "_open_by_pillow", lambda data, mode: taken.append(data) or by_hand(data, mode))
    for data in FILES.values():
        module.open_sample(data, 3)
    by_pillow = {kind for kind, data in FILES.items() if data in taken}
    assert by_pillow == {kind for kind in FILES if not kind.startswith("jpeg")} | {"jpeg_cmyk"}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_is_resized_as_pillow_does_it(interpolation: Literal["bilinear", "bicubic"], channels: int) -> None:
    """Both directions on both axes, tall, wide and tiny images, equal sides, read-only and oddly ordered memory."""
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 90), (90, 1), (40, 40), (41, 40), (300, 20), (97, 68), (20, 300), *rng.integers(1, 130, (60, 2)).tolist()]
    augment = AugmentSettings(interpolation=interpolation)
    for height, width in sizes:
        plain = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        picture = Image.fromarray(plain[:, :, 0] if channels == 1 else plain).resize((40, 40), FILTERS[interpolation])
        expected = np.asarray(picture).reshape(40, 40, channels)
        for stored in (plain, np.asfortranarray(plain), np.frombuffer(plain.tobytes(), np.uint8).reshape(plain.shape)):
            for mirrored in (False, True):
                got = module.cut(module.open_sample(stored, channels), np.array([0, 0, height, width]), augment, 40, mirrored=mirrored)
                assert off(got, expected[:, ::-1] if mirrored else expected) < 0.5, (height, width)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_of_a_smooth_picture_no_level_is_off_by_more_than_two(interpolation: Literal["bilinear", "bicubic"]) -> None:
    augment = AugmentSettings(interpolation=interpolation)
    for seed, draws in enumerate(uniform(3, "crop", 0, np.arange(30), NUM_CROP_DRAWS)):
        picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((160, 120))
        data = encoded(picture, "PNG")
        ours, theirs = crop_sample(data, draws, augment, 48, 3), by_torchvision(data, draws, augment, 48, "RGB")
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2


def test_a_part_is_resized_without_a_look_at_its_surroundings() -> None:
    image = noise(80, 90)
    bicubic = AugmentSettings(interpolation="bicubic")
    inside = module.cut(module.open_sample(image, 3), np.array([11, 7, 50, 73]), bicubic, 32, mirrored=False)
    alone = module.cut(module.open_sample(image[11:61, 7:80], 3), np.array([0, 0, 50, 73]), bicubic, 32, mirrored=False)
    assert np.array_equal(inside, alone)


def test_stored_pixels_are_cropped_like_the_file_they_came_from() -> None:
    augment, draws = AugmentSettings(), uniform(0, "crop", 0, np.arange(1), NUM_CROP_DRAWS)[0]
    expected = crop_sample(FILES["png_rgb"], draws, augment, 40, 3)
    assert np.array_equal(crop_sample(np.asarray(PHOTO), draws, augment, 40, 3), expected)
    grey = crop_sample(FILES["png_grey"], draws, augment, 40, 3)
    assert np.array_equal(crop_sample(np.asarray(GREY)[:, :, None], draws, augment, 40, 3), grey)


def test_a_crop_outlives_the_next_image() -> None:
    augment, (first, second) = AugmentSettings(flip=False), uniform(0, "crop", 0, np.arange(2), NUM_CROP_DRAWS)
    kept = crop_sample(FILES["jpeg_420"], first, augment, 40, 3)
    before = kept.copy()
    crop_sample(FILES["jpeg_444"], second, augment, 40, 3)
    assert np.array_equal(kept, before)


def test_no_flip_is_made_where_none_is_asked_for() -> None:
    draws = np.full(NUM_CROP_DRAWS, 0.1)
    flipped, plain = (crop_sample(FILES["png_rgb"], draws, AugmentSettings(flip=flip), 40, 3) for flip in (True, False))
    assert np.array_equal(flipped, plain[:, ::-1])
    assert not np.array_equal(flipped, plain)


def test_a_jpeg_with_a_fault_that_pillow_forgives_is_used_as_pillow_reads_it() -> None:
    marker = FILES["jpeg_restarts"].index(b"\xff\xd2")
    data = FILES["jpeg_restarts"][: marker - 3] + b"\x00\x11" + FILES["jpeg_restarts"][marker - 1 :]
    with pytest.raises(ValueError, match=r"."):
        simplejpeg.decode_jpeg(data)
    draws, augment = uniform(0, "crop", 0, np.arange(1), NUM_CROP_DRAWS)[0], AugmentSettings()
    assert off(crop_sample(data, draws, augment, 40, 3), by_torchvision(data, draws, augment, 40, "RGB")) < 0.5


def float_tiff() -> bytes:
    return encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image at all", "cannot be decoded"),
        (FILES["jpeg_420"][: len(FILES["jpeg_420"]) // 2], "truncated"),
        (FILES["jpeg_420"][:40], "cannot be decoded"),
        (FILES["jpeg_cmyk"][: len(FILES["jpeg_cmyk"]) // 2], "truncated"),
        (FILES["png_rgb"][: len(FILES["png_rgb"]) // 2], "truncated"),
        (FILES["webp"][:60], "cannot be decoded"),
        (float_tiff(), "floating-point pixels"),
    ],
)
def test_an_image_that_cannot_be_used_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        crop_sample(data, np.full(NUM_CROP_DRAWS, 0.3), AugmentSettings(), 32, 3)


@pytest.mark.parametrize("kind", ["jpeg_420", "png_rgb"])
def test_a_gigapixel_image_is_refused_and_a_merely_large_one_is_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws, num_pixels = np.full(NUM_CROP_DRAWS, 0.3), 93 * 121
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", num_pixels // 2 - 1)
    with pytest.raises(BadImage, match=r"against decompression bombs"):
        crop_sample(FILES[kind], draws, AugmentSettings(), 32, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", num_pixels - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crop_sample(FILES[kind], draws, AugmentSettings(), 32, 3)  # Pillow alone would warn here


def test_boxes_of_images_of_many_sizes_are_those_of_each_by_itself() -> None:
    draws = uniform(0, "crop", 0, np.arange(40), NUM_CROP_DRAWS)
    sizes = np.random.default_rng(0).integers(1, 300, (40, 2))
    augment = AugmentSettings(crop_scale=(0.5, 1.0))  # narrow images fit none of ten shapes
    boxes = crop_boxes(draws, augment, sizes)
    for row, size, box in zip(draws, sizes, boxes, strict=True):
        assert np.array_equal(crop_boxes(row[None], augment, (int(size[0]), int(size[1])))[0], box)
