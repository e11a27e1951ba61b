"""Corruptions against formulas written here, and the promises about determinism."""

import colorsys
import io
import itertools
import math
import subprocess
import sys
import zlib
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from g2sd_deploy.data.corruptions import CORRUPTION_NAMES, SEVERITIES, CorruptionName, corruption_from_name, corruption_note, severity_table
from g2sd_deploy.data.corruptions import api as corruptions
from g2sd_deploy.data.corruptions.api import corrupt
from g2sd_deploy.data.corruptions.blur import disk_kernel, shuffle_sources
from g2sd_deploy.data.corruptions.digital import affine_positions
from g2sd_deploy.data.corruptions.primitives import clipped_zoom, directed_blur
from g2sd_deploy.data.corruptions.severities import CIFAR_C, IMAGENET_C, TABLES, TINY_IMAGENET_C, Disk, Snow
from g2sd_deploy.data.corruptions.weather import plasma, snow
from g2sd_export.edge.errors import UserError

GOLDEN_IMPULSE = 0x703DD5B4
DRAWLESS = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
# Elastic and glass are left out: the published constants of some severities are milder than those of the one before.
GROWING = sorted(set(CORRUPTION_NAMES) - {"elastic_transform", "glass_blur"})


def pictures(num: int, image_px: int, channels: int) -> np.ndarray:
    """Textured pictures with edges, shades and a wide range of values; the same at every call."""
    random = np.random.default_rng(7)
    coarse = random.uniform(0, 255, (num, 7, 7, channels))
    smooth = ndimage.zoom(coarse, (1, image_px / 7, image_px / 7, 1), order=1)
    fine = random.normal(0, 12, smooth.shape)
    smooth[:, image_px // 3 :, : image_px // 2] *= 0.4
    return np.asarray(np.clip(smooth + fine, 0, 255), dtype=np.uint8)


def mean_change(images: np.ndarray, name: CorruptionName, severity: int) -> float:
    corrupted = corrupt(images, name, severity, keys=range(len(images)))
    return float(np.abs(corrupted.astype(float) - images).mean())


def test_the_tables_hold_every_corruption_at_every_severity() -> None:
    for table in TABLES:
        names = {field.name for field in fields(table)} - {"image_px", "elastic_edge"}
        assert names == set(CORRUPTION_NAMES)
        assert all(len(getattr(table, name)) == len(SEVERITIES) for name in names)


def test_the_nearest_published_table_is_chosen_by_ratio_and_reported() -> None:
    chosen = {px: severity_table(px).image_px for px in (16, 28, 32, 45, 46, 48, 64, 96, 119, 120, 128, 224, 384)}
    assert chosen == {16: 32, 28: 32, 32: 32, 45: 32, 46: 64, 48: 64, 64: 64, 96: 64, 119: 64, 120: 224, 128: 224, 224: 224, 384: 224}
    assert corruption_note(28) == "ImageNet-C-style (regenerated): CIFAR-10-C severity constants (32 px) on 28 px images, without frost"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTION_NAMES)
def test_every_corruption_keeps_the_shape_changes_the_picture_and_leaves_its_input_alone(name: CorruptionName, channels: int) -> None:
    images = pictures(3, 28, channels)
    before = images.copy()
    images.flags.writeable = False
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, keys=[5, 6, 7])
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == images.shape
        assert not np.array_equal(corrupted, images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTION_NAMES)
def test_an_image_is_corrupted_alike_in_any_order_batch_and_process_state(name: CorruptionName, monkeypatch: pytest.MonkeyPatch) -> None:
    images, keys = pictures(6, 28, 3), [11, 3, 500, 4, 0, 9]
    together = corrupt(images, name, 4, keys=keys)
    np.random.seed(1)
    order = [4, 2, 0, 5, 3, 1]
    assert np.array_equal(corrupt(images[order], name, 4, keys=[keys[i] for i in order]), together[order])
    alone = [corrupt(images[i : i + 1], name, 4, keys=keys[i : i + 1]) for i in range(6)]
    assert np.array_equal(np.concatenate(alone), together)
    monkeypatch.setattr(corruptions, "_CHUNK_VALUES", 2 * images[0].size)
    assert np.array_equal(corrupt(images, name, 4, keys=keys), together)


