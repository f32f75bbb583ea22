"""The table of chips: names, rates and hosts."""

import pytest

from rethinking import chips
from rethinking.errors import InputError


def test_short_names_are_those_of_the_table():
    for short, full in chips.SHORT_NAMES.items():
        assert chips.find(short) is chips.find(short.upper()) is chips.find(full)
    with pytest.raises(InputError, match=r"unknown chip 'h1000'.*Did you mean 'h100'"):
        chips.find("h1000")


def test_rates_are_those_of_the_data_sheets():
    h100, v5e = chips.find("h100"), chips.find("v5e")
    assert h100.rate("bfloat16") == 989e12 and h100.rate("float32") == 494e12  # TensorFloat-32
    assert v5e.rate("bfloat16") == v5e.rate("float32") == 197e12
    assert h100.rate(chips.FULL_FLOAT32) == h100.rate("float64") == 67e12
    assert v5e.rate(chips.FULL_FLOAT32) == pytest.approx(197e12 / 6) and not v5e.rate("float64")
    assert (h100.usable, v5e.usable) == (0.75, 1.0)


@pytest.mark.parametrize(
    "name, num_chips, cores, gigabytes",
    [("v5e", 1, 24, 48), ("v5e", 8, 224, 384), ("v5e", 256, 112, 192), ("v5p", 16, 208, 448)],
)
def test_hosts_of_a_slice(name, num_chips, cores, gigabytes):
    host = chips.host(chips.SHORT_NAMES[name], num_chips)
    assert (host.cores, host.memory) == (cores, 1e9 * gigabytes)


def test_a_gpu_has_no_host_in_the_table():
    assert chips.host(chips.SHORT_NAMES["h100"], 8) is None
