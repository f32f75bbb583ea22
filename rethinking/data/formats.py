"""Encoded images as bytes of 0 to 255, whatever their format.

The values are those of TensorFlow: transparency is dropped, colours are those of the palette, an
animation is its first picture, and orientation tags are ignored. Grey values of 16 bits are divided
by 257 and rounded, so 65,535 becomes 255. For coloured values of 16 bits, the high byte is used.
"""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from rethinking.data.faults import system_cause

# Pillow's name for images, by their number of channels.
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class DecodeError(Exception):
    """Raised for bytes that are not an image, or only a part of one."""


def decode(encoded: bytes, channels: int = 3, shrink: int = 1) -> UInt8[np.ndarray, "h w c"]:
    """The image with 1 (grey), 2 (grey, opacity), 3 (RGB) or 4 (RGB, opacity) channels.

    Its sides are divided by `shrink` and rounded up. Raises DecodeError.
    """
    with opened(encoded) as image:
        pixels = _bytes(image, channels)
        if pixels.mode != MODES[channels]:
            pixels = pixels.convert(MODES[channels])
        if shrink > 1:
            pixels = pixels.reduce(shrink)
        return np.asarray(pixels).reshape(pixels.height, pixels.width, channels)


@contextlib.contextmanager
def opened(encoded: bytes) -> Iterator[Image.Image]:
    """The image, of which only the header is read yet. Raises DecodeError, also inside."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            yield image
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError("it is not an image, or its format is unknown") from error
    except Exception as error:  # Each format raises its own errors.
        if system_cause(error):
            raise
        raise DecodeError(str(error)) from error


def _bytes(image: Image.Image, channels: int) -> Image.Image:
    """The image with values of 8 bits. Pillow itself would cut larger values off at 255."""
    if channels in (1, 3):
        image.info.pop("transparency", None)  # Pillow would warn that it is lost.
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DecodeError("its values have 32 bits, and how white is encoded is unknown")
    return image