@pytest.mark.parametrize("name", CORRUPTION_NAMES)
def test_key_and_seed_change_the_draw_of_those_that_draw_and_only_of_those(name: CorruptionName) -> None:
    images = np.repeat(pictures(1, 28, 1), 2, axis=0)
    first, second = corrupt(images, name, 3, keys=[1, 2])
    reseeded = corrupt(images[:1], name, 3, keys=[1], seed=1)[0]
    assert np.array_equal(first, second) == (name in DRAWLESS)
    assert np.array_equal(first, reseeded) == (name in DRAWLESS)


def test_draws_stay_the_same_from_release_to_release() -> None:
    ramp = np.arange(28 * 28, dtype=np.uint16).astype(np.uint8).reshape(1, 28, 28, 1)
    assert zlib.crc32(corrupt(ramp, "impulse_noise", 3, keys=[42]).tobytes()) == GOLDEN_IMPULSE


@pytest.mark.parametrize("image_px", [28, 64])
@pytest.mark.parametrize("name", GROWING)
def test_a_higher_severity_changes_the_picture_more(name: CorruptionName, image_px: int) -> None:
    images = pictures(8, image_px, 3)
    changes = [mean_change(images, name, severity) for severity in SEVERITIES]
    assert all(later > 0.97 * earlier for earlier, later in itertools.pairwise(changes)), changes
    assert changes[-1] > 1.1 * changes[0], changes


@pytest.mark.parametrize("name", CORRUPTION_NAMES)
def test_full_size_photographs_are_corrupted_too(name: CorruptionName) -> None:
    images = pictures(1, 224, 3)
    assert mean_change(images, name, 1) > 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_blur_contrast_and_geometry_leave_a_flat_picture_as_it_is(value: int, channels: int) -> None:
    flat = np.full((2, 28, 28, channels), value, dtype=np.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform", "pixelate"):
        for severity in SEVERITIES:
            assert np.array_equal(corrupt(flat, corruption_from_name(name), severity, keys=[0, 1]), flat), (name, severity)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_pulls_each_channel_to_its_mean(severity: int) -> None:
    images = pictures(2, 28, 3)
    expected = np.empty(images.shape)
    for n in range(2):
        for channel in range(3):
            values = images[n, :, :, channel].astype(np.float64)
            expected[n, :, :, channel] = values.mean() + CIFAR_C.contrast[severity - 1] * (values - values.mean())
    got = corrupt(images, "contrast", severity, keys=[0, 1])
    assert np.array_equal(got, np.floor(expected + 1e-3))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_raises_v_of_hsv(severity: int) -> None:
    images = pictures(1, 28, 3)
    images[0, 0, :3] = [[0, 0, 0], [255, 255, 255], [0, 10, 0]]
    got = corrupt(images, "brightness", severity, keys=[0])
    for pixel, raised in zip(images.reshape(-1, 3)[:200], got.reshape(-1, 3)[:200], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255).tolist())
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1, value + CIFAR_C.brightness[severity - 1]))
        assert raised.tolist() == [math.floor(255 * part + 1e-3) for part in wanted]


def test_brightness_of_a_grey_picture_adds_to_the_value() -> None:
    images = pictures(2, 64, 1)
    assert np.array_equal(corrupt(images, "brightness", 2, keys=[0, 1]), np.minimum(images.astype(int) + 51, 255))


