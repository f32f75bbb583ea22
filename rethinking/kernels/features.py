"""Features for the linear models of section 5 (Table 3): Gabor wavelets and the random conv-net of Coates & Ng.

Images are [n, h, w, c] with values 0 to 255; features are float32, one row per image, and computed in batches.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, UInt8

from rethinking.data.images import scale
from rethinking.errors import InputError

_EXACT = (
    jax.lax.Precision.HIGHEST
)  # Accelerators would else round the factors of products to fewer digits.
Images = UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, "n h w c"]


@dataclasses.dataclass(frozen=True)
class Gabor:
    """A bank of Gabor wavelets and how the moduli of their responses are pooled.

    The paper says only "Gabor wavelet transform". These values were chosen on held-out training images of MNIST, where
    all near them did about as well.
    """

    wavelengths: tuple[float, ...] = (4.0, 6.0)  # pixels
    orientations: int = 8  # angles, evenly over half a turn
    envelope: float = 0.5  # standard deviation of the Gaussian envelope, in wavelengths
    grid: int = 7  # pooled on grid x grid cells
    pooling: float = 2.0  # standard deviation of each cell's Gaussian weights, pixels

    def filters(self) -> Float64[np.ndarray, "size size filters 2"]:
        """Each wavelet's real and imaginary part: wavelength by wavelength, all orientations of each."""
        radius = int(np.ceil(3 * self.envelope * max(self.wavelengths)))
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        angles = np.arange(self.orientations) * np.pi / self.orientations
        bank = [
            self._wavelet(x, y, wavelength, angle)
            for wavelength in self.wavelengths
            for angle in angles
        ]
        return np.stack([(wavelet.real, wavelet.imag) for wavelet in bank]).transpose(2, 3, 0, 1)

    def _wavelet(self, x: np.ndarray, y: np.ndarray, wavelength: float, angle: float) -> np.ndarray:
        envelope = np.exp(-(x * x + y * y) / (2 * (self.envelope * wavelength) ** 2))
        envelope = envelope / envelope.sum()
        wave = np.exp(2j * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle)))
        return envelope * (
            wave - np.sum(envelope * wave)
        )  # So that a constant image has no response.

    def cells(self, length: int) -> Float64[np.ndarray, "{self.grid} {length}"]:
        """The weights, of sum one, with which each cell along an axis sees its pixels."""
        centers = (np.arange(self.grid) + 0.5) * length / self.grid - 0.5
        weights = np.exp(-((np.arange(length) - centers[:, None]) ** 2) / (2 * self.pooling**2))
        return weights / weights.sum(1, keepdims=True)


def gabor(
    images: Images, settings: Gabor = Gabor(), batch_size: int = 100
) -> Float32[np.ndarray, "n features"]:
    """Pooled moduli of Gabor wavelet responses, scaled to unit norm for each image (Table 3, "Gabor filters").

    Features are ordered by wavelength, orientation, row and column of the grid. A blank image's are all zero.

    Raises InputError if the images are not grey, or not all values are finite.
    """
    _check(images, channels=1)
    _, h, w, _ = images.shape
    arrays = [settings.filters(), settings.cells(h), settings.cells(w)]
    return _batched(
        _gabor, images, batch_size, *(jnp.asarray(array, jnp.float32) for array in arrays)
    )


@jax.jit
def _gabor(
    images: Array, filters: Array, rows: Array, columns: Array
) -> Float32[Array, "n features"]:
    size, _, num_filters, _ = filters.shape
    waves = _convolve(scale(images), filters.reshape(size, size, 1, 2 * num_filters), "SAME")
    modulus = jnp.linalg.norm(waves.reshape(*waves.shape[:3], num_filters, 2), axis=-1)
    pooled = jnp.einsum("nhwf,ph,qw->nfpq", modulus, rows, columns, precision=_EXACT).reshape(
        len(images), -1
    )
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)


