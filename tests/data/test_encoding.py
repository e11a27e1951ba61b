"""From a stored image to the bytes of a prepared one."""

import io

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.encoding import Encoding, encode_image
from g2sd_deploy.data.images import BadImage


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth colours, so that a JPEG is close to it."""
    return Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, short_side: int | None = 32, **saving: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return Image.open(io.BytesIO(encode_image(buffer.getvalue(), Encoding(short_side, 95)).data))


def test_metadata_is_dropped_and_orientation_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    image = picture(np.random.default_rng(0), 80, 64)
    made = encode(image, "JPEG", exif=exif, comment=b"private", icc_profile=b"profile", quality=95)
    assert made.size == (40, 32)
    assert not {"exif", "comment", "icc_profile"} & made.info.keys()


@pytest.mark.parametrize(
    ("mode", "kind", "stored"),
    [("L", "JPEG", "L"), ("1", "PNG", "L"), ("LA", "PNG", "L"), ("P", "PNG", "RGB"), ("RGBA", "PNG", "RGB"), ("CMYK", "JPEG", "RGB")],
)
def test_every_kind_of_pixel_becomes_grey_or_rgb(mode: str, kind: str, stored: str) -> None:
    made = encode(picture(np.random.default_rng(0), 80, 64).convert(mode), kind)
    assert (made.mode, made.format, made.size) == (stored, "JPEG", (40, 32))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    made = encode(Image.fromarray(np.full((64, 64), 128 * 257, np.uint16)), "PNG")
    assert made.mode == "L" and np.abs(np.asarray(made, np.int16) - 128).max() <= 1


def test_pixels_that_fit_are_stored_without_loss() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    made = encode_image(grey, Encoding(32, 95))
    assert made.suffix == "png" and np.array_equal(np.asarray(Image.open(io.BytesIO(made.data))), grey[..., 0])
    assert encode_image(np.zeros((64, 64, 3), np.uint8), Encoding(32, 95)).suffix == "jpg"


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xd8\xff\xe0half"])
def test_what_is_no_image_is_bad(data: bytes) -> None:
    with pytest.raises(BadImage):
        encode_image(data, Encoding(None, 95))