def test_pixelate_averages_boxes() -> None:
    images = pictures(1, 64, 1)
    got = corrupt(images, "pixelate", 5, keys=[0])[0, :, :, 0]  # scale 0.5: boxes of 2 x 2
    boxes = images[0, :, :, 0].astype(float).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(got - boxes.repeat(2, axis=0).repeat(2, axis=1)).max() <= 1
    assert np.array_equal(got[::2], got[1::2])
    assert np.array_equal(got[:, ::2], got[:, 1::2])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_jpeg_is_a_round_trip_at_the_published_quality(channels: int, mode: str) -> None:
    images = pictures(1, 32, channels)
    file = io.BytesIO()
    Image.fromarray(images[0].squeeze()).save(file, format="JPEG", quality=58)
    decoded = Image.open(file)
    assert decoded.mode == mode
    assert np.array_equal(corrupt(images, "jpeg_compression", 3, keys=[0])[0].squeeze(), np.asarray(decoded))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_published_spread(severity: int) -> None:
    images = np.full((40, 28, 28, 1), 128, dtype=np.uint8)
    noise = corrupt(images, "gaussian_noise", severity, keys=range(40)).astype(float) + 0.5 - 128  # truncation takes half a level
    assert noise.mean() == pytest.approx(0, abs=0.5)
    assert noise.std() == pytest.approx(255 * CIFAR_C.gaussian_noise[severity - 1], rel=0.02)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_has_the_variance_of_counted_photons(severity: int) -> None:
    images = np.full((40, 28, 28, 1), 102, dtype=np.uint8)  # 0.4
    shot = corrupt(images, "shot_noise", severity, keys=range(40)) / 255
    assert shot.mean() == pytest.approx(0.4, abs=0.004)
    assert shot.std() == pytest.approx(math.sqrt(0.4 / CIFAR_C.shot_noise[severity - 1]), rel=0.03)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_replaces_the_published_share_by_black_and_white_evenly(severity: int) -> None:
    images = np.full((60, 28, 28, 3), 99, dtype=np.uint8)
    noisy = corrupt(images, "impulse_noise", severity, keys=range(60))
    assert set(np.unique(noisy)) == {0, 99, 255}
    amount = CIFAR_C.impulse_noise[severity - 1]
    assert (noisy != 99).mean() == pytest.approx(amount, rel=0.1)
    assert (noisy == 255).mean() == pytest.approx(amount / 2, rel=0.15)


def test_defocus_is_the_mean_over_a_disk() -> None:
    images = pictures(1, 28, 1)
    sharp = np.pad(images[0, :, :, 0].astype(np.float64), 2, mode="reflect")
    blurred = np.zeros((28, 28))
    offsets = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # radius 1.5 holds the nine nearest pixels; alias 0.1 adds nothing
    for dy, dx in offsets:
        blurred += sharp[2 + dy : 30 + dy, 2 + dx : 30 + dx] / 9
    got = corrupt(images, "defocus_blur", 5, keys=[0])[0, :, :, 0]
    assert np.array_equal(got, np.floor(blurred + 1e-3))


def test_the_soft_disk_has_the_tails_of_its_gaussian() -> None:
    kernel = disk_kernel(Disk(0.3, 0.4))
    tail = math.exp(-1 / (2 * 0.4**2))
    line = np.array([tail, 1, tail]) / (1 + 2 * tail)
    assert kernel == pytest.approx(np.outer(line, line))


@pytest.mark.parametrize(("radius", "side", "blur_half"), [(6.0, 17, 1), (8.0, 17, 1), (10.0, 21, 2)])
def test_the_disk_is_blurred_on_the_published_grid_mirrored_at_its_rim(radius: float, side: int, blur_half: int) -> None:
    centre = side // 2
    disk = np.array([[float((row - centre) ** 2 + (col - centre) ** 2 <= radius**2) for col in range(side)] for row in range(side)])
    padded = np.pad(disk / disk.sum(), blur_half, mode="reflect")
    steps = range(-blur_half, blur_half + 1)
    taps = {(dy, dx): math.exp(-(dy * dy + dx * dx) / (2 * 0.5**2)) for dy in steps for dx in steps}
    soft = np.zeros((side, side))
    for (dy, dx), tap in taps.items():
        soft += tap / sum(taps.values()) * padded[blur_half + dy : blur_half + dy + side, blur_half + dx : blur_half + dx + side]
    kernel = disk_kernel(Disk(radius, 0.5))
    rim = (side - len(kernel)) // 2
    assert kernel == pytest.approx(soft[rim : side - rim, rim : side - rim])
    assert kernel.sum() == pytest.approx(soft.sum())


def test_glass_shuffle_shows_what_the_published_loop_shows() -> None:
    side, reach = 13, 2
    count = side - 2 * reach
    offsets = np.random.default_rng(3).integers(-reach, reach, size=(4, 2, count, count))
    got = shuffle_sources(offsets, side=side, max_delta=reach)
    for n in range(4):
        pixels = np.arange(side * side).reshape(side, side)
        for row in range(side - reach, reach, -1):
            for col in range(side - reach, reach, -1):
                dy, dx = offsets[n, :, row - reach - 1, col - reach - 1]
                pixels[row, col] = pixels[row + dy, col + dx]
        assert np.array_equal(got[n], pixels.ravel())


