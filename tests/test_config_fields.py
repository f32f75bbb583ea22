"""The tables of fields: every bound is checked, at random values, and documented."""

import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rethinking import experiments
from rethinking.config import Field, check_fields, defaults
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


def test_every_number_has_a_bound():
    unbounded = {
        path
        for _, path, field in FIELDS
        if not bounded(field) and isinstance(field.default, int | float)
        if not isinstance(field.default, bool)
    }
    assert unbounded == set()


def test_the_committed_page_is_the_one_that_the_tables_give():
    command = [sys.executable, "docs/make_config_fields.py"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    remedy = "python docs/make_config_fields.py > docs/config_fields.md"
    assert (ROOT / "docs" / "config_fields.md").read_text() == made, remedy
    assert "| `augment.hue` | `0.0` |" in made
    assert "at least 0 and at most 0.5" in made
