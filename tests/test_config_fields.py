"""The tables of fields: every bound is checked, at random values, and documented."""

import json
import math
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rethinking import experiments
from rethinking.config import check_fields, defaults, with_types
from rethinking.config.fields import Field
from rethinking.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent
# Every field of every kind.
FIELDS = [
    (kind, path, field)
    for kind, module in experiments.KINDS.items()
    for path, field in module.FIELDS.items()
]


def bounded(field: Field) -> bool:
    return bool(field.range)


def numbers(field: Field) -> st.SearchStrategy:
    """Any number of the field's type, allowed or not, bounds included."""
    bounds = (field.minimum, field.maximum, field.above, field.below)
    edges = [bound for bound in bounds if bound is not None]
    if isinstance(field.default, int):
        near = [edge + step for edge in edges for step in (-1, 0, 1)]
        return st.integers(-(2**33), 2**33) | st.sampled_from(near)
    return st.floats() | st.floats(-2, 2) | st.sampled_from([float(edge) for edge in edges])


def is_allowed(field: Field, value: float) -> bool:
    """The definition of the bounds, written down a second time."""
    if value != value or value in (float("inf"), float("-inf")):
        return False
    if field.minimum is not None and value < field.minimum:
        return False
    if field.maximum is not None and value > field.maximum:
        return False
    if field.above is not None and value <= field.above:
        return False
    return not (field.below is not None and value >= field.below)


@given(data=st.data())
def test_a_number_is_refused_by_name_if_and_only_if_it_is_out_of_bounds(data):
    kind, path, field = data.draw(st.sampled_from([one for one in FIELDS if bounded(one[2])]))
    value = data.draw(numbers(field))
    fields = experiments.KINDS[kind].FIELDS
    config = defaults(fields)
    config.update_from_flattened_dict({path: value})
    if is_allowed(field, value):
        check_fields(config, fields)
    else:
        with pytest.raises(InputError, match=rf"^config\.{path}=.*: must be "):
            check_fields(config, fields)


@pytest.mark.parametrize("kind, path, field", [one for one in FIELDS if one[2].choices])
def test_a_name_is_refused_with_the_nearest_one(kind, path, field):
    fields = experiments.KINDS[kind].FIELDS
    for choice in field.choices:
        config = defaults(fields)
        config.update_from_flattened_dict({path: choice})
        check_fields(config, fields)
    config.update_from_flattened_dict({path: f"{field.choices[0]}s"})
    with pytest.raises(InputError, match=f"config.{path}: .*Did you mean '{field.choices[0]}'"):
        check_fields(config, fields)


@pytest.mark.parametrize("kind, path, field", FIELDS)
def test_every_field_is_documented_and_its_default_allowed(kind, path, field):
    assert field.doc
    field.check(path, field.default)


def test_every_number_has_two_bounds():
    unbounded = set()
    for _, path, field in FIELDS:
        if field.type in (int, float):
            ends = (field.minimum, field.above), (field.maximum, field.below)
            if any(end == (None, None) for end in ends):
                unbounded.add(path)
    assert unbounded == set()


def test_the_committed_page_is_the_one_that_the_tables_give():
    command = [sys.executable, "docs/make_config_fields.py"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    remedy = "python docs/make_config_fields.py > docs/config_fields.md"
    assert (ROOT / "docs" / "config_fields.md").read_text() == made, remedy
    assert "| `augment.hue` | `0.0` |" in made
    assert "at least 0 and at most 0.5" in made


WRONG = {
    bool: ["True", 1, 0.0, None, [True]],
    int: ["128", 5.0, True, None, [5], {"a": 5}],
    float: ["0.1", True, None, [0.1], math.nan, 10**400],
    str: [5, None, ["digits"], True, b"digits", "a\nb", "a" * 5000],
    dict: [None, "{}", [], {"a": math.inf}, {"a": object()}, {"a b": 1}, {5: 1}],
}


@pytest.mark.parametrize("kind, path, field", FIELDS)
def test_a_value_of_another_type_is_refused_by_name(kind, path, field):
    for value in WRONG[field.type]:
        with pytest.raises(InputError) as refusal:
            field.check(path, value)
        assert str(refusal.value).startswith(f"config.{path}"), value
        assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("path, value", [("batch_size", True), ("max_epochs", None), ("row", None)])
def test_a_config_with_a_value_of_another_type_is_refused(path, value):
    config = experiments.defaults("training")
    config[path] = value
    with pytest.raises(InputError, match=f"^config.{path}={value}: must be a "):
        experiments.check(config)


def test_fields_that_are_missing_or_unknown_are_refused():
    fields = experiments.KINDS["training"].FIELDS
    for change, reason in (
        (
            lambda config: config.update(lerning_rate=1),
            "unknown field .* Did you mean 'learning_rate",
        ),
        (lambda config: config.augment.update(flp=True), "config.augment.flp: unknown field"),
        (lambda config: config.__delattr__("momentum"), "config.momentum is missing"),
        (lambda config: config.__delattr__("augment"), "config.augment=None: it is a group"),
    ):
        config = defaults(fields)
        change(config)
        with pytest.raises(InputError, match=reason):
            check_fields(config, fields)


def test_a_whole_number_may_stand_for_a_number():
    fields = experiments.KINDS["training"].FIELDS
    whole = ConfigDict(defaults(fields).to_dict() | {"learning_rate": 1})
    check_fields(whole, fields)
    typed = with_types(whole, fields)
    assert '"learning_rate": 1.0,' in typed.to_json()
    assert typed == whole
    assert with_types(typed, fields) is typed


def test_a_tuple_in_the_options_reads_back_equal(tmp_path):
    config = defaults(experiments.KINDS["training"].FIELDS)
    config.model.options = {"widths": (3, (4, 5))}
    again = json.loads(config.to_json())
    assert experiments.scientific(config) == experiments.scientific(again)
