"""The columns of a Hugging Face set that hold the examples and the labels, found by their types.

- The label is the only ClassLabel; else a column named label, labels, class or target; else the
  only column of whole numbers or texts.
- The examples are the only Image; else the only column of lists or arrays of numbers; else all
  columns of numbers but the label, in their order: a table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from rethinking.errors import InputError

_LABELS = ("label", "labels", "class", "target")


class Columns(NamedTuple):
    """The names of columns. `kind` is "image", "array" or "table"."""

    kind: str
    examples: list[str]
    label: str


def find_columns(features: Any, where: str) -> Columns:
    """The columns of the examples and of the label in a set's `features`.

    Raises InputError, with the columns and their types, if they are missing or ambiguous.
    """
    import datasets

    label = _label(features, where)
    others = {name: feature for name, feature in features.items() if name != label}
    images = _of(others, lambda feature: isinstance(feature, datasets.Image))
    if images:
        return Columns("image", [_only(images, "images", features, where)], label)
    arrays = _of(others, lambda feature: not _is_scalar(feature) and _is_number(leaf(feature)))
    if arrays:
        return Columns("array", [_only(arrays, "arrays", features, where)], label)
    numbers = _of(others, lambda feature: _is_scalar(feature) and _is_number(leaf(feature)))
    if numbers:
        return Columns("table", numbers, label)
    raise InputError(
        f"{where} has no column of images or numbers beside the label {label}, but "
        f"{_show(features)}. Choose a set for classification; texts must be turned into tokens."
    )


def leaf(feature: Any) -> str | None:
    """The dtype of the numbers in a column of scalars, lists or arrays; None for other columns."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    dtype = getattr(feature, "dtype", None)
    return dtype if isinstance(dtype, str) else None


def _label(features: Any, where: str) -> str:
    import datasets

    classes = _of(features, lambda feature: isinstance(feature, datasets.ClassLabel))
    if classes:
        return _only(classes, "labels", features, where)
    scalars = _of(
        features, lambda feature: _is_scalar(feature) and leaf(feature) not in (None, "binary")
    )
    named = [name for name in scalars if name.lower() in _LABELS]
    if named:
        return _only(named, "labels", features, where)
    candidates = [name for name in scalars if not str(leaf(features[name])).startswith("float")]
    if candidates:
        return _only(candidates, "labels", features, where)
    raise InputError(
        f"{where} has no column of labels, but {_show(features)}. Name the column of classes label."
    )


def _of(features: Any, condition: Callable[[Any], bool]) -> list[str]:
    return [name for name, feature in features.items() if condition(feature)]


def _only(names: list[str], what: str, features: Any, where: str) -> str:
    if len(names) > 1:
        raise InputError(
            f"{where} has several columns that could be the {what}: {', '.join(names)}. Keep one, "
            "by dataset.remove_columns(...).save_to_disk(...)."
        )
    return names[0]


def _is_scalar(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Value | datasets.ClassLabel)


def _is_number(dtype: str | None) -> bool:
    return dtype is not None and dtype.startswith(("int", "uint", "float", "bool"))


def _show(features: Any) -> str:
    return ", ".join(f"{name} ({feature})" for name, feature in features.items())