def test_motion_blur_is_a_one_sided_gaussian_along_its_angle() -> None:
    dot = np.zeros((3, 28, 28, 1), dtype=np.float32)
    dot[:, 14, 14] = 10_000
    flat, down, diagonal = directed_blur(dot, [0.0, -90.0, 45.0], radius=3, sigma=2.0)[..., 0]
    taps = np.exp(-(np.arange(7) ** 2) / 8)
    taps = np.rint(10_000 * taps / taps.sum())
    assert flat[14, 14:7:-1] == pytest.approx(taps, abs=1)
    assert down[14:21, 14] == pytest.approx(taps, abs=1)
    assert flat.sum() == down.sum() == pytest.approx(10_000, abs=4)
    assert diagonal[14, 14] == taps[0]
    assert diagonal[13, 13] >= taps[1]


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.13, 1.26, 2.25, 4.5])
@pytest.mark.parametrize("image_px", [28, 32, 64])
def test_clipped_zoom_equals_cutting_enlarging_and_trimming(image_px: int, factor: float) -> None:
    images = pictures(2, image_px, 3).astype(np.float32)
    cut = math.ceil(image_px / factor)
    top = (image_px - cut) // 2
    big = ndimage.zoom(images[:, top : top + cut, top : top + cut].astype(np.float64), (1, factor, factor, 1), order=1)
    trim = (big.shape[1] - image_px) // 2
    expected = big[:, trim : trim + image_px, trim : trim + image_px]
    assert clipped_zoom(images, factor) == pytest.approx(expected, abs=1e-2)


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlargements() -> None:
    images = pictures(1, 32, 1).astype(np.float32)
    stack = [images.astype(float)] + [clipped_zoom(images, 1 + step / 100).astype(float) for step in range(7)]  # 1.06 is included
    got = corrupt(images.astype(np.uint8), "zoom_blur", 1, keys=[0])
    assert np.abs(got - np.floor(np.mean(stack, axis=0))).max() <= 1


def plasma_by_loops(draws: list[float], side: int, decay: float) -> np.ndarray:
    """Diamond-square on a torus, point by point: all centres of an octave, then its horizontal, then its vertical edges."""
    heights, numbers, step, wibble = np.zeros((side, side)), iter(draws), side, 100.0
    while step >= 2:
        half = step // 2
        for row_shift, col_shift, neighbours in (
            (half, half, [(-half, -half), (-half, half), (half, -half), (half, half)]),
            (0, half, [(0, -half), (0, half), (-half, 0), (half, 0)]),
            (half, 0, [(0, -half), (0, half), (-half, 0), (half, 0)]),
        ):
            for row in range(row_shift, side, step):
                for col in range(col_shift, side, step):
                    around = [heights[(row + dy) % side, (col + dx) % side] for dy, dx in neighbours]
                    heights[row, col] = sum(around) / 4 + wibble * wibble * next(numbers)
        step, wibble = half, wibble / decay
    return np.asarray((heights - heights.min()) / (heights.max() - heights.min()))


@pytest.mark.parametrize(("side", "decay"), [(32, 3.0), (16, 1.75)])
def test_plasma_is_diamond_square_on_a_torus(side: int, decay: float) -> None:
    maps = plasma([np.random.default_rng(key) for key in range(2)], side=side, decay=decay)
    for key in range(2):
        draws = np.random.default_rng(key).uniform(-1, 1, side * side).tolist()
        assert maps[key] == pytest.approx(plasma_by_loops(draws, side, decay), abs=1e-12)


def test_fog_keeps_the_brightest_value_as_the_bound_and_leaves_black_alone() -> None:
    images = pictures(4, 28, 3) // 2
    for severity in SEVERITIES:
        foggy = corrupt(images, "fog", severity, keys=range(4))
        assert (foggy.max(axis=(1, 2, 3)) <= images.max(axis=(1, 2, 3))).all()
        assert foggy.std() < images.std()
    black = np.zeros((1, 28, 28, 1), dtype=np.uint8)
    assert np.array_equal(corrupt(black, "fog", 5, keys=[0]), black)


