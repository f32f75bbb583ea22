"""Decoding against Pillow, boxes against their distribution, resizing against closed forms."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from rethinking.data import decode
from rethinking.data.decode import Box, DecodeError
from tests.data.pictures import encode, interpolate, linear, noise


def smooth(height, width, seed=0):
    """A picture with similar neighbouring pixels, which JPEG hardly changes."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8
    )
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def as_ycck(cmyk):
    """The bytes of a CMYK JPEG, marked as YCCK."""
    transform = cmyk.index(b"Adobe") + 11
    return cmyk[:transform] + b"\x02" + cmyk[transform + 1 :]


SMOOTH = Image.fromarray(smooth(75, 101))


ENCODED = {
    "jpeg": encode(SMOOTH, "jpeg", quality=90),
    "progressive": encode(SMOOTH, "jpeg", progressive=True),
    "gray": encode(SMOOTH.convert("L"), "jpeg"),
    "cmyk": encode(SMOOTH.convert("CMYK"), "jpeg"),
    "ycck": as_ycck(encode(SMOOTH.convert("CMYK"), "jpeg")),
    "png": encode(SMOOTH),
    "transparent": encode(SMOOTH.convert("RGBA")),
    "palette": encode(SMOOTH.convert("P")),
    "gif": encode(SMOOTH, "gif"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_decoding_agrees_with_pillow(kind):
    expected = np.asarray(Image.open(io.BytesIO(ENCODED[kind])).convert("RGB")).astype(int)
    decoded = decode.decode(ENCODED[kind])
    assert decoded.dtype == np.uint8
    assert decode.shape(ENCODED[kind]) == decoded.shape[:2] == (75, 101)
    assert np.abs(decoded - expected).max() <= 1
    # As YCCK, the bytes are another picture.
    if kind != "ycck":
        assert np.abs(decoded - np.asarray(SMOOTH, int)).mean() < 60


@pytest.mark.parametrize("kind", ["jpeg", "png", "cmyk"])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_shrunk_decoding_is_close_to_the_mean_of_all_pixels(kind, shrink):
    picture = Image.fromarray(smooth(404, 603))
    encoded = encode(
        picture.convert("CMYK") if kind == "cmyk" else picture, "png" if kind == "png" else "jpeg"
    )
    height, width = 404 // shrink, 603 // shrink
    blocks = decode.decode(encoded)[: height * shrink, : width * shrink].astype(float)
    means = blocks.reshape(height, shrink, width, shrink, 3).mean((1, 3))
    shrunk = decode.decode(encoded, shrink)
    assert shrunk.shape == (-(-404 // shrink), -(-603 // shrink), 3)
    assert np.abs(shrunk[:height, :width] - means).mean() < 1


def test_orientation_tags_are_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    encoded = encode(SMOOTH, "jpeg", exif=exif)
    assert decode.shape(encoded) == decode.decode(encoded).shape[:2] == (75, 101)


@pytest.mark.parametrize(
    "view",
    [
        lambda encoded: decode.central_view(encoded, 32),
        lambda encoded: decode.random_view(encoded, 32, np.random.default_rng(0)),
        # This one decodes at a smaller scale.
        lambda encoded: decode.random_view(encoded, 8, np.random.default_rng(0)),
    ],
)
@pytest.mark.parametrize(
    "kind, kept",
    [
        *(
            (kind, kept)
            for kind in ("jpeg", "progressive", "cmyk", "png")
            for kept in (0, 1, 2, 100, 0.5, 0.9)
        ),
        *((kind, -1) for kind in ("jpeg", "progressive", "cmyk")),
    ],
)
def test_bytes_that_are_cut_short_are_refused(view, kind, kept):
    encoded = ENCODED[kind]
    assert view(encoded).shape[2] == 3
    with pytest.raises(DecodeError, match=r".+"):
        view(encoded[: int(kept * len(encoded)) if isinstance(kept, float) else kept])


def test_bytes_that_are_not_an_image_are_refused():
    with pytest.raises(DecodeError, match="not an image"):
        decode.decode(b"plain text")
    with pytest.raises(DecodeError, match="not an image"):
        decode.shape(np.random.default_rng(0).bytes(1000))


def test_jpegs_that_are_damaged_inside_decode_as_far_as_pillow_does():
    damaged = bytearray(encode(noise(60, 60), "jpeg", quality=90))
    middle = len(damaged) // 2
    damaged[middle : middle + 100] = bytes(100)
    expected = np.asarray(Image.open(io.BytesIO(bytes(damaged))).convert("RGB"))
    np.testing.assert_array_equal(decode.decode(bytes(damaged)), expected)


@pytest.mark.parametrize("height, width", [(375, 500), (224, 224), (500, 333), (40, 30), (3, 2)])
def test_boxes_lie_within_their_ranges(height, width):
    rng = np.random.default_rng(0)
    boxes = [decode.random_box(height, width, rng) for _ in range(10_000)]
    top, left, h, w = np.array(boxes).T
    whole = (h == height) & (w == width)
    assert np.all(
        (top >= 0) & (left >= 0) & (h > 0) & (w > 0) & (top + h <= height) & (left + w <= width)
    )
    area = h * w / (height * width)
    # Areas are drawn from 5% to 100%, and a box must cover a tenth of the only object, the image.
    assert np.all((area >= 0.1) & (area <= 1))
    assert np.all(whole | ((w >= 0.75 * h - 0.5) & (w <= 1.33 * h + 0.5)))
    if height > 10:
        assert area.min() < 0.12 and area.max() > 0.7 and len(set(boxes)) > 1000


@pytest.mark.parametrize("height, width", [(17, 1000), (1000, 17), (1, 1)])
def test_if_no_box_fits_the_box_is_the_image(height, width):
    boxes = {decode.random_box(height, width, np.random.default_rng(seed)) for seed in range(20)}
    assert boxes == {Box(0, 0, height, width)}


def test_boxes_are_distributed_as_stated():
    """Place, height given the aspect, and aspect. Rounding hardly matters in a large image."""
    height, width, rng = 30_000, 40_000, np.random.default_rng(1)
    top, left, h, w = np.array([decode.random_box(height, width, rng) for _ in range(10_000)]).T
    assert stats.kstest(top / (height - h), "uniform").pvalue > 0.01
    assert stats.kstest(left / (width - w), "uniform").pvalue > 0.01

    def bounds(aspect, smallest):
        """The smallest and the largest height of a box with this aspect."""
        return np.sqrt(smallest * height * width / aspect), np.minimum(height, width / aspect)

    low, high = bounds(w / h, 0.1)
    assert stats.kstest((h - low) / (high - low), "uniform").pvalue > 0.01
    # The height is drawn so that the area is at least 5%. A box is kept if its area is at least
    # 10%.
    grid = np.linspace(0.75, 1.33, 100_001)
    kept = np.subtract(*bounds(grid, 0.1)[::-1]) / np.subtract(*bounds(grid, 0.05)[::-1])
    cumulative = np.cumsum(kept) / kept.sum()
    assert stats.kstest(w / h, lambda aspect: np.interp(aspect, grid, cumulative)).pvalue > 0.01


def test_central_box_is_tensorflows():
    for side in range(1, 3000):
        offset = int((side - side * 0.875) / 2)  # tf.image.central_crop as of TensorFlow 2
        assert decode.central_box(side, 5) == (offset, 0, side - 2 * offset, 5)
        assert decode.central_box(5, side) == (0, offset, 5, side - 2 * offset)
    assert decode.central_box(375, 500) == (23, 31, 329, 438)


def cubic(d):
    """Keys' kernel with a = -0.75, which TensorFlow 1 and OpenCV use."""
    a = -0.75
    return np.where(
        d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    ) * (d < 2)


@pytest.mark.parametrize(
    "height, width, size", [(48, 80, 64), (400, 333, 299), (224, 224, 299), (1000, 701, 75)]
)
def test_evaluation_sees_exactly_the_middle(height, width, size):
    image = noise(height, width)
    middle = image[height // 16 : height - height // 16, width // 16 : width - width // 16]
    view = decode.central_view(encode(image), size)
    assert view.shape == (size, size, 3) and view.dtype == np.uint8
    # The only difference is the rounding.
    assert np.abs(view - interpolate(middle, size, linear)).max() < 0.5 + 1e-3


@pytest.mark.parametrize("height, width, size", [(70, 50, 64), (40, 48, 64)])
def test_resizing_methods(height, width, size):
    image = noise(height, width)
    resized = {method: decode.resize(image, size, method) for method in decode.METHODS}
    assert len(resized) == 4
    rows, columns = (np.arange(size) * side // size for side in (height, width))
    np.testing.assert_array_equal(resized[cv2.INTER_NEAREST], image[rows][:, columns])
    assert np.abs(resized[cv2.INTER_LINEAR] - interpolate(image, size, linear)).max() < 0.5 + 1e-3
    assert np.abs(resized[cv2.INTER_CUBIC] - interpolate(image, size, cubic).clip(0, 255)).max() < 1


@pytest.mark.parametrize(
    "height, width, size", [(30, 30, 10), (16, 20, 12), (12, 10, 16), (31, 10, 12), (10, 31, 12)]
)
def test_resizing_by_area(height, width, size):
    """Each new pixel is the mean of the part of the image that it covers."""
    image = noise(height, width)
    # Of this finer image, `height` x `width` pixels make up one new pixel.
    fine = image.repeat(size, 0).repeat(size, 1).astype(float)
    means = fine.reshape(size, height, size, width, 3).mean((1, 3))
    assert np.abs(decode.resize(image, size, cv2.INTER_AREA) - means).max() < 1.1


def test_random_views_draw_their_methods_alike(monkeypatch):
    methods = []
    monkeypatch.setattr(
        decode, "resize", lambda image, size, method: methods.append(method) or noise(size, size)
    )
    encoded = ENCODED["jpeg"]
    for seed in range(2000):
        decode.random_view(encoded, 4, np.random.default_rng(seed))
    counts = np.array([methods.count(method) for method in decode.METHODS])
    assert counts.sum() == 2000 and np.all(np.abs(counts - 500) < 4 * np.sqrt(2000 * 3 / 16)), (
        counts
    )


def test_random_views_are_what_the_generator_says():
    encoded = ENCODED["jpeg"]
    first, again = (decode.random_view(encoded, 32, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != decode.random_view(encoded, 32, np.random.default_rng(4)))


@pytest.mark.parametrize(
    "h, w, shrink",
    [
        (598, 598, 2),
        (597, 900, 1),
        (900, 597, 1),
        (1195, 1300, 2),
        (1196, 1196, 4),
        (1300, 2392, 4),
        (2392, 2392, 8),
    ],
)
def test_large_boxes_come_from_shrunk_images(monkeypatch, h, w, shrink):
    """They show the same part of the image with larger pixels. Other boxes show other parts."""
    size, encoded = 299, encode(smooth(2500, 2600), "jpeg", quality=90)
    asked = []
    plain = decode.decode

    def spy(encoded, shrink=1):
        asked.append(shrink)
        return plain(encoded, shrink)

    monkeypatch.setattr(decode, "decode", spy)
    monkeypatch.setattr(decode, "random_box", lambda height, width, rng: Box(41, 83, h, w))
    monkeypatch.setattr(decode, "METHODS", (cv2.INTER_AREA,))
    view = decode.random_view(encoded, size, np.random.default_rng(0)).astype(int)
    assert asked == [shrink]
    image = plain(encoded)

    def difference(top, left, height, width):
        cut = decode.cut(image, Box(top, left, height, width))
        return np.abs(view - cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)).mean()

    top, left, height, width = (side // shrink * shrink for side in (41, 83, h, w))
    same = difference(top, left, height, width)
    others = [
        (top + 2, left, height, width),
        (top, left - 2, height, width),
        (top, left, height - 8, width),
        (top, left, height, width + 8),
    ]
    assert same < 1 and all(same < difference(*other) for other in others), same
