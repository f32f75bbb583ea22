"""Training runs for the tests, and what they leave in their run directory."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from rethinking import cli, runs

ROOT = pathlib.Path(__file__).parents[2]
TIMES = {"seconds", "examples_per_second", "epoch_seconds", "input_wait_seconds"}
# A streamed run on small images: 100 of them are 6 and a quarter batches.
STREAMED = (
    "--config.data.stream=true",
    "--config.data.crop_size=0",
    "--config.data.name=imagenette_subset",
    "--config.data.num_train=100",
    "--config.data.num_test=40",
    "--config.data.image_size=32",
    "--config.batch_size=16",
    "--config.max_epochs=4",
    "--config.eval_batch_size=8",
    "--config.data.num_threads=2",
)
STREAMED_MLP = ("--config=configs/figure1.py:mlp_1x512+random_labels", *STREAMED)
STREAMED_INCEPTION = (
    "--config=configs/table2.py:random_labels",
    *STREAMED,
    "--config.data.image_size=75",
    "--config.dtype=float32",
    "--config.model.options.width=0.1",
    "--config.model.options.bn_momentum=0.9",
    "--config.average_decay=0",
)


def quickstart(row="true_labels", **fields):
    """The config of a quickstart row; `data__name="mnist"` sets config.data.name."""
    fields = {"num_devices": 1, "max_epochs": 3} | fields
    overrides = []
    for name, value in fields.items():
        overrides.append(f"--config.{name.replace('__', '.')}={value}")
    return cli.parse_config([f"--config=configs/quickstart.py:{row}", *overrides])


def command(module, *arguments, before=()):
    """The command that runs a module; `before` are options that precede the others."""
    return [sys.executable, "-m", module, *before, *arguments]


def kill(program, is_time, later=0.0):
    """Starts a program, and kills it by SIGKILL `later` seconds after `is_time()` is true.

    The program must not have ended before.
    """
    process = subprocess.Popen(program, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not is_time():
        time.sleep(0.005)
    time.sleep(later)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def lines(workdir):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def untimed(record):
    """A result or a line without the fields that two equal runs differ in."""
    return {name: value for name, value in record.items() if name not in TIMES}


def saved_steps(workdir):
    """The steps of the checkpoints, in order. Those that are being written do not count."""
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def final_state(workdir):
    """The newest checkpoint, as NumPy arrays: the devices that saved it may not be here."""
    folder = workdir / "checkpoints" / str(saved_steps(workdir)[-1]) / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        arrays = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), arrays)
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def assert_same_run(one, other):
    """Two run directories hold the same result, the same lines and, bit for bit, the same state."""
    assert untimed(runs.read_result(one)) == untimed(runs.read_result(other))
    assert list(map(untimed, lines(one))) == list(map(untimed, lines(other)))
    jax.tree.map(np.testing.assert_array_equal, final_state(one), final_state(other))
