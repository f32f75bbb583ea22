"""Random configs: small runs of every kind, in which one to three fields have random values.

The values come from the fields' own types and ranges: their ends, values between, and wrong ones.
"""

import contextlib
import copy
import math
from collections.abc import Mapping

from hypothesis import strategies as st
from ml_collections import ConfigDict

from rethinking import experiments
from rethinking.config import with_types
from rethinking.config.fields import Field
from rethinking.errors import InputError
from rethinking.experiments import training
from tests.data import streamed_sets

# Small runs of every kind, in which one to three fields are changed.
SMALL = {
    "data.name": "digits",
    "data.num_train": 40,
    "num_devices": 1,
}
TRAINING = {"data.num_test": 20, "batch_size": 8, "max_epochs": 2, "model.options": {"width": 8}}
COMPLEXITY = TRAINING | {"max_epochs": 1, "data.num_test": 0}
STREAMED = TRAINING | {
    "data.stream": True,
    "data.image_size": 8,
    "data.num_train": 0,
    "data.num_test": 0,
    "data.num_threads": 2,
    "eval_batch_size": 16,
}
BASES = {
    "training": [TRAINING],
    "kernels": [{"data.num_test": 20}],
    "complexity": [
        COMPLEXITY | {"measure": "rademacher", "draws": 2},
        COMPLEXITY | {"measure": "stability", "replacements": 1},
    ],
    "expressivity": [{}],
    # Training on images that are read from disk.
    "streamed": [
        STREAMED | {"data.name": "./photos"},
        STREAMED | {"data.name": "./saved"},
        STREAMED | {"data.name": "./one_class"},
        STREAMED | {"data.name": "./damaged", "data.skip_bad": True},
        STREAMED | {"data.name": "./one_part", "data.test_fraction": 0.3},
        STREAMED | {"data.name": "./parquet", "data.test_fraction": 0.3},
        STREAMED | {"data.name": "pictures", "data.data_dir": "."},
    ],
    "linear": [
        {"data.num_test": 20, "steps": 10},
        {
            "data.num_test": 20,
            "steps": 10,
            "features.name": "fourier",
            "features.num_frequencies": 200,
        },
    ],
}
# The kinds of experiments, where a kind of config is named otherwise.
KINDS = {"streamed": "training"}
# Fields that are changed more often than others.
OFTEN = {
    "streamed": [
        "batch_size",
        "eval_batch_size",
        "eval.num_train",
        "checkpoint_seconds",
        "randomize.labels",
        *[path for path in training.FIELDS if path.startswith(("data.", "augment."))],
    ]
}
# Larger values than these take too long for a test.
LARGEST = {"data.image_size": 1024}
# Texts for the fields that take any text.
TEXTS = {
    "data.name": [
        "digits",
        "digitz",
        "",
        "cifar10/../..",
        "é",
        "digits:1.0.0",
        "./x.npz",
        "~nobody/x.npz",
        "x:y",
        "pictures",
        *streamed_sets.STREAMED,
        *streamed_sets.REFUSED,
    ],
    "data.data_dir": ["", "/no/such/folder", "~nobody/x", "gs://bucket/x", "\0"],
    "data.eval_split": ["", "test", "val", "validation", "train", "tset"],
    "model.name": [
        "mlp_1x512",
        "mlp_3x512",
        "mlp",
        "os:path",
        "no_such_module:Net",
        ":",
        "a:b:c",
        "tests.models.kinds:NnxNet",
        "tests.models.kinds:PureNet",
        "tests.experiments.kinds:TokensInPlace",
    ],
    "optimizer": ["sgd", "rmsprop", "adamw", "adamw", "adam", "os:path", "no_such_module:f"],
    "eval.shifts": ["", "noise=1", "blur,contrast=3", "noise=9", ",", "digits", "="],
    "kind": ["training", "kernels", ""],  # refused, except for the kind of the other fields
}
OPTIONS = [
    {},
    {"depth": 2},
    {"width": 0},
    {"width": -1},
    {"width": 2**40},
    {"width": "8"},
    {"num_classes": 3},
    {"no_such": 1},
    {"depth": math.nan},
    {"a b": 1},
]
WRONG = [
    None,
    True,
    "5",
    5.0,
    [],
    [1],
    {},
    {"a": 1},
    math.nan,
    -math.inf,
    -1,
    2**31,
    2**64,
    10**400,
]


def fields_of(kind: str) -> Mapping[str, Field]:
    """The fields of a kind of config, by their paths."""
    return experiments.KINDS[KINDS.get(kind, kind)].FIELDS


def values(path: str, field: Field) -> st.SearchStrategy:
    """Allowed values, the ends of the range more often than others; and sometimes wrong ones."""
    right = allowed(path, field)
    return st.one_of(*[right] * 9, wrong(field))


def allowed(path: str, field: Field) -> st.SearchStrategy:
    if field.choices is not None:
        return st.sampled_from(field.choices)
    if field.type is bool:
        return st.booleans()
    if field.type is dict:
        return st.sampled_from(OPTIONS)
    if field.type is str:
        texts = TEXTS.get(path, ["", "a row", "x" * 200])
        return st.just(field.default) | st.sampled_from(texts)
    low = field.minimum if field.minimum is not None else field.above
    high = field.maximum if field.maximum is not None else field.below
    high = LARGEST.get(path, high)
    if field.type is int:
        high = high if field.maximum is not None else high - 1  # below
        small = st.integers(low, min(high, low + 10))
        larger = st.integers(low, min(high, 1000)) | st.integers(low, high)
        return st.one_of(st.sampled_from([low, high]), small, small, small, larger)
    inside = st.floats(low, high, exclude_max=field.maximum is None)
    ends = [
        inside_end for inside_end in (float(low), float(high)) if field_allows(field, inside_end)
    ]
    return st.one_of(st.sampled_from(ends), st.floats(low, min(high, low + 1.0)), inside)


def field_allows(field: Field, value: float) -> bool:
    with contextlib.suppress(InputError):
        field.check("x", value)
        return True
    return False


def wrong(field: Field) -> st.SearchStrategy:
    ends = [field.minimum, field.maximum, field.above, field.below]
    beyond = [end + step for end in ends if end is not None for step in (-1, 0, 1)]
    return st.sampled_from(WRONG + beyond)


@st.composite
def configs(draw, kind: str):
    """A small config of this kind, path -> value, and the paths that were changed."""
    fields = fields_of(kind)
    flat = {path: copy.deepcopy(field.default) for path, field in fields.items()}
    flat |= SMALL | draw(st.sampled_from(BASES[kind]))
    # Names have no effect, and another kind is always refused.
    paths = sorted(fields.keys() - {"experiment", "row", "kind"}) * 5
    paths += ["experiment", "row", "kind", *OFTEN.get(kind, []) * 10]
    changed = draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3, unique=True))
    for path in changed:
        flat[path] = draw(values(path, fields[path]))
    return flat, changed


def nested(kind: str, flat: dict) -> ConfigDict:
    """The config of these fields, as from a file of the user. Wrong types stay wrong."""
    groups: dict = {}
    for path, value in flat.items():
        group, _, name = path.rpartition(".")
        (groups.setdefault(group, {}) if group else groups)[name] = value
    return with_types(ConfigDict(groups), fields_of(kind))
