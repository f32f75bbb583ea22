"""Random settings of every field: a run ends with a valid result, or is refused with a reason."""

import collections
import contextlib
import itertools
import json
import pathlib
import random
import signal
import tempfile
import threading

import jax
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rethinking import cli, distributed, experiments
from rethinking.errors import InputError
from tests import fuzzed
from tests.data import streamed_sets
from tests.experiments.trained import assert_same_run

# Numbers of runs that are executed, and not refused: 410 in all.
RUNS = {
    "training": 120,
    "streamed": 100,
    "kernels": 80,
    "complexity": 30,
    "expressivity": 40,
    "linear": 40,
}
# What a complete run has measured.
MEASURED = {
    "training": ("train_loss", "train_accuracy", "test_accuracy", "steps"),
    "streamed": ("train_loss", "train_accuracy", "test_accuracy", "steps", "test_skipped"),
    "kernels": ("train_error", "test_error", "residual"),
    "complexity": ("seconds",),
    "expressivity": ("train_error", "max_residual"),
    "linear": ("contraction", "hessian_difference"),
}
# Every so many runs are also stopped and continued.
CONTINUED = {"training": 8, "streamed": 4}
SECONDS = 10.0  # after which a run is asked to stop
HANGS = 90  # seconds after which it has not listened

ended: collections.Counter = collections.Counter()


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
                result = experiments.run(fuzzed.nested(kind, flat), f"{workdir}/run")
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
        if kind in CONTINUED and executed(kind) % CONTINUED[kind] == 0:
            check_continued(fuzzed.nested(kind, flat), pathlib.Path(workdir), settings_)
        with open(f"{workdir}/run/result.json") as file:
            assert json.load(file) == result, settings_
        json.dumps(result, allow_nan=False)
        assert result["status"] in ("complete", "diverged"), settings_
        if result["status"] == "complete":
            for name in MEASURED[kind]:
                assert result[name] is not None, (name, settings_)


def check_continued(config: ConfigDict, workdir: pathlib.Path, settings_: dict) -> None:
    """The same run, stopped at its n-th look at the clock, ends as the one in `workdir`/run."""
    n = random.Random(str(settings_)).randint(1, 40)
    looks = itertools.count(1)
    with pytest.MonkeyPatch.context() as patched, watched():
        patched.setattr(distributed, "sigterm_noticed", lambda: next(looks) == n)
        experiments.run(config, workdir / "stopped")
    with watched():
        if experiments.run(config, workdir / "stopped") is None:
            return
    try:
        assert_same_run(workdir / "stopped", workdir / "run")
    except AssertionError as error:
        error.add_note(f"stopped at look {n}: {settings_!r}")
        raise


def executed(kind: str) -> int:
    """The number of runs so far that were not refused."""
    return sum(count for key, count in ended.items() if key[0] == kind and key[1] != "refused")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", sorted(RUNS))
def test_a_random_config_is_run_or_refused(kind, capsys, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    streamed_sets.write(tmp_path)

    @settings(
        max_examples=6 * RUNS[kind],
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzzed.configs(kind))
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
    flat, _ = data.draw(fuzzed.configs(kind))
    try:
        experiments.check(fuzzed.nested(kind, flat))
    except InputError as error:
        assert "config." in str(error)
        assert len(str(error)) < 1000


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_random_override_is_parsed_or_refused(data):
    fields = experiments.KINDS["training"].FIELDS
    path = data.draw(st.sampled_from(sorted(fields)))
    text = data.draw(fuzzed.values(path, fields[path]).map(str) | st.text(max_size=20))
    try:
        config = cli.parse_config(
            ["--config=configs/quickstart.py:true_labels", f"--config.{path}={text}"]
        )
        experiments.check(config)
    except InputError as error:
        assert path.split(".")[-1] in str(error)
        assert len(str(error)) < 1000
