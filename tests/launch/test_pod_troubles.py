"""launch.pods: what goes wrong is tried again, or named, and leaves no slice."""

import os
import sys
import time

import pytest

from launch.pods import cloud
from launch.pods.cloud import Stage
from launch.pods.policy import Verdict
from tests.launch.fake_gcloud import NO_QUOTA, Google
from tests.launch.fake_google import HOUR, Chances
from tests.launch.watched import A, B, Watched


@pytest.mark.parametrize("code, attempts", [(1, 3), (2, 1)])
def test_a_run_that_fails_is_given_up_and_the_others_are_made(code, attempts):
    google = Google(0, {A: HOUR, B: HOUR})
    google.exit_codes = {A: code}
    watched = Watched(google, spot=False)
    assert watched.run() is Verdict.FAILED
    assert google.results == {B: 1}
    assert not google.nodes
    assert watched.plan.reason == f"{A} failed with exit code {code}"
    assert watched.plan.failures == {A: 3}
    assert watched.count("Traceback: a mistake") == attempts
    google = Google(0, {A: HOUR})
    google.exit_codes = {A: code}
    assert Watched(google).run() is Verdict.FAILED
    assert not google.nodes and not google.results


def test_a_failure_is_counted_once_even_if_it_takes_two_attempts_to_start_again():
    google = Google(0, {A: HOUR})
    google.exit_codes = {A: 1}
    watched, start, failed = Watched(google, spot=False), google._start, []

    def fail_every_second_time(node, script):
        failed.append(len(failed) % 2 == 1)
        return (255, "", "unreachable\n") if failed[-1] else start(node, script)

    google._start = fail_every_second_time
    assert watched.run() is Verdict.FAILED
    assert failed == [False, True, False, True, False]


@pytest.mark.parametrize("queued", [False, True])
def test_a_quota_that_is_used_up_is_named_and_nothing_is_left(queued):
    google = Google(0, {A: HOUR}, chances=Chances(no_quota=1.0))
    watched = Watched(google, queued=queued)
    assert watched.run() is Verdict.REFUSED
    assert NO_QUOTA in watched.plan.reason
    assert watched.count("ask for a slice") == 3
    assert google.billed == 0 and not google.nodes and not google.requests


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: (gcloud.compute.tpus.tpu-vm.create) PERMISSION_DENIED: Permission denied",
        "ERROR: (gcloud.compute.tpus.tpu-vm.create) unrecognized arguments: --netwrk",
    ],
)
def test_a_request_that_cannot_succeed_is_made_once(said):
    google = Google(0, {A: HOUR})
    google._tpu_vm_create = lambda rest: (2 if "unrecognized" in said else 1, "", f"{said}\n")
    watched = Watched(google)
    assert watched.run() is Verdict.REFUSED
    assert said in watched.plan.reason
    assert watched.count("ask for a slice") == 1


@pytest.mark.parametrize(
    "said",
    [
        "(gcloud.compute.tpus.tpu-vm.list) You do not currently have an active account selected.",
        "(gcloud.compute.tpus.tpu-vm.list) PERMISSION_DENIED: Permission 'tpu.nodes.list' denied",
    ],
)
def test_a_gcloud_that_is_not_set_up_is_named_at_once(said):
    google = Google(0, {A: HOUR})
    google._tpu_vm_list = lambda rest: (1, "", f"ERROR: {said}\nPlease run:\n  x\n")
    watched = Watched(google)
    assert watched.run() is Verdict.REFUSED
    assert watched.plan.reason == f"ERROR: {said} Please run: x"
    assert len(google.calls) == 1


def test_slices_with_a_missing_worker_are_replaced_and_given_up_in_the_end():
    google = Google(0, {A: HOUR}, 8, Chances(bad_host=1.0))
    watched = Watched(google)
    assert watched.run() is Verdict.UNUSABLE
    assert "1 of 8 hosts do not answer" in watched.plan.reason
    assert watched.count("ask for a slice") == 5
    assert not google.nodes
    assert google.billed < 2 * HOUR


def test_a_worker_that_vanishes_costs_one_slice():
    google = Google(0, {A: 3 * HOUR}, 8)
    watched = Watched(google, spot=False)
    compute, lost = google._compute, []

    def lose_one(node, seconds):
        if google.work[A] < 2 * HOUR and not lost:
            lost.append(node)
            node.hosts[3].answers = False
            node.begun = google.now
        compute(node, seconds)

    google._compute = lose_one
    assert watched.run() is Verdict.FINISHED
    assert watched.count("ask for a slice") == 2
    assert google.results == {A: 1}
    assert google.billed < 4 * HOUR


def test_a_key_that_is_not_in_the_agent_is_named_at_once():
    google = Google(0, {A: HOUR})
    said = 'SSH Key is not present in the SSH agent. Please run "ssh-add x" to add it'
    google._tpu_vm_ssh = lambda rest: (1, "", f"ERROR: (gcloud.compute.tpus.tpu-vm.ssh) {said}\n")
    watched = Watched(google)
    assert watched.run() is Verdict.UNUSABLE
    assert said in watched.plan.reason
    assert watched.count("ask for a slice") == 1


def test_a_request_that_fails_is_deleted_and_made_again_later():
    google = Google(2, {A: HOUR}, 4, Chances(no_capacity=0.7, wait=600))
    watched = Watched(google, queued=True, spot=False)
    assert watched.run() is Verdict.FINISHED
    assert watched.count("There is no more capacity") > 1
    assert not google.requests


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path):
    script = f"echo begun; echo 'ERROR: x' >&2; sleep 60 & echo $! > {tmp_path}/child; sleep 60"
    began = time.monotonic()
    answer = cloud.call(["bash", "-c", script], 1.0)
    assert answer == (cloud.TOO_LONG, "begun\n", "ERROR: x\n")
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        while time.monotonic() - began < 20:
            os.kill(child, 0)
    assert cloud.call([sys.executable, "-SEc", "print(5)"], 60.0).out == "5\n"


def test_states_that_google_may_add_are_waited_for():
    google = Google(0, {A: HOUR})
    google._tpu_vm_list = lambda rest: (0, '[{"name": "a/mine", "state": "POLISHING"}]', "")
    watched = Watched(google)
    assert watched.watch._cloud.look().stage is Stage.MAKING
    google._tpu_vm_list = lambda rest: (0, "Listed 0 items.", "")
    assert watched.watch._cloud.look().stage is Stage.UNKNOWN
