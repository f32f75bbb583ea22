"""Gabor wavelet features (Table 3, "Gabor filters"); for images and features see `features.py`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64

from rethinking.data.images import scale
from rethinking.errors import InputError
from rethinking.kernels.features import (
    EXACT,
    Images,
    check_count,
    check_images,
    check_positive,
    convolve,
    in_batches,
    refuse_unit_range,
)

# The most values that a bank of filters has, and the most features of an image.
LARGEST = 1e8
# Filters and cells with smaller weights are zero but for rounding.
SMALLEST_WEIGHT = 1e-12


@dataclasses.dataclass(frozen=True)
class Gabor:
    """A bank of Gabor wavelets, and the pooling of their responses' moduli.

    The paper says only "Gabor wavelet transform". These values were chosen on held-out training
    images of MNIST. Values near them did about as well.

    Attributes:
        wavelengths: in pixels.
        orientations: the number of angles, evenly spaced over half a turn.
        envelope: the standard deviation of the Gaussian envelope, in wavelengths.
        grid: responses are pooled on grid x grid cells.
        pooling: the standard deviation of each cell's Gaussian weights, in pixels.
    """

    wavelengths: tuple[float, ...] = (4.0, 6.0)
    orientations: int = 8
    envelope: float = 0.5
    grid: int = 7
    pooling: float = 2.0

    def __post_init__(self):
        try:
            wavelengths = tuple(self.wavelengths)
        except TypeError:
            wavelengths = ()
        if not wavelengths:
            raise InputError(f"wavelengths={self.wavelengths!r}: give a tuple of positive numbers.")
        for wavelength in wavelengths:
            check_positive("wavelengths", wavelength)
        check_count("orientations", self.orientations)
        check_positive("envelope", self.envelope)
        check_count("grid", self.grid)
        check_positive("pooling", self.pooling)
        num_filters = len(wavelengths) * self.orientations
        values = num_filters * (6 * self.envelope * max(wavelengths) + 1) ** 2
        if max(values, num_filters * self.grid**2) > LARGEST:
            raise InputError(
                f"{self}: its filters have {values:.1e} values, and an image has "
                f"{num_filters * self.grid**2:.1e} features. At most {LARGEST:.0e} are possible. "
                "Choose smaller wavelengths, fewer orientations or a smaller grid."
            )

    @property
    def num_features(self) -> int:
        """Number of features of an image."""
        return len(self.wavelengths) * self.orientations * self.grid**2

    def filters(self) -> Float64[np.ndarray, "size size filters 2"]:
        """The real and imaginary part of each wavelet, ordered by wavelength, then orientation."""
        radius = int(np.ceil(3 * self.envelope * max(self.wavelengths)))
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        angles = np.arange(self.orientations) * np.pi / self.orientations
        bank = []
        for wavelength in self.wavelengths:
            for angle in angles:
                wavelet = self._wavelet(x, y, wavelength, angle)
                bank.append((wavelet.real, wavelet.imag))
        return np.stack(bank).transpose(2, 3, 0, 1)

    def _wavelet(self, x: np.ndarray, y: np.ndarray, wavelength: float, angle: float) -> np.ndarray:
        with np.errstate(all="ignore"):
            envelope = np.exp(-(x * x + y * y) / (2 * (self.envelope * wavelength) ** 2))
            envelope = envelope / envelope.sum()
            wave = np.exp(2j * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle)))
            # Without its mean, so that the response to a constant image is zero.
            wavelet = envelope * (wave - np.sum(envelope * wave))
        if not np.abs(wavelet).max() > SMALLEST_WEIGHT:
            raise InputError(
                f"a wavelength of {wavelength} pixels and an envelope of {self.envelope} "
                "wavelengths: the filter covers a single pixel. Choose larger ones; a wavelength "
                "should have at least 2 pixels."
            )
        return wavelet

    def cells(self, length: int) -> Float64[np.ndarray, "{self.grid} {length}"]:
        """The weight of each pixel along an axis in each cell. The weights of a cell sum to one."""
        centers = (np.arange(self.grid) + 0.5) * length / self.grid - 0.5
        with np.errstate(all="ignore"):
            exponents = -((np.arange(length) - centers[:, None]) ** 2) / (2 * self.pooling**2)
        weights = np.exp(exponents)
        if not weights.sum(1).min() > SMALLEST_WEIGHT:
            raise InputError(
                f"pooling={self.pooling}: some cells are farther from every pixel. Choose a larger "
                "number; half a pixel always works."
            )
        return weights / weights.sum(1, keepdims=True)


def gabor(
    images: Images, settings: Gabor = Gabor(), batch_size: int = 100
) -> Float32[np.ndarray, "n features"]:
    """Pooled moduli of Gabor wavelet responses (Table 3, "Gabor filters").

    They have unit norm for each image, and are zero for an image of zeros. They are ordered by
    wavelength, orientation, row and column of the grid.

    Raises InputError if the images are not grey, or not all values are finite and of 0 to 255.
    """
    if not isinstance(settings, Gabor):
        raise InputError(f"settings={settings!r}: give a Gabor(...).")
    images = check_images(images, channels=1)
    refuse_unit_range(images)
    _, h, w, _ = images.shape
    filters = jnp.asarray(settings.filters(), jnp.float32)
    rows = jnp.asarray(settings.cells(h), jnp.float32)
    columns = jnp.asarray(settings.cells(w), jnp.float32)
    return in_batches(_gabor, images, batch_size, filters, rows, columns)


@jax.jit
def _gabor(
    images: Array, filters: Array, rows: Array, columns: Array
) -> Float32[Array, "n features"]:
    size, _, num_filters, _ = filters.shape
    waves = convolve(scale(images), filters.reshape(size, size, 1, 2 * num_filters), "SAME")
    modulus = jnp.linalg.norm(waves.reshape(*waves.shape[:3], num_filters, 2), axis=-1)
    pooled = jnp.einsum("nhwf,ph,qw->nfpq", modulus, rows, columns, precision=EXACT)
    pooled = pooled.reshape(len(images), -1)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)
