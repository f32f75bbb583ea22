"""Images of every format that turns up, resident and streamed, against values known beforehand."""

import errno
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from rethinking.data import arrays, decode, formats, stream
from rethinking.data.pipeline import Reading
from rethinking.errors import InputError
from tests.data.pictures import encode, noise
from tests.data.sets import example, write_features, write_info, write_shards

RGB = noise(6, 8)
GREY = RGB[..., 0]


def png16(*channels):
    """A PNG of 16 bits, whose channels have these values everywhere."""
    order = [2, 1, 0, 3][: len(channels)] if len(channels) > 1 else [0]  # OpenCV's is BGR
    pixels = np.stack([np.full((6, 8), channels[at], np.uint16) for at in order], axis=-1)
    return cv2.imencode(".png", pixels.squeeze())[1].tobytes()


def flat(*colour):
    return np.broadcast_to(np.uint8(colour), (6, 8, 3))


def palette(**options):
    """Four colours, of which some are transparent."""
    image = Image.fromarray((np.arange(48) % 4).reshape(6, 8).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 8, 7])
    return encode(image, **options)


PALETTE = np.uint8([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 8, 7]])[(np.arange(48) % 4)]
TURNED = Image.Exif()
TURNED[0x0112] = 6
CASES = {
    # 30000 of 65535 is 116.7 of 255.
    "grey of 16 bits": (png16(30000), flat(117, 117, 117)),
    "black of 16 bits": (png16(100), flat(0, 0, 0)),
    "white of 16 bits": (png16(65535), flat(255, 255, 255)),
    "RGB of 16 bits": (png16(30000, 65535, 257), flat(117, 255, 1)),
    "RGBA of 16 bits": (png16(30000, 65535, 257, 0), flat(117, 255, 1)),
    "TIFF of 16 bits": (
        encode(Image.fromarray(np.full((6, 8), 30000, np.uint16)), "tiff"),
        flat(117, 117, 117),
    ),
    "grey and opacity": (
        encode(np.stack([GREY, 255 - GREY], -1)),
        np.stack([GREY] * 3, -1),
    ),
    "RGBA": (encode(np.concatenate([RGB, 255 - RGB[..., :1]], -1)), RGB),
    "palette": (palette(), PALETTE.reshape(6, 8, 3)),
    "palette, one transparent": (palette(transparency=1), PALETTE.reshape(6, 8, 3)),
    "palette, all translucent": (palette(transparency=bytes(4)), PALETTE.reshape(6, 8, 3)),
    "RGB, one transparent": (encode(RGB, transparency=tuple(map(int, RGB[0, 0]))), RGB),
    "1 bit": (
        encode(Image.fromarray(GREY > 99)),
        np.stack([np.uint8(GREY > 99) * np.uint8(255)] * 3, -1),
    ),
    "BMP": (encode(RGB, "bmp"), RGB),
    "WEBP": (encode(RGB, "webp", lossless=True), RGB),
    "animated GIF": (
        palette(kind="gif", save_all=True, append_images=[Image.new("P", (8, 6))]),
        PALETTE.reshape(6, 8, 3),
    ),
    "animated PNG": (
        encode(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)]),
        RGB,
    ),
    "animated WEBP": (
        encode(RGB, "webp", lossless=True, save_all=True, append_images=[Image.new("RGB", (8, 6))]),
        RGB,
    ),
    "turned": (encode(RGB, exif=TURNED), RGB),
    # TensorFlow and Pillow both take a JPEG's CMYK for Adobe's, which is inverted.
    "CMYK JPEG": (encode(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "jpeg"), flat(255, 0, 0)),
    "grey JPEG": (encode(np.full((6, 8), 120, np.uint8), "jpeg"), flat(120, 120, 120)),
}


