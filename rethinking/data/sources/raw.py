"""Sets of arrays, from wherever they come: checked, and brought to the form of `Info`.

Labels become 0 to k - 1. Examples become images, vectors or tokens by these rules:

- [n, h, w] and [n, h, w, c] are images, with 1 to 4 channels. uint8 stays as it is. Other whole
  numbers become uint8 if they are 0 to 255 in all splits, and else if they have 16 bits, as in
  `formats`. In floats, 0 is black and 1 is white. They are stored as float32, times 255.
- [n, d] of floats, bytes (uint8) or truth values are vectors, as float32.
- [n, length] of other whole numbers are sequences of tokens, as int32.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from rethinking.errors import InputError, require

# The splits of a set, by the endings of the names of its arrays.
SPLITS = {"train": "train", "test": "test", "val": "validation"}


def split_pairs(content: Mapping[str, Any], where: str) -> dict[str, tuple[Any, Any]]:
    """The examples and labels of each split, from arrays that are named x_train, y_train and so on.

    Raises InputError if one of the two is missing, or if there is none.
    """
    pairs = {}
    for ending, split in SPLITS.items():
        x, y = f"x_{ending}", f"y_{ending}"
        if x not in content and y not in content:
            continue
        for needed, other in ((x, y), (y, x)):
            require(needed in content, f"{where} has {other}, but no {needed}. Add it.")
        pairs[split] = content[x], content[y]
    require(
        "train" in pairs or "test" in pairs,
        f"{where} has no x_train and y_train, but {', '.join(map(str, content)) or 'nothing'}. "
        "Name the arrays x_train, y_train, x_test and y_test.",
    )
    return pairs


class Prepared(NamedTuple):
    """A set in its final form."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]  # examples and labels
    num_classes: int
    classes: tuple[str, ...]  # see `Info`


def prepared(
    pairs: Mapping[str, tuple[Any, Any]], where: str, num_classes: int | None = None
) -> Prepared:
    """The set of these examples and labels of each split.

    `num_classes` is the number of classes if something else than the labels says it.
    Raises InputError, with the array's name, for what cannot be the examples or labels of a set.
    """
    names = {split: ending for ending, split in SPLITS.items()}
    examples, labels = {}, {}
    arrays = {}
    for split, (x, _) in pairs.items():
        arrays[split] = _array(x, f"{where}: x_{names.get(split, split)}")
    has_16_bits = any(x.dtype == np.uint16 and x.size and x.max() > 255 for x in arrays.values())
    for split, (_, y) in pairs.items():
        ending = names.get(split, split)
        examples[split] = _examples(arrays[split], f"{where}: x_{ending}", has_16_bits)
        labels[split] = class_values(y, f"{where}: y_{ending}")
        require(
            len(examples[split]) == len(labels[split]),
            f"{where}: x_{ending} has {len(examples[split]):,} examples, but y_{ending} has "
            f"{len(labels[split]):,} labels. Give each example its label.",
        )
    _require_same_form(examples, where)
    numbered, classes = number_classes(labels, where, num_classes)
    found = {split: (_read_only(examples[split]), _read_only(numbered[split])) for split in pairs}
    return Prepared(found, len(classes), names_of(classes))


