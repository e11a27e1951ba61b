"""The device prepares a photograph to the last bit as training and evaluation do, whatever kind of file it comes in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as torchvision
from torchvision.transforms.functional import InterpolationMode

from g2sd_deploy.data.decoding import fit_sample
from g2sd_deploy.data.pixels import open_sample
from g2sd_export.edge.preprocess import Preprocessing, load_image

COLOUR = Preprocessing(48, 54, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Preprocessing(28, 28, 1, (0.286,), (0.353,))
ROTATED = 6  # EXIF: the camera was held upright
ORIENTATION = 0x0112


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours, an edge and some noise, as a camera sees them."""
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows * 170 / height, columns * 170 / width, (rows + columns) * 170 / (height + width)], axis=-1)
    edge = 60 * (columns > rows)[..., None]
    return Image.fromarray((smooth + edge + np.random.default_rng(width).integers(0, 25, (height, width, 3))).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    return encoded(photo(90, 70), "JPEG", exif=exif)


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(photo(90, 70).convert("L")).astype(np.uint16) * 250 + 77)


FILES = {
    **{
        f"jpeg {w} x {h}": encoded(photo(w, h), "JPEG")
        for w, h in ((500, 375), (375, 500), (54, 54), (48, 61), (333, 57), (31, 30), (7, 5))
    },
    "jpeg without loss of colour": encoded(photo(120, 80), "JPEG", subsampling="4:4:4", quality=98),
    "jpeg 4:2:2": encoded(photo(121, 83), "JPEG", subsampling="4:2:2"),
    "progressive jpeg": encoded(photo(120, 80), "JPEG", progressive=True),
    "grey jpeg": encoded(photo(120, 80).convert("L"), "JPEG"),
    "cmyk jpeg": encoded(photo(120, 80).convert("CMYK"), "JPEG"),
    "rotated jpeg": rotated(),
    "png": encoded(photo(120, 80), "PNG"),
    "16-bit png": encoded(deep(), "PNG"),
    "translucent png": encoded(photo(120, 80).convert("RGBA"), "PNG"),
    "palette png": encoded(photo(120, 80).quantize(64), "PNG", transparency=3),
    "webp": encoded(photo(120, 80), "WEBP"),
    "16-bit tiff": encoded(deep(), "TIFF"),
}


@pytest.mark.parametrize("pre", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", FILES)
def test_the_pixels_are_those_of_evaluation_and_of_trainings_decoder(kind: str, pre: Preprocessing) -> None:
    device = load_image(FILES[kind], pre)
    np.testing.assert_array_equal(device, fit_sample(FILES[kind], pre))
    whole = open_sample(FILES[kind], pre.num_channels).decode()  # what training crops from
    image = Image.fromarray(whole[:, :, 0] if pre.num_channels == 1 else whole)
    wanted = torchvision.center_crop(torchvision.resize(image, [pre.resize_px], InterpolationMode.BICUBIC), [pre.image_px])
    np.testing.assert_array_equal(device, np.asarray(wanted).reshape(device.shape))


def test_a_photograph_that_a_camera_marked_as_rotated_stays_as_it_is_stored() -> None:
    upright = load_image(encoded(photo(90, 70), "JPEG"), COLOUR)
    np.testing.assert_array_equal(load_image(rotated(), COLOUR), upright)
    assert Image.open(io.BytesIO(rotated())).getexif()[ORIENTATION] == ROTATED