@pytest.mark.parametrize("kind", CASES)
def test_colours_are_right_however_images_are_read(kind):
    encoded, expected = CASES[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = formats.decode(encoded), decode.decode(encoded)
    for image in found:
        assert image.dtype == np.uint8
        np.testing.assert_allclose(image.astype(int), expected, atol=1 if "JPEG" in kind else 0)
    assert decode.shape(encoded) == (6, 8)
    smaller = decode.decode(encoded, shrink=2)
    assert smaller.shape == (3, 4, 3)


def test_every_value_of_16_bits_is_rounded_to_the_nearest_of_8():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = formats.decode(encode(Image.fromarray(values)), channels=1)[..., 0]
    np.testing.assert_array_equal(found, np.rint(values / 65535 * 255))


def test_other_numbers_of_channels():
    opacity = 255 - GREY
    four = np.concatenate([RGB, opacity[..., None]], -1)
    np.testing.assert_array_equal(formats.decode(encode(four), 4), four)
    np.testing.assert_array_equal(formats.decode(encode(RGB), 4)[..., 3], np.full((6, 8), 255))
    two = np.stack([GREY, opacity], -1)
    np.testing.assert_array_equal(formats.decode(encode(two), 2), two)
    grey = formats.decode(encode(np.stack([GREY] * 3, -1)), 1)
    np.testing.assert_array_equal(grey[..., 0], GREY)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_known_white_are_refused(dtype):
    encoded = encode(Image.fromarray(np.full((6, 8), 7, dtype)), "tiff")
    with pytest.raises(formats.DecodeError, match="32 bits"):
        formats.decode(encoded)
    with pytest.raises(decode.DecodeError, match="32 bits"):
        decode.decode(encoded)


@pytest.fixture
def odd(tmp_path):
    """The folder of a set that consists of `CASES`, all of one size, and what they show."""
    folder = tmp_path / "odd" / "1.0.0"
    folder.mkdir(parents=True)
    records = [example(encoded, number % 4) for number, (encoded, _) in enumerate(CASES.values())]
    splits = [write_shards(folder, name, records, [len(records)]) for name in ("train", "test")]
    write_info(folder, splits)
    write_features(folder, shape=(6, 8, 3))
    return tmp_path, np.stack([expected for _, expected in CASES.values()])


def test_resident_and_streamed_sets_of_all_formats(odd):
    root, expected = odd
    resident = arrays.load("odd", str(root)).train
    np.testing.assert_allclose(resident.images.astype(int), expected, atol=1)
    batches = stream.eval_batches(stream.load("odd", str(root)).test, 64, 8, Reading())
    (rows,) = list(batches)
    for row, image in enumerate(expected):
        view = decode.resize(decode.cut(image, decode.central_box(6, 8)), 8, cv2.INTER_LINEAR)
        assert np.abs(rows.images[row].astype(int) - view).max() <= 1, list(CASES)[row]


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError("out of memory")]
)
def test_what_the_system_cannot_do_is_no_damaged_image(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(type(error)):
        formats.decode(b"")


@pytest.mark.parametrize(
    "image, reason",
    [
        (encode(noise(7, 8)), r"its image is 7 x 8 x 3, but features\.json says .* 6 x 8 x 3"),
        # NumPy would repeat it until it fits.
        (encode(noise(1, 1)), r"its image is 1 x 1 x 3, but features\.json says .* 6 x 8 x 3"),
        (encode(RGB)[:60], r"its image is damaged \(.+\)"),
        (b"text", r"its image is damaged \(it is not an image"),
        (b"", "it has no image"),
    ],
)
def test_resident_images_that_cannot_be_used_are_named(odd, image, reason):
    root, _ = odd
    folder = root / "odd" / "1.0.0"
    records = [example(encode(RGB), 0), example(image, 1)]
    splits = [write_shards(folder, name, records, [1, 1]) for name in ("train", "test")]
    write_info(folder, splits)
    file = r"odd-train\.array_record-00001-of-00002"
    with pytest.raises(
        InputError, match=rf"{file}: record 0 cannot be used: {reason}.*train its index is 1\."
    ) as raised:
        arrays.load("odd", str(root))
    assert "skip_bad" not in str(raised.value)
