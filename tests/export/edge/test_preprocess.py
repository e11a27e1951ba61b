"""Every kind of image file becomes the same input that training saw, or is refused by name."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as torchvision
from torchvision.transforms.functional import InterpolationMode

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing, fit_image, load_image, normalise

GREY = Preprocessing(image_px=28, resize_px=28, num_channels=1, mean=(0.286,), std=(0.353,))
COLOUR = Preprocessing(image_px=24, resize_px=32, num_channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours with some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(7).integers(0, 40, (height, width, 3))
    channels = (rows * 200 / height, columns * 200 / width, (rows + columns) * 200 / (height + width))
    return Image.fromarray((np.stack(channels, axis=-1) + noise).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (40, 24), (33, 57), (101, 64), (500, 333), (9, 7)])
@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear"])
def test_resize_and_crop_equal_those_of_torchvision(size: tuple[int, int], filter_name: str) -> None:
    image = photo(*size)
    pre = dataclasses.replace(COLOUR, interpolation=filter_name)  # type: ignore[arg-type]
    resized = torchvision.resize(image, [pre.resize_px], InterpolationMode(filter_name))
    wanted = np.asarray(torchvision.center_crop(resized, [pre.image_px]))
    np.testing.assert_array_equal(fit_image(image, pre), wanted)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels)), GREY), pixels[:, :, None])


def test_a_palette_image_equals_the_colours_it_stands_for() -> None:
    image = photo(32, 32).quantize(16)
    np.testing.assert_array_equal(load_image(encoded(image), COLOUR), load_image(encoded(image.convert("RGB")), COLOUR))


def test_a_palette_with_transparency_loads_without_a_warning() -> None:
    image = photo(32, 32).quantize(16)
    got = load_image(encoded(image, transparency=bytes(range(16))), COLOUR)
    np.testing.assert_array_equal(got, load_image(encoded(image), COLOUR))


def test_an_alpha_channel_is_dropped() -> None:
    image = photo(32, 32)
    translucent = image.copy()
    translucent.putalpha(Image.linear_gradient("L").resize((32, 32)))
    np.testing.assert_array_equal(load_image(encoded(translucent), COLOUR), load_image(encoded(image), COLOUR))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) * 83  # 0 .. 64989
    got = load_image(encoded(Image.fromarray(pixels)), GREY)[:, :, 0]
    np.testing.assert_array_equal(got, np.rint(pixels.astype(np.float64) / 257))


def test_eight_bits_stored_as_sixteen_come_back_unchanged() -> None:
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) % 256
    got = load_image(encoded(Image.fromarray(pixels * np.uint16(257))), GREY)[:, :, 0]
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("pre", [GREY, COLOUR], ids=["grey", "colour"])
def test_every_mode_gives_the_input_size(mode: str, pre: Preprocessing) -> None:
    image = photo(50, 40)
    image = Image.fromarray(np.asarray(image.convert("L")) * np.uint16(257)) if mode == "I;16" else image.convert(mode)
    got = load_image(encoded(image, "TIFF"), pre)
    assert got.shape == (pre.image_px, pre.image_px, pre.num_channels) and got.dtype == np.uint8
    assert got.std() > 5


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(UserError, match="floating-point pixels have no agreed range"):
        load_image(encoded(Image.fromarray(np.ones((28, 28), np.float32)), "TIFF"), GREY)


def test_an_extremely_narrow_image_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(UserError, match="1 x 60000 pixels is too narrow"):
        fit_image(Image.new("L", (1, 60_000)), dataclasses.replace(GREY, image_px=224, resize_px=224))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"cannot be decoded as an image .*bomb"):
        load_image(encoded(photo(32, 32)), GREY)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_a_truncated_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    whole = encoded(photo(64, 64), kind)
    for share in (0.02, 0.3, 0.7):
        path = tmp_path / f"cut-{share}.img"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=f"cut-{share}.img: cannot be decoded as an image"):
            load_image(path, GREY)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow remarks on damaged metadata
def test_a_damaged_file_is_either_decoded_or_refused_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"):
        whole = np.frombuffer(encoded(photo(20, 20), kind), dtype=np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
            try:
                assert load_image(damaged.tobytes(), GREY).shape == (28, 28, 1)
            except UserError as error:
                assert "\n" not in str(error)


def test_a_missing_file_and_text_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.png: no such image file"):
        load_image(tmp_path / "absent.png", GREY)
    (tmp_path / "notes.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"notes.jpg: cannot be decoded as an image"):
        load_image(tmp_path / "notes.jpg", GREY)


def test_normalise_equals_the_formula_in_float64() -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    got = normalise(images, COLOUR)
    wanted = np.empty((3, 3, 24, 24))
    for channel in range(3):
        wanted[:, channel] = (images[..., channel] / 255.0 - COLOUR.mean[channel]) / COLOUR.std[channel]
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert got.dtype == np.float32 and got.flags.c_contiguous


@pytest.mark.parametrize("shape", [(28, 28, 1), (2, 1, 28, 28), (2, 28, 28, 3)])
def test_normalise_refuses_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"wanted uint8 \[batch, 28, 28, 1\]"):
        normalise(np.zeros(shape, np.uint8), GREY)


def test_normalise_refuses_pixels_that_are_already_floats() -> None:
    floats: Any = np.zeros((2, 28, 28, 1), np.float32)
    with pytest.raises((ValueError, TypeError)):  # TypeError when the run also executes the annotations
        normalise(floats, GREY)


@pytest.mark.parametrize("pre", [GREY, COLOUR])
def test_preprocessing_survives_json(pre: Preprocessing) -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_px", 0, "image_px is 0; it must be at least 1"),
        ("image_px", 28.0, "image_px is 28.0; it must be a whole number"),
        ("resize_px", 20, r"resize_px is 20; it must be at least image_px \(28\)"),
        ("num_channels", 4, r"num_channels is 4; it must be 1 \(grey\) or 3 \(RGB\)"),
        ("mean", [0.1, 0.2], r"mean is \[0.1, 0.2\]; it must hold 1 finite numbers"),
        ("mean", [float("nan")], "mean is .*finite"),
        ("mean", 0.1, "mean is 0.1; it must be a list of numbers"),
        ("std", [0.0], r"std is \[0.0\]; every value must be above 0"),
        ("interpolation", "nearest", "interpolation is 'nearest'; it must be bicubic or bilinear"),
        ("men", 1, "missing or unknown keys men"),
    ],
)
def test_preprocessing_refuses_bad_values(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing.from_dict(GREY.to_dict() | {key: value})
