"""Random settings of every field: a run ends with a valid result, or is refused with a reason.

The values come from the fields' own types and ranges: their ends, values between, and wrong ones.
"""

import collections
import contextlib
import copy
import json
import math
import signal
import tempfile
import threading

import jax
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rethinking import cli, distributed, experiments
from rethinking.config import with_types
from rethinking.config.fields import Field
from rethinking.errors import InputError

# Small runs of every kind, in which one to three fields are changed.
SMALL = {
    "data.name": "digits",
    "data.num_train": 40,
    "num_devices": 1,
}
TRAINING = {"data.num_test": 20, "batch_size": 8, "max_epochs": 2, "model.options": {"width": 8}}
COMPLEXITY = TRAINING | {"max_epochs": 1, "data.num_test": 0}
BASES = {
    "training": [TRAINING],
    "kernels": [{"data.num_test": 20}],
    "complexity": [
        COMPLEXITY | {"measure": "rademacher", "draws": 2},
        COMPLEXITY | {"measure": "stability", "replacements": 1},
    ],
    "expressivity": [{}],
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
# Numbers of runs that are executed, and not refused: 310 in all.
RUNS = {"training": 120, "kernels": 80, "complexity": 30, "expressivity": 40, "linear": 40}
# What a complete run has measured.
MEASURED = {
    "training": ("train_loss", "train_accuracy", "test_accuracy", "steps"),
    "kernels": ("train_error", "test_error", "residual"),
    "complexity": ("seconds",),
    "expressivity": ("train_error", "max_residual"),
    "linear": ("contraction", "hessian_difference"),
}
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
    ],
    "data.data_dir": ["", "/no/such/folder", "~nobody/x", "gs://bucket/x", "\0"],
    "model.name": ["mlp_1x512", "mlp_3x512", "mlp", "os:path", "no_such_module:Net", ":", "a:b:c"],
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
SECONDS = 10.0  # after which a run is asked to stop
HANGS = 90  # seconds after which it has not listened

ended: collections.Counter = collections.Counter()


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
    fields = experiments.KINDS[kind].FIELDS
    flat = {path: copy.deepcopy(field.default) for path, field in fields.items()}
    flat |= SMALL | draw(st.sampled_from(BASES[kind]))
    # Names have no effect, and another kind is always refused.
    paths = sorted(fields.keys() - {"experiment", "row", "kind"}) * 5 + [
        "experiment",
        "row",
        "kind",
    ]
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
    return with_types(ConfigDict(groups), experiments.KINDS[kind].FIELDS)


@contextlib.contextmanager
def watched():
    """Asks the run inside to stop after SECONDS. Raises TimeoutError if it does not."""

    def hangs(*_):
        raise TimeoutError("the run hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    timer = threading.Timer(SECONDS, distributed.note_sigterm)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        distributed._sigterm.clear()


def check_run(kind: str, flat: dict, changed: list[str]) -> None:
    settings_ = {path: flat[path] for path in changed}
    with tempfile.TemporaryDirectory() as workdir:
        try:
            with watched():
                result = experiments.run(nested(kind, flat), f"{workdir}/run")
        except InputError as error:
            ended[kind, "refused"] += 1
            assert 10 < len(str(error)) < 1000, settings_
            return
        except Exception as error:
            error.add_note(f"{kind}: {settings_!r}")
            raise
        ended[kind, "stopped" if result is None else result["status"]] += 1
        if result is None:
            return
        with open(f"{workdir}/run/result.json") as file:
            assert json.load(file) == result, settings_
        json.dumps(result, allow_nan=False)
        assert result["status"] in ("complete", "diverged"), settings_
        if result["status"] == "complete":
            for name in MEASURED[kind]:
                assert result[name] is not None, (name, settings_)


def executed(kind: str) -> int:
    """The number of runs so far that were not refused."""
    return sum(count for key, count in ended.items() if key[0] == kind and key[1] != "refused")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", sorted(RUNS))
def test_a_random_config_is_run_or_refused(kind, capsys):
    @settings(
        max_examples=6 * RUNS[kind],
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(configs(kind))
    def check(drawn):
        if executed(kind) < RUNS[kind]:
            check_run(kind, *drawn)
            if sum(ended.values()) % 20 == 0:
                jax.clear_caches()

    check()
    with capsys.disabled():
        print({how: count for (which, how), count in ended.items() if which == kind})
    assert executed(kind) == RUNS[kind]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_random_config_is_accepted_or_refused_by_name(data):
    kind = data.draw(st.sampled_from(sorted(RUNS)))
    flat, _ = data.draw(configs(kind))
    try:
        experiments.check(nested(kind, flat))
    except InputError as error:
        assert "config." in str(error)
        assert len(str(error)) < 1000


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_random_override_is_parsed_or_refused(data):
    fields = experiments.KINDS["training"].FIELDS
    path = data.draw(st.sampled_from(sorted(fields)))
    text = data.draw(values(path, fields[path]).map(str) | st.text(max_size=20))
    try:
        config = cli.parse_config(
            ["--config=configs/quickstart.py:true_labels", f"--config.{path}={text}"]
        )
        experiments.check(config)
    except InputError as error:
        assert path.split(".")[-1] in str(error)
        assert len(str(error)) < 1000
