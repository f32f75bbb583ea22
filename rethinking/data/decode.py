"""Encoded images on the host: decoded, cut to a box and resized to what the network sees.

As TensorFlow's Inception has it (tensorflow/models, inception/image_processing.py), with these differences:
- Boxes and resizing are OpenCV's. Its pixels have their centres half a pixel inside, where TensorFlow 1 took the upper
  left corner: a shift by less than half a pixel.
- What is resized is rounded to bytes and, where bicubic interpolation overshoots, cut off at 0 and 255.
- A random box so large that half, a quarter or an eighth of its sides still are the size asked for is cut from the
  image decoded at that scale, to that scale's pixels: faster, and smoother. TensorFlow always decodes all pixels.
- The resizing method is drawn for each image; TensorFlow goes by the number of the thread.

JPEG is decoded by simplejpeg (libjpeg-turbo). Pillow decodes whatever that refuses, such as PNG, and has the last word
on what cannot be decoded.
"""

import contextlib
import io
import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

AREA, ASPECT, ATTEMPTS = (0.05, 1.0), (0.75, 1.33), 100
COVERED = (
    0.1  # of the object, which is the whole image: so no box has less than a tenth of the area
)
METHODS = (cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_AREA)

cv2.setNumThreads(0)  # One thread per image: parallel are the images.


class DecodeError(Exception):
    """Bytes that are no image, or only a part of one."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def central_view(encoded: bytes, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle 87.5% of each side, bilinearly resized to `size` x `size` pixels. Raises DecodeError."""
    image = decode(encoded)
    return resize(cut(image, central_box(*image.shape[:2])), size, cv2.INTER_LINEAR)


def random_view(encoded: bytes, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """A random box, resized to `size` x `size` pixels by one of four methods, likewise random. Raises DecodeError."""
    box = random_box(*shape(encoded), rng)
    method = METHODS[rng.integers(len(METHODS))]
    shrink = max(by for by in (1, 2, 4, 8) if by == 1 or min(box.height, box.width) >= by * size)
    shrunk = Box(*(side // shrink for side in box))
    return resize(cut(decode(encoded, shrink), shrunk), size, method)


def central_box(height: int, width: int) -> Box:
    """All but a sixteenth of the image at every edge: TensorFlow's central_crop with the fraction 0.875."""
    top, left = height // 16, width // 16
    return Box(top, left, height - 2 * top, width - 2 * left)


def random_box(height: int, width: int, rng: np.random.Generator) -> Box:
    """TensorFlow's sample_distorted_bounding_box with Inception's settings, for images without annotated objects.

    The ratio width / height is uniform in [0.75, 1.33]; given that, the height is uniform between what gives 5% of the
    image's area and the most that fits; the place is uniform (but, as there, the last row and column are never
    reached unless the box is as large as the image). Boxes that cover less than a tenth of the image are drawn
    again, and so is what rounding pushes out of the image or over the whole area; after 100 attempts it is the image.
    """
    for _ in range(ATTEMPTS):
        box = _attempt(height, width, rng)
        if box:
            return box
    return Box(0, 0, height, width)


def _attempt(height: int, width: int, rng: np.random.Generator) -> Box | None:
    aspect = rng.uniform(*ASPECT)
    smallest, largest = (fraction * height * width for fraction in AREA)
    tallest = min(round(math.sqrt(largest / aspect)), int((width + 0.5 - 1e-7) / aspect), height)
    shortest = min(round(math.sqrt(smallest / aspect)), tallest)
    h = int(rng.integers(shortest, tallest, endpoint=True))
    if h * round(h * aspect) < smallest:
        h += 1
    w = round(h * aspect)
    if not (
        0 < h <= height
        and 0 < w <= width
        and max(smallest, COVERED * height * width) <= h * w <= largest
    ):
        return None
    top, left = (int(rng.integers(max(room, 1))) for room in (height - h, width - w))
    return Box(top, left, h, w)


def cut(image: UInt8[np.ndarray, "h w 3"], box: Box) -> UInt8[np.ndarray, "b c 3"]:
    """The part of the image that is in the box, without a copy."""
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def resize(image: UInt8[np.ndarray, "h w 3"], size: int, method: int) -> UInt8[np.ndarray, "s s 3"]:
    """The image as `size` x `size` pixels by one of `METHODS`; bilinear is exact up to the final rounding."""
    if (
        method == cv2.INTER_LINEAR
    ):  # OpenCV's own for bytes is no faster, and wrong by up to one grey level.
        return cv2.convertScaleAbs(
            cv2.resize(image.astype(np.float32), (size, size), interpolation=method)
        )
    height, width = image.shape[:2]
    if method == cv2.INTER_AREA and (height - size) * (width - size) < 0:
        # OpenCV takes all that a new pixel covers only if no side grows while the other one shrinks.
        image = cv2.resize(image, (size, height), interpolation=method)
    return cv2.resize(image, (size, size), interpolation=method)


def shape(encoded: bytes) -> tuple[int, int]:
    """Height and width, from the header alone. Raises DecodeError."""
    try:
        return simplejpeg.decode_jpeg_header(encoded)[:2]
    except ValueError:
        with _pillow(encoded) as image:
            return image.height, image.width


def decode(encoded: bytes, shrink: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    """The image in RGB, its sides divided by `shrink` (1, 2, 4 or 8) and rounded up. Orientation tags are ignored.

    Raises:
        DecodeError: if it is no image or is cut short. A JPEG that is damaged inside decodes as far as it does.
    """
    try:
        if shrink == 1:
            return simplejpeg.decode_jpeg(encoded)
        height, width = (-(-side // shrink) for side in shape(encoded))
        return simplejpeg.decode_jpeg(
            encoded, min_height=height, min_width=width, min_factor=shrink
        )
    except ValueError:
        with _pillow(encoded) as image:
            return np.asarray(image.convert("RGB").reduce(shrink))


@contextlib.contextmanager
def _pillow(encoded: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DecodeError("it is no image, or of an unknown format") from error
    except Exception as error:  # Each format raises errors of its own.
        raise DecodeError(str(error)) from error
