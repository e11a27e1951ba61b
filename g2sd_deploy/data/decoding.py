"""Samples decoded to one size, by several threads, in order, in memory that does not grow with their number."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from g2sd_deploy.data.encoding import open_image, reason_of
from g2sd_deploy.data.images import BadImage, ImageSet, Samples, Skipped
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import DECODE_ERRORS, Preprocessing, fit_image
from g2sd_export.edge.runner import available_cpus

Tick = Callable[[int, int], None]
"""Called with the images that are done and those wanted."""

_RUN = 32
"""Images that a thread takes at a time: small ones cost less than handing them over."""


def fit_sample(stored: bytes | UInt8[np.ndarray, "H W C"], fit: Preprocessing) -> UInt8[np.ndarray, "side side channels"]:
    """Decode one image and cut it to the size that `fit` asks for, as a test image is.

    Raises:
        BadImage: It cannot be decoded.
    """
    return fit_to_all(stored, (fit,))[0]


def fit_to_all(
    stored: bytes | UInt8[np.ndarray, "H W C"], fits: Sequence[Preprocessing], *, as_stored: bool = False
) -> list[UInt8[np.ndarray, "side side channels"]]:
    """Decode one image once and cut it to several sizes.

    Args:
        stored: An image file, or decoded pixels.
        fits: The sizes.
        as_stored: Only crop: the image was resized when it was stored.

    Raises:
        BadImage: It cannot be decoded, or is too small to be cropped.
    """
    try:
        source = open_image(stored) if isinstance(stored, bytes) else stored
        return [_fit(source, fit, as_stored) for fit in fits]
    except UserError as error:
        raise BadImage(str(error)) from error
    except (*DECODE_ERRORS, BadImage) as error:
        reason = str(error) if isinstance(error, BadImage) else reason_of(error)
        raise BadImage(f"cannot be decoded as an image ({reason}); replace or remove the file") from error


def _fit(source: Image.Image | UInt8[np.ndarray, "H W C"], fit: Preprocessing, as_stored: bool) -> UInt8[np.ndarray, "side side channels"]:
    if isinstance(source, np.ndarray):
        if source.shape == (fit.image_px, fit.image_px, fit.num_channels) and fit.resize_px == fit.image_px:
            return source
        source = Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
    if as_stored and min(source.size) < fit.image_px:
        raise UserError(f"is stored with {source.size[0]} x {source.size[1]} pixels and not resized, but the model wants {fit.image_px}")
    return fit_image(source, replace(fit, resize_px=min(source.size)) if as_stored else fit)


def decoded(samples: Samples, fit: Preprocessing) -> Iterator[UInt8[np.ndarray, "side side channels"] | Skipped]:
    """Every image in order, cut to one size, or why it cannot be.

    Raises:
        UserError: The place where the images lie cannot be read.
    """
    threads = min(32, available_cpus())
    starts = iter(range(0, len(samples), _RUN))
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[np.ndarray | Skipped]]] = deque()
        try:
            for start in starts:
                waiting.append(pool.submit(_decode_run, samples, range(start, min(start + _RUN, len(samples))), fit))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_run(samples: Samples, indices: range, fit: Preprocessing) -> list[np.ndarray | Skipped]:
    return [_decode(samples, index, fit) for index in indices]


def _decode(samples: Samples, index: int, fit: Preprocessing) -> np.ndarray | Skipped:
    try:
        return fit_sample(samples.read(index), fit)
    except BadImage as bad:
        return Skipped(index, samples.name(index), str(bad))


def decode_set(samples: Samples, fit: Preprocessing, tick: Tick) -> ImageSet:
    """All images of one size in memory.

    Raises:
        UserError: An image cannot be decoded; the message names it.
    """
    images = np.empty((len(samples), fit.image_px, fit.image_px, fit.num_channels), np.uint8)
    for i, image in enumerate(decoded(samples, fit)):
        if isinstance(image, Skipped):
            raise UserError(f"{image.name}: {image.reason}")
        images[i] = image
        tick(i + 1, len(samples))
    return ImageSet(images, np.asarray(samples.labels))