@dataclasses.dataclass(frozen=True)
class RandomConv:
    """The convolutional net of Coates & Ng (2012), with random training patches in the place of k-means (section 5).

    Sizes, whitening and threshold are those of a public replication (github.com/modestyachts/nondeep). That normalizes
    neither an image's patches nor the filters; Coates & Ng do both, and on held-out training images it errs less.
    """

    num_filters: int = 32_000
    patch_size: int = 6
    contrast: float = 10 / 255**2  # added to every patch's variance, values of 0 to 1 (Coates & Ng)
    whitening: float = (
        1e-3  # added to the eigenvalues of the patches' covariance, which sum to at most one
    )
    threshold: float = 1.0
    pool_size: int = 15
    pool_stride: int = 6
    num_patches: int = 100_000  # drawn for the covariance; the first of them become filters

    def fit(self, images: Images, seed: int) -> "FittedRandomConv":
        """Draws patches from `images`, uniformly with replacement, and makes filters of them.

        A patch of d values and variance v, less its mean and divided by sqrt(d (v + contrast)), is whitened by
        W = (C + whitening I)^(-1/2), C being the covariance of such patches. Whitened, with unit norm, it is a filter.

        Raises InputError if no patch fits, not all values are finite, or num_patches is less than num_filters.
        """
        _check(images, side=self.patch_size)
        if self.num_patches < self.num_filters:
            raise InputError(
                f"features: {self.num_filters} filters need as many patches: raise num_patches."
            )
        patches = self._draw(images, np.random.default_rng(seed)) / 255
        patches -= patches.mean(1, keepdims=True)
        patches /= np.sqrt(
            np.square(patches).sum(1, keepdims=True) + patches.shape[1] * self.contrast
        )
        whitening = zca(patches, self.whitening)
        filters = patches[: self.num_filters] @ whitening
        filters /= np.maximum(
            np.linalg.norm(filters, axis=1, keepdims=True), 1e-12
        )  # A flat patch's stays zero.
        return FittedRandomConv(
            self, whitening, filters.reshape(-1, self.patch_size, self.patch_size, images.shape[3])
        )

    def features_per_filter(self, height: int, width: int) -> int:
        """Features of one filter: both signs at all places of the pool; 2 x 3 x 3 for CIFAR10."""
        span = self.patch_size + self.pool_size - 1
        return 2 * math.prod((side - span) // self.pool_stride + 1 for side in (height, width))

    def _draw(
        self, images: np.ndarray, generator: np.random.Generator
    ) -> Float64[np.ndarray, "patches values"]:
        n, h, w, _ = images.shape
        corners = [n, h - self.patch_size + 1, w - self.patch_size + 1]
        image, top, left = generator.integers(0, corners, (self.num_patches, 3)).T[..., None, None]
        window = np.arange(self.patch_size)
        return (
            images[image, top + window[:, None], left + window]
            .reshape(self.num_patches, -1)
            .astype(np.float64)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FittedRandomConv:
    """Filters of a `RandomConv`; `transform` and `blocks` give the features of as many of them as fit in memory."""

    settings: RandomConv
    whitening: Float64[np.ndarray, "values values"]
    filters: Float64[np.ndarray, "filters patch patch c"]

    def transform(
        self, images: Images, start: int = 0, stop: int | None = None, batch_size: int = 10
    ) -> Float32[np.ndarray, "n features"]:
        """Features of filters `start` to `stop`: max(f - threshold, 0) and max(-f - threshold, 0), average-pooled.

        f is a filter's product with each patch of the image, normalized and whitened as for `fit`. Features are ordered
        by filter, sign, row and column of the pool, so that those of a range of filters are columns of those of all.

        Raises InputError if the images are too small or have other channels than those of `fit`, not all values are
        finite, or there are no such filters.
        """
        settings = self.settings
        _check(
            images,
            channels=self.filters.shape[3],
            side=settings.patch_size + settings.pool_size - 1,
        )
        features = functools.partial(
            _random_conv, size=settings.pool_size, stride=settings.pool_stride
        )
        numbers = jnp.float32(settings.contrast), jnp.float32(settings.threshold)
        return _batched(features, images, batch_size, self._kernels(start, stop), *numbers)

    def blocks(
        self, images: Images, filters_per_block: int, batch_size: int = 10
    ) -> Iterator[Float32[np.ndarray, "n features"]]:
        """Yields `transform` of `filters_per_block` filters after another, the last ones perhaps fewer."""
        for start in range(0, len(self.filters), filters_per_block):
            yield self.transform(images, start, start + filters_per_block, batch_size)

    def _kernels(self, start: int, stop: int | None) -> Float32[Array, "patch patch c filters"]:
        # Filters can take over the whitening, which is linear; to a patch's mean they are blind, being of mean zero.
        filters = self.filters[start:stop]
        if not len(filters):
            raise InputError(
                f"features: there are {len(self.filters)} filters, none from {start} to {stop}."
            )
        kernels = filters.reshape(len(filters), -1) @ self.whitening
        return jnp.asarray(kernels.reshape(filters.shape).transpose(1, 2, 3, 0), jnp.float32)


@functools.partial(jax.jit, static_argnames=("size", "stride"))
def _random_conv(
    images: Array, kernels: Array, contrast: Array, threshold: Array, size: int, stride: int
) -> Float32[Array, "n features"]:
    images = scale(images)
    responses = _convolve(images, kernels, "VALID") / _patch_norms(
        images, kernels.shape[0], contrast
    )
    signs = [
        _average_pool(jax.nn.relu(sign * responses - threshold), size, stride) for sign in (1, -1)
    ]
    return jnp.stack(signs, 3).transpose(0, 4, 3, 1, 2).reshape(len(images), -1)


def _patch_norms(images: Array, size: int, contrast: Array) -> Float32[Array, "n h w 1"]:
    total, square = (
        _window_sums(_window_sums(x.sum(-1, keepdims=True), size, 1, 1), size, 1, 2)
        for x in (images, images * images)
    )
    num_values = size * size * images.shape[-1]
    return jnp.sqrt(jnp.maximum(square - total * total / num_values, 0) + num_values * contrast)


def _average_pool(x: Array, size: int, stride: int) -> Float32[Array, "n p q filters"]:
    # Overlapping windows share cells, which are summed once: nearly three times faster than `lax.reduce_window`.
    cell = math.gcd(size, stride)
    for window, step in ((cell, cell), (size // cell, stride // cell)):
        for axis in (1, 2):
            x = _window_sums(x, window, step, axis)
    return x / size**2


def _window_sums(x: Array, size: int, stride: int, axis: int) -> Array:
    stop = (x.shape[axis] - size) // stride * stride + 1
    return functools.reduce(
        jnp.add,
        [jax.lax.slice_in_dim(x, start, start + stop, stride, axis) for start in range(size)],
    )


def zca(patches: Float64[np.ndarray, "n d"], bias: float) -> Float64[np.ndarray, "d d"]:
    """The symmetric whitening (C + bias I)^(-1/2), C being the patches' second moments about zero."""
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    return (vectors / np.sqrt(np.maximum(values, 0) + bias)) @ vectors.T


def _convolve(images: Array, filters: Array, padding: str) -> Float32[Array, "n h w filters"]:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, filters, (1, 1), padding, dimension_numbers=layout, precision=_EXACT
    )


def _batched(
    features: Callable[..., Array], images: Images, batch_size: int, *arrays: Array
) -> np.ndarray:
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(features(batch, *arrays)) for batch in batches])


def _check(images: Images, channels: int = 0, side: int = 1) -> None:
    n, h, w, c = images.shape
    if n == 0 or min(h, w) < side or (channels and c != channels):
        raise InputError(
            f"features: the images are {n} of {h}x{w}x{c}, but must be at least one, of {side}x{side} pixels or more"
            + (f" and {channels} channels." if channels else ".")
        )
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise InputError(
            "features: some pixels are NaN or infinite. Values must be finite, of 0 to 255."
        )
