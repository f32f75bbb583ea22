"""--debug_nans and --profile: what they find, and that they change nothing."""

import gzip
import json
import logging
import re

import jax
import pytest

from rethinking import cli, experiments
from rethinking.errors import InputError
from rethinking.experiments import kernel_table
from rethinking.experiments.inspection import Inspection
from rethinking.experiments.resident import ResidentTrainer
from tests.experiments.trained import STREAMED_MLP, assert_same_run, quickstart

DIVERGING = {"learning_rate": 1000.0, "data__num_train": 320, "max_epochs": 5}


def first_bad_step(config):
    """The first step after which loss or parameters are not finite, found one step at a time."""
    trainer = ResidentTrainer(config)
    step = jax.jit(trainer.single_step)
    state, number = trainer.initial, 0
    while True:
        for arguments in trainer.replay(number):
            state, loss = step(state, *arguments)
            number += 1
            if not all(jax.numpy.isfinite(x).all() for x in (loss, *jax.tree.leaves(state.params))):
                return number


def test_a_run_that_diverges_names_its_step_and_layer(tmp_path, caplog):
    config = quickstart(**DIVERGING)
    with caplog.at_level(logging.WARNING):
        found = experiments.run(config, tmp_path, inspection=Inspection(debug_nans=True))
    assert found["status"] == "diverged"
    (message,) = [record.message for record in caplog.records if "not finite" in record.message]
    step, loss, rest = re.fullmatch(
        r"Step (\d+) is the first that is not finite: the loss is (\S+)\. It comes from: (.*)\.",
        message,
    ).groups()
    assert int(step) == first_bad_step(config)
    assert loss in ("nan", "inf")
    assert re.match(r"layer MLP/Dense_[01], phase forward, operation dot_general -> float", rest)
    assert "mlp.py, line " in rest or "layers.py, line " in rest


def test_a_profile_names_phases_and_kernels_and_changes_nothing(tmp_path, caplog):
    config = quickstart(max_epochs=2, data__num_train=160, data__num_test=32)
    with caplog.at_level(logging.INFO, logger="rethinking"):
        experiments.run(config, tmp_path / "a", inspection=Inspection(3, debug_nans=True))
    experiments.run(config, tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    (trace,) = (tmp_path / "a" / "plugins/profile").glob("*/*.xplane.pb")
    perfetto = trace.with_name(trace.name.replace(".xplane.pb", ".trace.json.gz"))
    assert len(json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]) > 10
    table = (tmp_path / "a" / "profile.txt").read_text()
    assert table.strip() in caplog.text
    assert "not finite" not in caplog.text
    rows = [line.split() for line in table.splitlines() if line]
    phases = {row[2]: float(row[1].rstrip("%")) for row in rows[1:] if len(row) == 3}
    assert {"gather", "forward", "backward", "update", "evaluate"} <= phases.keys()
    assert sum(phases.values()) == pytest.approx(100, abs=1)
    # The table counts calls: three steps, each with a product in each of two layers.
    dots = [row for row in rows if row[3:4] == ["forward"] and row[-1].endswith("dot_general")]
    assert [row[2] for row in dots] == ["3", "3"]


@pytest.mark.slow
def test_a_streamed_run_has_a_profile(tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    arguments = [*STREAMED_MLP, "--config.num_devices=1", "--config.max_epochs=1"]
    experiments.run(cli.parse_config(arguments), tmp_path, inspection=Inspection(profile=2))
    (trace,) = (tmp_path / "plugins/profile").glob("*/*.xplane.pb")
    kernels = [kernel for kernel, _ in kernel_table._events(trace)]
    assert {"augment", "forward", "backward", "update"} <= {kernel.phase for kernel in kernels}
    dots = [kernel for kernel in kernels if kernel.scope == "forward/MLP/Dense_0/dot_general"]
    assert len(dots) == 2


def test_they_are_refused_where_no_network_trains(tmp_path):
    config = experiments.defaults("linear")
    with pytest.raises(InputError, match="--profile and --debug_nans are for training, but"):
        experiments.run(config, tmp_path, inspection=Inspection(profile=3))


def test_scopes_have_no_transformations():
    scope = "jit(step)/while/body/closed_call/backward/transpose(jvp(MLP))/Dense_0/dot_general"
    assert kernel_table._short(scope) == "backward/MLP/Dense_0/dot_general"