def names_of(classes: Shaped[np.ndarray, " k"]) -> tuple[str, ...]:
    """The names of classes that are texts; none for numbers."""
    return tuple(map(str, classes.astype(str))) if classes.dtype.kind in "US" else ()


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: several loads share it. `array` stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def class_values(values: Any, where: str) -> Shaped[np.ndarray, " n"]:
    """The labels of a split as whole numbers or texts [n]. Raises InputError for others."""
    array = _array(values, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # as in Keras's CIFAR10
    require(
        array.ndim == 1,
        f"{where} has the shape {array.shape}. Give one label for each example: a whole number or "
        "a text. From one-hot labels, make them by y.argmax(1).",
    )
    require(
        array.dtype.kind != "f",
        f"{where} holds floats. Labels are whole numbers or texts: use y.astype(int), if these "
        "are classes.",
    )
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _array(values: Any, where: str) -> np.ndarray:
    """`values` as an array of numbers or texts. Raises InputError for anything else."""
    try:
        array = np.asarray(values)
    except Exception as error:  # Foreign arrays raise their own errors.
        raise InputError(
            f"{where} cannot be made an array ({error}). All examples need the same shape."
        ) from error
    if array.dtype.kind in "OcmMV":
        raise InputError(
            f"{where} has the dtype {array.dtype}. Give an array of numbers, in which all examples "
            "have the same shape; labels may also be an array of texts, such as y.astype(str)."
        )
    return array


def _examples(array: np.ndarray, where: str, has_16_bits: bool) -> Shaped[np.ndarray, "n ..."]:
    require(array.dtype.kind in "buif", f"{where} holds texts. Give numbers.")
    require(
        array.ndim in (2, 3, 4),
        f"{where} has the shape {array.shape}. Give images [n, height, width] or "
        "[n, height, width, channels], vectors [n, d] or tokens [n, length].",
    )
    require(array.size > 0, f"{where} has the shape {array.shape}: it is empty. Add examples.")
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
        bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
        require(
            not bad.any(),
            f"{where} has values that are NaN or infinite in {bad.sum():,} examples, the first of "
            f"them at index {bad.argmax()}. Remove or replace them.",
        )
    if array.ndim == 2:
        return _flat_examples(array, where)
    return _images(array if array.ndim == 4 else array[..., None], where, has_16_bits)


def _flat_examples(array: np.ndarray, where: str) -> Shaped[np.ndarray, "n d"]:
    """Vectors as float32, or tokens as int32."""
    if array.dtype == np.uint8 or array.dtype.kind in "bf":
        return array.astype(np.float32, copy=False)
    require(
        int(array.min()) >= 0 and int(array.max()) < 2**31,
        f"{where} holds whole numbers, which are taken for tokens, but some are negative or "
        "2**31 or larger. Give vectors of numbers as floats: x.astype(np.float32).",
    )
    return array.astype(np.int32, copy=False)


def _images(array: np.ndarray, where: str, has_16_bits: bool) -> Shaped[np.ndarray, "n h w c"]:
    """Images as uint8, or as float32 of 0 to 255 if they are floats.

    `has_16_bits` says whether white is 65,535 in images of uint16, in all splits.
    """
    channels = array.shape[3]
    require(
        1 <= channels <= 4,
        f"{where} has images of {channels} channels. They need 1 to 4, as the last dimension: "
        "x.transpose(0, 2, 3, 1) moves it from the front.",
    )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array * np.uint8(255)
    if array.dtype.kind == "f":
        is_bytes = array.max() > 1 and array.min() >= 0 and array.max() <= 255
        require(
            not (is_bytes and (array == np.rint(array)).all()),
            f"{where} holds the whole numbers 0 to 255 as floats, but in floats 1 is white. Store "
            "them as bytes: x.astype(np.uint8).",
        )
        return array * np.float32(255)
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high <= 255 and not (array.dtype == np.uint16 and has_16_bits):
        return array.astype(np.uint8)
    require(
        array.dtype == np.uint16,
        f"{where} has pixels from {low} to {high}. Give bytes of 0 to 255 (uint8), 16 bits "
        "(uint16), or floats in which 1 is white.",
    )
    return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _require_same_form(examples: Mapping[str, np.ndarray], where: str) -> None:
    forms = {split: (x.shape[1:], x.dtype) for split, x in examples.items()}
    first, *others = forms
    for split in others:
        (shape, dtype), (other_shape, other_dtype) = forms[first], forms[split]
        require(
            forms[split] == forms[first],
            f"{where}: the examples of {first} are {shape} of {dtype}, but those of {split} are "
            f"{other_shape} of {other_dtype}. Bring them to one shape and dtype.",
        )


def number_classes(
    labels: Mapping[str, Shaped[np.ndarray, " n"]], where: str, num_classes: int | None = None
) -> tuple[dict[str, Int32[np.ndarray, " n"]], Shaped[np.ndarray, " k"]]:
    """The labels as 0 to k - 1, and the k classes. Texts are numbered in their sorted order.

    A split other than train whose labels are all -1 has no labels. Raises InputError for classes
    that are not 0 to k - 1 in the first split, and for a class that the first split does not have.
    If `num_classes` is given, k is that, and the first split need not have all classes.
    """
    kinds = {array.dtype.kind in "US" for array in labels.values()}
    require(len(kinds) == 1, f"{where}: some labels are texts and others are numbers. Choose one.")
    first = "train" if "train" in labels else next(iter(labels))
    classes = np.unique(labels[first]) if num_classes is None else np.arange(num_classes)
    if num_classes is not None:
        first = f"the list of {num_classes} classes"
    elif kinds == {False}:
        _require_no_gaps(classes, f"{where}: the labels of {first}")
    numbered = {}
    for split, array in labels.items():
        if split != first and kinds == {False} and len(array) and (array == -1).all():
            numbered[split] = array.astype(np.int32)
            continue
        unknown = np.setdiff1d(array, classes)
        require(
            not len(unknown),
            f"{where}: {split} has the class {_show(unknown[:1])}, which {first} does not have. "
            f"Remove its examples, or add some to {first}.",
        )
        numbered[split] = np.searchsorted(classes, array).astype(np.int32)
    return numbered, classes


def _require_no_gaps(classes: np.ndarray, where: str) -> None:
    if (classes == np.arange(len(classes))).all():
        return
    shown = _show(classes[:10]) + (", ..." if len(classes) > 10 else "")
    missing = np.setdiff1d(np.arange(len(classes)), classes)[0]
    raise InputError(
        f"{where} are {shown}, without {missing}. Labels must be 0 to k - 1 without gaps. Number "
        "them by classes, y_train = np.unique(y_train, return_inverse=True), and then y_test = "
        "np.searchsorted(classes, y_test); or give them as texts."
    )


def _show(values: np.ndarray) -> str:
    return ", ".join(repr(value) for value in values.tolist())
