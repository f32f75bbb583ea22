"""Features of a random convolutional net (section 5, Table 3, "conv-net").

For images and features see `features.py`.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Float64

from rethinking.data.images import scale
from rethinking.errors import InputError
from rethinking.kernels.device_features import DeviceFeatures
from rethinking.kernels.features import (
    Images,
    check_count,
    check_images,
    check_positive,
    convolve,
    in_batches,
    refuse_unit_range,
)


@dataclasses.dataclass(frozen=True)
class RandomConv:
    """The convolutional net of Coates & Ng (2012) with random patches as filters (section 5).

    Sizes, whitening and threshold are those of a public replication
    (github.com/modestyachts/nondeep). It normalizes neither patches nor filters; Coates & Ng do.
    Here both are normalized, because the error on held-out training images was lower.

    Attributes:
        num_filters: the number of filters.
        patch_size: the side of a patch and of a filter, in pixels.
        contrast: is added to each patch's variance, for pixels of 0 to 1 (Coates & Ng).
        whitening: is added to the eigenvalues of the patches' covariance (they sum to at most one).
        threshold: is subtracted from each response and from its negative.
        pool_size: the side of a pooling window, in responses.
        pool_stride: the distance between pooling windows.
        num_patches: how many patches the covariance is computed from; the first become filters.
    """

    num_filters: int = 32_000
    patch_size: int = 6
    contrast: float = 10 / 255**2
    whitening: float = 1e-3
    threshold: float = 1.0
    pool_size: int = 15
    pool_stride: int = 6
    num_patches: int = 100_000

    def __post_init__(self):
        for name in ("num_filters", "patch_size", "pool_size", "pool_stride", "num_patches"):
            check_count(name, getattr(self, name))
        for name in ("contrast", "whitening"):
            check_positive(name, getattr(self, name))
        threshold = self.threshold
        if not isinstance(threshold, numbers.Real) or not math.isfinite(threshold):
            raise InputError(f"threshold={threshold!r}: it must be a finite number.")
        if self.num_patches < self.num_filters:
            raise InputError(
                f"num_patches={self.num_patches}: each of the {self.num_filters} filters needs a "
                "patch. Raise num_patches, or make fewer filters."
            )

    def fit(self, images: Images, seed: int) -> "FittedRandomConv":
        """The net whose filters are patches of `images`, drawn uniformly with replacement.

        A patch of d values with variance v is normalized: its mean is subtracted, and it is divided
        by sqrt(d (v + contrast)). C is the covariance of such patches. A filter is a normalized
        patch times (C + whitening I)^(-1/2), scaled to unit norm.

        Raises InputError if no patch fits, or if not all values are finite and of 0 to 255.
        """
        check_count("seed", seed, least=0)
        images = check_images(images, side=self.patch_size)
        refuse_unit_range(images)
        patches = self._draw(images, np.random.default_rng(seed)) / 255
        patches -= patches.mean(1, keepdims=True)
        squares = np.square(patches).sum(1, keepdims=True)
        patches /= np.sqrt(squares + patches.shape[1] * self.contrast)
        whitening = zca(patches, self.whitening)
        filters = patches[: self.num_filters] @ whitening
        # The filter of a constant patch stays zero.
        filters /= np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-12)
        filters = filters.reshape(-1, self.patch_size, self.patch_size, images.shape[3])
        return FittedRandomConv(self, whitening, filters)

    def features_per_filter(self, height: int, width: int) -> int:
        """Number of features of one filter: both signs at all pooling windows; 18 for CIFAR10.

        Raises InputError for images that are smaller than the first pooling window.
        """
        span = self.patch_size + self.pool_size - 1
        if min(height, width) < span:
            raise InputError(
                f"the random convolutional net needs images of at least {span}x{span} pixels, and "
                f"these have {height}x{width}. Choose other features, or larger images."
            )
        return 2 * math.prod((side - span) // self.pool_stride + 1 for side in (height, width))

    def _draw(
        self, images: np.ndarray, generator: np.random.Generator
    ) -> Float64[np.ndarray, "patches values"]:
        n, h, w, _ = images.shape
        corners = [n, h - self.patch_size + 1, w - self.patch_size + 1]
        image, top, left = generator.integers(0, corners, (self.num_patches, 3)).T[..., None, None]
        window = np.arange(self.patch_size)
        patches = images[image, top + window[:, None], left + window]
        return patches.reshape(self.num_patches, -1).astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedRandomConv:
    """The filters of a `RandomConv`. Features of all filters may not fit in memory at once."""

    settings: RandomConv
    whitening: Float64[np.ndarray, "values values"]
    filters: Float64[np.ndarray, "filters patch patch c"]

    def transform(
        self, images: Images, start: int = 0, stop: int | None = None, batch_size: int = 10
    ) -> Float32[np.ndarray, "n features"]:
        """The features of filters `start` to `stop`.

        They are max(f - threshold, 0) and max(-f - threshold, 0), averaged over pooling windows.
        f is a filter's product with a patch of the image, normalized and whitened as in `fit`.
        Features are ordered by filter, sign, row and column of the window. So a range of filters
        gives a range of the columns that all filters give.

        Raises InputError if the images are too small or have values that are not finite, if their
        channels differ from those of `fit`, or if there are no such filters.
        """
        images = self._check(images)
        parameters = self._parameters(start, stop)
        return in_batches(self._function, images, batch_size, *parameters)

    def blocks(
        self, images: Images, filters_per_block: int, batch_size: int = 10, first: int = 0
    ) -> Iterator[Float32[np.ndarray, "n features"]]:
        """Yields the features of `filters_per_block` filters at a time, fewer at the end.

        The `first` blocks are left out.
        """
        check_count("filters_per_block", filters_per_block)
        for start in range(first * filters_per_block, len(self.filters), filters_per_block):
            yield self.transform(images, start, start + filters_per_block, batch_size)

    def on_devices(self, filters_per_block: int) -> DeviceFeatures:
        """How devices compute the same features, `filters_per_block` filters at a time."""
        check_count("filters_per_block", filters_per_block)

        def parameters(first: int) -> Iterator[tuple[Array, Array, Array]]:
            for start in range(first * filters_per_block, len(self.filters), filters_per_block):
                yield self._parameters(start, start + filters_per_block)

        return DeviceFeatures(self._function, parameters, self._check)

    @functools.cached_property
    def _function(self) -> Callable[..., Array]:
        """(images, *parameters) -> features."""
        settings = self.settings
        return functools.partial(_random_conv, size=settings.pool_size, stride=settings.pool_stride)

    def _parameters(self, start: int, stop: int | None) -> tuple[Array, Array, Array]:
        """The arguments of `_function` for the filters `start` to `stop`."""
        settings = self.settings
        numbers = jnp.float32(settings.contrast), jnp.float32(settings.threshold)
        return self._kernels(start, stop), *numbers

    def _check(self, images: Images) -> np.ndarray:
        """The images as an array. Raises InputError if they have no such features."""
        settings = self.settings
        return check_images(
            images,
            channels=self.filters.shape[3],
            side=settings.patch_size + settings.pool_size - 1,
        )

    def _kernels(self, start: int, stop: int | None) -> Float32[Array, "patch patch c filters"]:
        """Filters that include the whitening, which is linear.

        They have mean zero. So a patch's mean need not be subtracted.
        """
        check_count("start", start, least=0)
        if stop is not None:
            check_count("stop", stop, least=0)
        filters = self.filters[start:stop]
        if not len(filters):
            raise InputError(
                f"there are {len(self.filters)} filters, none from {start} to {stop}. Choose a "
                "range within them."
            )
        kernels = filters.reshape(len(filters), -1) @ self.whitening
        return jnp.asarray(kernels.reshape(filters.shape).transpose(1, 2, 3, 0), jnp.float32)


@functools.partial(jax.jit, static_argnames=("size", "stride"))
def _random_conv(
    images: Array, kernels: Array, contrast: Array, threshold: Array, size: int, stride: int
) -> Float32[Array, "n features"]:
    def features(images: Array) -> Array:
        norms = _patch_norms(images, kernels.shape[0], contrast)
        responses = convolve(images, kernels, "VALID") / norms
        signs = []
        for sign in (1, -1):
            signs.append(_average_pool(jax.nn.relu(sign * responses - threshold), size, stride))
        return jnp.stack(signs, 3).transpose(0, 4, 3, 1, 2).reshape(len(images), -1)

    def one_by_one(images: Array) -> Array:
        # A core's cache holds the responses of one image.
        return lax.map(lambda image: features(image[None])[0], images)

    return lax.platform_dependent(scale(images), cpu=one_by_one, default=features)


def _patch_norms(images: Array, size: int, contrast: Array) -> Float32[Array, "n h w 1"]:
    """sqrt(d (v + contrast)) for each patch of d values with variance v."""

    def patch_sums(x: Array) -> Array:
        return _window_sums(_window_sums(x.sum(-1, keepdims=True), size, 1, 1), size, 1, 2)

    total, square = patch_sums(images), patch_sums(images * images)
    num_values = size * size * images.shape[-1]
    return jnp.sqrt(jnp.maximum(square - total * total / num_values, 0) + num_values * contrast)


def _average_pool(x: Array, size: int, stride: int) -> Float32[Array, "n p q filters"]:
    # Overlapping windows share cells, and each cell is summed once. This is nearly three times as
    # fast as `lax.reduce_window`.
    cell = math.gcd(size, stride)
    for window, step in ((cell, cell), (size // cell, stride // cell)):
        for axis in (1, 2):
            x = _window_sums(x, window, step, axis)
    return x / size**2


def _window_sums(x: Array, size: int, stride: int, axis: int) -> Array:
    """Sums over windows of `size` along an axis, `stride` apart."""
    span = (x.shape[axis] - size) // stride * stride + 1
    total = lax.slice_in_dim(x, 0, span, stride, axis)
    for start in range(1, size):
        total = total + lax.slice_in_dim(x, start, start + span, stride, axis)
    return total


def zca(patches: Float64[np.ndarray, "n d"], bias: float) -> Float64[np.ndarray, "d d"]:
    """(C + bias I)^(-1/2), which is symmetric; C has the patches' second moments about zero."""
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    return (vectors / np.sqrt(np.maximum(values, 0) + bias)) @ vectors.T
