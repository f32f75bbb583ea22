"""Encoded images on the host: decoded, cut to a box, and resized to the network's input.

This follows TensorFlow's Inception (tensorflow/models, inception/image_processing.py), except:

- OpenCV cuts and resizes. It puts the centre of a pixel half a pixel inside; TensorFlow 1 puts it
  at the upper left corner. The images differ by a shift of less than half a pixel.
- Resized values are rounded to bytes. Bicubic interpolation overshoots; its values are clipped to
  0 and 255.
- A large random box is decoded at a half, a quarter or an eighth of its size. Its sides keep at
  least `size` pixels. This is faster, and the result is smoother. TensorFlow always decodes all
  pixels.
- The resizing method is drawn for each image. TensorFlow chooses it by the number of the thread.

simplejpeg (libjpeg-turbo) decodes JPEG. `formats` decodes what simplejpeg refuses, such as PNG. If
`formats` refuses an image too, that is an error. simplejpeg and OpenCV come with the extra
`imagenet`.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from rethinking.data import formats
from rethinking.data.formats import DecodeError as DecodeError

AREA, ASPECT, ATTEMPTS = (0.05, 1.0), (0.75, 1.33), 100
# The part of an object that a box must cover. The object is the whole image here, so every box has
# at least a tenth of the area.
COVERED = 0.1
METHODS = (cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_AREA)

# Several images are decoded in parallel, each in one thread.
cv2.setNumThreads(0)


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def central_view(encoded: bytes, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle 87.5% of each side, resized bilinearly to `size` x `size` pixels.

    Raises DecodeError.
    """
    image = decode(encoded)
    return resize(cut(image, central_box(*image.shape[:2])), size, cv2.INTER_LINEAR)


def random_view(encoded: bytes, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """A random box, resized to `size` x `size` pixels by one of four methods, chosen at random.

    Raises DecodeError.
    """
    box = random_box(*shape(encoded), rng)
    method = METHODS[rng.integers(len(METHODS))]
    shrink = 1
    while shrink < 8 and min(box.height, box.width) >= 2 * shrink * size:
        shrink *= 2
    shrunk = Box(*(side // shrink for side in box))
    return resize(cut(decode(encoded, shrink), shrunk), size, method)


def central_box(height: int, width: int) -> Box:
    """The box without a sixteenth of the image at each edge: TensorFlow's central_crop(0.875)."""
    top, left = height // 16, width // 16
    return Box(top, left, height - 2 * top, width - 2 * left)


def random_box(height: int, width: int, rng: np.random.Generator) -> Box:
    """A random part of the image, or after 100 failed attempts the whole image.

    This is TensorFlow's sample_distorted_bounding_box with Inception's settings, for images without
    annotated objects:

    - The ratio width / height is uniform in [0.75, 1.33].
    - The height is uniform, given the ratio. The lowest box has 5% of the image's area, and the
      highest is the largest box that fits.
    - The place is uniform. As in TensorFlow, a box smaller than the image never reaches the last
      row or column.
    - An attempt fails if the box covers less than a tenth of the area. It also fails if rounding
      moves the box out of the image.
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
    """A view of the part of the image inside the box."""
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def resize(image: UInt8[np.ndarray, "h w 3"], size: int, method: int) -> UInt8[np.ndarray, "s s 3"]:
    """The image as `size` x `size` pixels, by one of `METHODS`.

    The bilinear method is exact up to the final rounding.
    """
    if method == cv2.INTER_LINEAR:
        # OpenCV's bilinear method for bytes is not faster, and wrong by up to one grey level.
        return cv2.convertScaleAbs(
            cv2.resize(image.astype(np.float32), (size, size), interpolation=method)
        )
    height, width = image.shape[:2]
    if method == cv2.INTER_AREA and (height - size) * (width - size) < 0:
        # One side grows and the other shrinks. OpenCV then averages over areas only if each side is
        # resized on its own.
        image = cv2.resize(image, (size, height), interpolation=method)
    return cv2.resize(image, (size, size), interpolation=method)


def shape(encoded: bytes) -> tuple[int, int]:
    """Height and width, read from the header. Raises DecodeError."""
    try:
        return simplejpeg.decode_jpeg_header(encoded)[:2]
    except ValueError:
        with formats.opened(encoded) as image:
            return image.height, image.width


def decode(encoded: bytes, shrink: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    """The image in RGB, its sides divided by `shrink` (1, 2, 4 or 8) and rounded up.

    Orientation tags are ignored. A JPEG with damaged content is decoded as far as possible.

    Raises:
        DecodeError: if the bytes are not an image or are cut short.
    """
    try:
        if shrink == 1:
            return simplejpeg.decode_jpeg(encoded)
        height, width = (-(-side // shrink) for side in shape(encoded))
        return simplejpeg.decode_jpeg(
            encoded, min_height=height, min_width=width, min_factor=shrink
        )
    except ValueError:
        return formats.decode(encoded, shrink=shrink)
