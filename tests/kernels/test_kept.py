"""An interrupted solve continues with what it finished, and ends the same, bit for bit."""

import errno
import os

import jax
import numpy as np
import pytest

from rethinking import sharding
from rethinking.kernels import cholesky, gram, interpolate, kept, systems

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((50, 6))
Y = np.arange(50) % 3
TARGETS = np.eye(3)[Y]
NUM_PANELS = 5


class Stopped(Exception):
    """Stands for the end of the time, or of the process."""


def features(x, first=0):
    """Four blocks of features; counts how many are computed."""
    for number in range(first, 4):
        features.computed.append(number)
        yield np.cos(x @ np.random.default_rng(number).standard_normal((6, 20)))


class Panels(systems.KernelSystem):
    """Counts the panels that are made."""

    made: list = []  # noqa: RUF012  one list for all

    def make_panel(self, storage, ridge, g):
        self.made.append(g)
        return super().make_panel(storage, ridge, g)


def make(kind, num_devices):
    """The system, new as in a new process."""
    features.computed, Panels.made = [], []
    mesh = sharding.device_mesh(num_devices, "rows")
    backend = cholesky.make_backend(50, "float64", mesh, NUM_PANELS)
    if kind == "kernel":
        return Panels(gram.Gaussian(1.0), X, backend)
    return systems.FeatureSystem(features, X, backend)


def keeper(folder, system, matrix="this one"):
    return kept.Kept(folder / "solve", system.backend, matrix)


def solve(system, kept_, stop_at=None):
    """Solves, and is killed before panel `stop_at`."""
    panels = []

    def before_panel():
        panels.append(1)
        if len(panels) - 1 == stop_at:
            raise Stopped

    return interpolate.solve(system, TARGETS, Y, 0.1, before_panel, kept_)


@pytest.fixture(autouse=True)
def _write_at_once(monkeypatch):
    monkeypatch.setattr(kept, "SECONDS_BETWEEN_PANELS", 0)
    monkeypatch.setattr(kept, "SECONDS_BETWEEN_SUMS", 0)


@pytest.mark.parametrize(
    "kind, num_devices",
    [("kernel", 1), ("features", 1), pytest.param("kernel", 2, marks=pytest.mark.slow)],
)
def test_a_killed_solve_continues_and_ends_the_same(kind, num_devices, tmp_path):
    with jax.enable_x64(True):
        whole = solve(make(kind, num_devices), None)
        with pytest.raises(Stopped):
            system = make(kind, num_devices)
            solve(system, keeper(tmp_path, system), stop_at=2)
        system = make(kind, num_devices)
        again = solve(system, keeper(tmp_path, system))
        np.testing.assert_array_equal(again.alpha, whole.alpha)
        assert again.certificate == whole.certificate
    if kind == "kernel":
        assert Panels.made == [2, 3, 4]
    else:
        assert features.computed == [0, 1, 2, 3]  # the product's, none of the sum's


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_killed_sum_continues(num_devices, tmp_path):
    with jax.enable_x64(True):
        whole = solve(make("features", num_devices), None)
        system = make("features", num_devices)
        keeps = keeper(tmp_path, system)
        enough = keeps.note_sum

        def note_sum(storage, blocks):
            enough(storage, blocks)
            if blocks == 3:
                raise Stopped

        keeps.note_sum = note_sum
        with pytest.raises(Stopped):
            solve(system, keeps)
        # Only the newest sum takes space.
        assert {file.stem for file in (tmp_path / "solve").iterdir()} == {"sum_3", "seconds"}
        system = make("features", num_devices)
        again = solve(system, keeper(tmp_path, system))
        np.testing.assert_array_equal(again.alpha, whole.alpha)
        assert features.computed == [3, 0, 1, 2, 3]


def killed(folder, kind="kernel", stop_at=3):
    system = make(kind, 1)
    with pytest.raises(Stopped):
        solve(system, keeper(folder, system), stop_at)


def test_seconds_of_interrupted_solves_add_up(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(kept.time, "monotonic", lambda: now[0])
    with jax.enable_x64(True):
        system = make("kernel", 1)
        for expected in (0, 7, 14):
            keeps = keeper(tmp_path, system)
            assert keeps.seconds_before == expected
            now[0] += 7
            with pytest.raises(Stopped):
                solve(system, keeps, stop_at=1)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda file: os.truncate(file, 36), os.remove])
@pytest.mark.parametrize("kind", ["kernel", "features"])
def test_a_damaged_file_is_computed_again(kind, damage, tmp_path, caplog):
    with jax.enable_x64(True):
        whole = solve(make(kind, 1), None)
        killed(tmp_path, kind)
        names = sorted(file.name for file in (tmp_path / "solve").iterdir())
        assert "factor.2" in names and ("sum_4.4" in names) == (kind == "features")
        for name in names:
            damage(tmp_path / "solve" / name)
            system = make(kind, 1)
            again = solve(system, keeper(tmp_path, system))
            np.testing.assert_array_equal(again.alpha, whole.alpha)
            assert damage is os.remove or f"{name} is damaged" in caplog.text


def test_files_of_another_matrix_are_not_used(tmp_path):
    with jax.enable_x64(True):
        whole = solve(make("kernel", 1), None)
        killed(tmp_path)
        system = make("kernel", 1)
        again = solve(system, keeper(tmp_path, system, "another one"))
        assert Panels.made == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(again.alpha, whole.alpha)
        system = make("kernel", 2)
        solve(system, keeper(tmp_path, system))
        assert Panels.made == [0, 1, 2, 3, 4]


def test_a_full_disk_is_one_line_and_the_solve_goes_on(tmp_path, caplog, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with jax.enable_x64(True):
        system = make("kernel", 1)
        found = solve(system, keeper(tmp_path, system))
        np.testing.assert_array_equal(found.alpha, solve(make("kernel", 1), None).alpha)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "No space left on device" in caplog.text
    assert not list((tmp_path / "solve").iterdir())


def test_nothing_is_written_in_a_short_solve_and_all_of_it_at_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SECONDS_BETWEEN_PANELS", 60)
    with jax.enable_x64(True):
        system = make("kernel", 1)
        keeps = keeper(tmp_path, system)
        with pytest.raises(Stopped):
            solve(system, keeps, stop_at=3)
        assert not (tmp_path / "solve").exists()
        keeps.flush()
        assert len(list((tmp_path / "solve").iterdir())) == 3 + 1
        keeps.remove()
        assert not (tmp_path / "solve").exists()