def test_snow_never_darkens_and_without_flakes_only_whitens() -> None:
    images = pictures(4, 28, 3)
    for severity in SEVERITIES:
        assert (corrupt(images, "snow", severity, keys=range(4)).astype(int) >= images.astype(int) - 1).all()
    clear = snow(images, [np.random.default_rng(0)] * 4, constants=Snow(0.0, 0.01, 1.0, 0.9, 8, 3.0, 0.75))
    levels = images.astype(np.float64)
    luma = levels[..., :1] * 0.299 + levels[..., 1:2] * 0.587 + levels[..., 2:] * 0.114
    falling = snow(np.zeros_like(images), [np.random.default_rng(key) for key in range(4)], constants=Snow(0.1, 0.3, 1.0, 0.5, 8, 3.0, 1.0))
    assert falling.max() > 50
    assert np.array_equal(falling, falling[:, ::-1, ::-1])  # a layer and the same layer turned by half a circle
    assert clear == pytest.approx(0.75 * levels + 0.25 * np.maximum(levels, 1.5 * luma + 127.5), abs=1e-2)


def test_affine_reads_each_moved_corner_at_its_old_place() -> None:
    grid = np.mgrid[0:28, 0:28].astype(np.float64)
    assert affine_positions(grid, np.zeros((3, 2))) == pytest.approx(grid)
    shift = affine_positions(grid, np.full((3, 2), 2.0))
    assert shift == pytest.approx(grid - 2)
    moved = affine_positions(grid, np.array([[1.0, -2.0], [0.0, 0.0], [0.0, 0.0]]))  # corner (23, 23) goes to (24, 21)
    assert moved[:, 24, 21] == pytest.approx([23, 23])
    assert moved[:, 5, 23] == pytest.approx([5, 23])
    assert moved[:, 5, 5] == pytest.approx([5, 5])


def test_a_grey_picture_and_its_copy_in_three_channels_are_blurred_alike() -> None:
    grey = pictures(2, 32, 1)
    for known in sorted(set(CORRUPTION_NAMES) - {"jpeg_compression", "snow", "gaussian_noise", "shot_noise", "impulse_noise"}):
        colour = corrupt(grey.repeat(3, axis=3), known, 4, keys=[0, 1])
        assert np.array_equal(colour, corrupt(grey, known, 4, keys=[0, 1]).repeat(3, axis=3)), known


def test_an_empty_batch_stays_empty() -> None:
    assert corrupt(np.zeros((0, 28, 28, 1), dtype=np.uint8), "fog", 1, keys=[]).shape == (0, 28, 28, 1)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert corruption_from_name("fog") == "fog"
    with pytest.raises(UserError, match="Unknown corruption 'gausian_noise': did you mean 'gaussian_noise'"):
        corruption_from_name("gausian_noise")
    with pytest.raises(UserError, match="'frost' is not available: it needs the picture files"):
        corruption_from_name("frost")


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_a_severity_outside_one_to_five_is_refused(severity: int) -> None:
    with pytest.raises(ValueError, match=f"severity is {severity}, wanted a whole number from 1 to 5"):
        corrupt(pictures(1, 28, 1), "fog", severity, keys=[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 28, 28, 1), dtype=np.float32), "dtype float32, wanted uint8"),
        (np.zeros((28, 28, 1), dtype=np.uint8), r"shape \(28, 28, 1\), wanted \[N,H,W,C\]"),
        (np.zeros((1, 28, 30, 1), dtype=np.uint8), "with H = W"),
        (np.zeros((1, 28, 28, 4), dtype=np.uint8), "C = 1 or 3"),
        (np.zeros((2, 28, 28, 1), dtype=np.uint8), "1 keys for 2 images"),
    ],
)
def test_images_of_another_kind_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrupt(images, "contrast", 1, keys=[0])


def test_images_too_small_for_the_constants_name_the_setting() -> None:
    with pytest.raises(UserError, match=r"at least 16 px, these have 12 px: raise data\.image_px"):
        corrupt(np.zeros((1, 12, 12, 1), dtype=np.uint8), "contrast", 1, keys=[0])


def test_the_names_load_without_numpy_and_scipy() -> None:
    code = "import sys, g2sd_deploy.data.corruptions; print([m for m in ('numpy', 'scipy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_published_constants_are_those_of_the_scripts() -> None:
    assert IMAGENET_C.shot_noise == (60, 25, 12, 5, 3)
    assert TINY_IMAGENET_C.jpeg_compression == (65, 58, 50, 40, 25)
    assert IMAGENET_C.elastic_edge * 224 == pytest.approx(244)
