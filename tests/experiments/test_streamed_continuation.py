"""Streamed runs that are preempted, or that two processes share, equal one whole run."""

import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from rethinking import cli, experiments, runs
from tests.data import own_sets
from tests.experiments.trained import (
    ROOT,
    STREAMED_INCEPTION,
    STREAMED_MLP,
    assert_same_run,
    command,
    final_state,
    kill,
    lines,
    saved_steps,
    untimed,
)


def momentum(state):
    """The optimizer's running sums of gradients. They show errors that parameters hide."""
    leaves = jax.tree_util.tree_leaves_with_path(state["opt_state"])
    traces = [leaf.ravel() for path, leaf in leaves if "trace" in jax.tree_util.keystr(path)]
    return np.concatenate(traces)


def check_two_processes_equal_one(arguments, tmp_path, rtol, momentum_rtol):
    one, two = tmp_path / "one", tmp_path / "two"
    experiments.run(cli.parse_config(arguments), one)
    processes = ("--num_processes=2", "--devices_per_process=4", "--")
    run_two = command("launch.local", *arguments, f"--workdir={two}", before=processes)
    subprocess.run(run_two, cwd=ROOT, check=True, capture_output=True)
    assert runs.read_result(two)["num_devices"] == 8
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        assert untimed(ours) == pytest.approx(untimed(theirs), rel=rtol)
    ours, theirs = final_state(two), final_state(one)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6),
        ours["params"],
        theirs["params"],
    )
    difference = np.linalg.norm(momentum(ours) - momentum(theirs))
    assert difference < momentum_rtol * np.linalg.norm(momentum(theirs))
    assert np.linalg.norm(momentum(theirs)) != 0


def test_two_processes_equal_one(tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    check_two_processes_equal_one(STREAMED_MLP, tmp_path, 1e-4, 1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_equal_one_with_inception_v3(tmp_path, tfds_dir):
    """25 steps with synchronized batch norm, an auxiliary head and distorted images.

    The learning rate is small enough not to amplify rounding. At 1e-3 the losses of 4 and of 8
    devices in one process agree to 4e-7 for three steps, and differ in the third digit after six.
    Gradients differ more: after 25 steps by 3% in all, because rounding has flipped some ReLUs and
    maxima.
    """
    tfds_dir("imagenette_subset")
    arguments = (
        *STREAMED_INCEPTION,
        "--config.model.sync_batch_norm=true",
        "--config.augment.crop=true",
        "--config.augment.flip=true",
        "--config.augment.hue=0.2",
        "--config.learning_rate=1e-6",
    )
    check_two_processes_equal_one(arguments, tmp_path, 1e-5, 0.1)


def test_preempted_in_mid_epoch_and_continued_it_ends_as_if_never_stopped(tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = (
        *STREAMED_MLP,
        "--config.max_epochs=12",
        "--config.eval_epochs=3",
        "--config.batch_size=4",
        "--config.augment.crop=true",
        "--config.augment.brightness=0.1",
        "--config.num_devices=1",
    )
    run_whole = command("rethinking.main", *arguments, f"--workdir={whole}")
    run_stopped = command("rethinking.main", *arguments, f"--workdir={stopped}")
    subprocess.run(run_whole, cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(run_stopped, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (stopped / "metrics.jsonl").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "the same command continues" in said
    assert runs.read_result(stopped) is None
    (step,) = saved_steps(stopped)
    assert step < 3 * 25
    subprocess.run(run_stopped, cwd=ROOT, check=True, capture_output=True)
    assert_same_run(stopped, whole)


def test_stopped_in_evaluations_and_continued_it_ends_as_if_never_stopped(
    tmp_path, tfds_dir, monkeypatch
):
    """SIGTERM comes in the evaluations before training, of the second epoch and of the last.

    The run looks for it before each of the 18 batches of an evaluation, and before each of the 38
    batches that it trains on.
    """
    tfds_dir("imagenette_subset")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = ("--config.num_devices=1", "--config.max_epochs=6", "--config.eval_epochs=2")
    config = cli.parse_config([*STREAMED_MLP, *settings])
    experiments.run(config, whole)
    for looks, step, measured in ((5, 0, 0), (18 + 13 + 5, 13, 1), (18 + 25 + 18 + 5, 38, 3)):
        looked = iter(range(1, 1000))
        with monkeypatch.context() as patch:
            patch.setattr(
                "rethinking.distributed.sigterm_noticed",
                lambda n=looks, looked=looked: next(looked) == n,
            )
            assert experiments.run(config, stopped) is None
        assert len(lines(stopped)) == measured
        assert saved_steps(stopped)[-1] == step
    experiments.run(config, stopped)
    assert_same_run(stopped, whole)


@pytest.mark.slow  # fast tests stop such a network, and such a folder, within a program
def test_killed_in_mid_epoch_an_nnx_network_on_a_folder_ends_as_if_never_stopped(tmp_path):
    """SIGKILL ends the program. The network has batch norm and dropout."""
    folder = own_sets.write_folder(tmp_path / "set", own_sets.digits(160, 40), suffix=".jpg")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = (
        *STREAMED_MLP,
        "--config.model.name=tests.models.kinds:NnxNormalized",
        "--config.model.options={'dropout': 0.5}",
        f"--config.data.name={folder}",
        "--config.data.num_train=0",
        "--config.data.num_test=0",
        "--config.data.image_size=8",
        "--config.batch_size=12",
        "--config.eval_batch_size=40",
        "--config.max_epochs=2",
        "--config.augment.crop=true",
        "--config.augment.flip=true",
        "--config.checkpoint_seconds=0",
        "--config.num_devices=1",
    )
    run_whole = command("rethinking.main", *arguments, f"--workdir={whole}")
    run_killed = command("rethinking.main", *arguments, f"--workdir={killed}")
    subprocess.run(run_whole, cwd=ROOT, check=True, capture_output=True)
    assert [line["step"] for line in lines(whole)] == [0, 14, 27]

    def is_time():
        return (killed / "checkpoints").exists() and saved_steps(killed)[-1:] > [1]

    kill(run_killed, is_time)
    assert 1 < saved_steps(killed)[-1] < 14
    subprocess.run(run_killed, cwd=ROOT, check=True, capture_output=True)
    assert_same_run(killed, whole)
