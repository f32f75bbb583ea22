"""A cache of its own for every test, and a small TFDS set."""

import pytest

from tests.data import sets, streams


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the decoded images. Each test has its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rethinking" / "data"


@pytest.fixture
def planted(tmp_path):
    """The folder of the TFDS set "planted", and the set's arrays."""
    return sets.write(tmp_path / "tfds")


@pytest.fixture
def held(tmp_path):
    """The arrays of the set "pictures", which is written to `tmp_path`."""
    return streams.write(tmp_path)
