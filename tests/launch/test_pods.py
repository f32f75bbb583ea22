"""launch.pods: runs on slices that are taken away, in clouds that fail in many ways."""

import os
import random

import pytest

from launch.pods import keep_going
from launch.pods.cloud import Answer, Cloud
from launch.pods.commands import Slice
from launch.pods.meter import Meter, default_file
from launch.pods.policy import Verdict
from launch.pods.watch import Surroundings
from launch.run_list import Run
from rethinking.errors import InputError
from tests.launch.fake_gcloud import CONFIG, Google, on_path
from tests.launch.fake_google import HOUR, Chances
from tests.launch.programs import put_program
from tests.launch.watched import A, B, InMemory, Watched, after


class Ended(Exception):
    """The machine of the watch is gone."""


def random_chances(seed):
    draw = random.Random(f"chances {seed}")
    return Chances(
        preempted_after=draw.uniform(0.5, 4) * HOUR,
        wait=draw.uniform(0, 3) * HOUR,
        no_capacity=draw.uniform(0, 0.7),
        no_quota=draw.uniform(0, 0.1),
        broken=draw.uniform(0, 0.1),
        bad_host=draw.uniform(0, 0.15),
        lost_host=draw.uniform(0, 0.05),
        bad_install=draw.uniform(0, 0.2),
        crash=draw.uniform(0, 0.02),
    )


@pytest.mark.parametrize("tens", range(10))
def test_a_run_survives_random_histories_of_preemption(tens):
    """A hundred in all, half of them with queued resources."""
    for seed in range(10 * tens, 10 * tens + 10):
        google = Google(seed, {A: 3 * HOUR}, 8, random_chances(seed))
        watched = Watched(google, queued=seed % 2 == 1)
        assert watched.run() is Verdict.FINISHED, (seed, watched.plan.reason, watched.said[-30:])
        assert google.results == {A: 1}
        assert not google.nodes and not google.requests
        assert google.billed <= 40 * HOUR


@pytest.mark.parametrize("seed", range(100, 110))
def test_no_history_exceeds_the_hours_and_more_hours_finish_the_run(seed):
    google = Google(seed, {A: 3 * HOUR}, 8, random_chances(seed))
    hours = random.Random(seed).uniform(0.6, 2.5)
    meter = InMemory(hours)
    watched = Watched(google, queued=seed % 2 == 1, meter=meter)
    assert watched.run() is Verdict.LIMIT
    assert not google.nodes and not google.requests
    assert google.billed <= hours * HOUR
    meter.allow(60)
    assert Watched(google, queued=seed % 2 == 1, meter=meter).run() is Verdict.FINISHED
    assert google.results == {A: 1}
    assert google.billed <= 60 * HOUR


def test_the_runs_of_a_sweep_are_made_one_after_another_on_one_slice():
    google = Google(0, {A: HOUR, B: HOUR})
    watched = Watched(google, spot=False)
    assert watched.run() is Verdict.FINISHED
    assert google.results == {A: 1, B: 1}
    assert watched.count("ask for a slice") == 1
    assert 2 * HOUR < google.billed < 2.5 * HOUR


def test_a_run_that_is_stopped_from_elsewhere_stays_stopped_and_the_slice_is_deleted():
    google = Google(0, {A: 2 * HOUR})
    watched = Watched(google, spot=False)
    after(google, A, HOUR, lambda: google.save(google.nodes["mine"]))
    assert watched.run() is Verdict.STOPPED
    assert not google.nodes and not google.results
    assert Watched(google, spot=False).run() is Verdict.FINISHED  # the same command continues
    assert google.results == {A: 1}
    assert google.billed < 2.7 * HOUR  # nothing was lost


def end_the_watch(google):
    def sleep(seconds):
        raise Ended

    google.sleep = sleep


def test_a_watch_that_was_interrupted_joins_the_run_and_counts_on(tmp_path):
    google = Google(0, {A: 2 * HOUR})
    sleep = google.sleep
    file = tmp_path / "meter.json"
    watched = Watched(google, spot=False, meter=Meter(file, 4 * HOUR))
    with pytest.raises(InputError, match="another watch of this slice"):
        Meter(file, HOUR)
    after(google, A, HOUR, lambda: end_the_watch(google))
    with pytest.raises(Ended):
        watched.run()
    watched.meter.close()
    google.sleep = sleep
    google.sleep(0.5 * HOUR)  # nobody watches
    again = Watched(google, spot=False, meter=Meter(file, 4 * HOUR))
    assert again.run() is Verdict.FINISHED
    assert google.results == {A: 1}
    assert again.count("ask for a slice") == again.count("start") == 0
    assert again.meter.used > 2 * HOUR
    again.meter.forget()
    assert not file.exists()


def test_a_slice_that_nobody_watches_any_more_deletes_itself_in_time():
    google = Google(0, {A: 20 * HOUR})
    sleep = google.sleep
    after(google, A, 19 * HOUR, lambda: end_the_watch(google))
    with pytest.raises(Ended):
        Watched(google, hours=3, spot=False).run()
    google.sleep = sleep
    google.sleep(10 * HOUR)
    assert not google.nodes
    assert 2.5 * HOUR < google.billed <= 3 * HOUR


def test_runs_of_somebody_else_are_left_alone():
    google = Google(0, {A: 2 * HOUR})
    assert Watched(google, only_start=True, spot=False).run() is Verdict.RUNNING
    other = Watched(Google(0, {B: HOUR}), spot=False)
    other.google.nodes = google.nodes
    assert other.run() is Verdict.BUSY
    assert other.google.nodes["mine"].runs == [A]


def test_up_ends_when_the_run_has_begun_and_leaves_the_slice():
    google = Google(1, {A: 2 * HOUR}, 8, Chances(no_capacity=0.8))
    watched = Watched(google, only_start=True)
    assert watched.run() is Verdict.RUNNING
    assert watched.count("no capacity") > 1
    assert google.nodes["mine"].state == "READY"
    assert [host.state.split()[1] for host in google.nodes["mine"].hosts] == 8 * ["running"]
    again = Watched(google, only_start=True)
    assert again.run() is Verdict.RUNNING
    assert again.count("start") == 1  # in "the runs have been started"


def test_a_finished_run_asks_for_no_slice():
    google = Google(0, {A: 0})
    watched = Watched(google)
    assert watched.run() is Verdict.FINISHED
    assert google.billed == 0 and watched.count("ask for a slice") == 0


def test_a_shorter_run_in_the_bucket_is_not_finished():
    longer = CONFIG.copy_and_resolve_references()
    longer.max_epochs += 1

    def is_finished(there, config, workdir=A):
        files = {f"{A}/result.json": "", f"{A}/config.json": there}

        def call(command, seconds):
            text = files.get(command[-1])
            return Answer(int(text is None), text or "", "")

        return Cloud(Slice("mine", "z"), [], [], call).is_finished(Run(config, workdir, []))

    short = CONFIG.to_json()
    assert is_finished(short, CONFIG) and is_finished(longer.to_json(), CONFIG)
    assert not is_finished(short, longer)
    assert not is_finished(None, CONFIG)  # gcloud does not answer
    assert not is_finished(short, CONFIG, B) and not is_finished(short, CONFIG, "/scratch/a")


def test_gcloud_on_the_path_is_asked(tmp_path, monkeypatch):
    """The whole of `watch`, but for the time, with a program in place of gcloud."""
    google = Google(0, {A: 900}, 4, Chances(preempted_after=1e9))
    after(google, A, 500, lambda: google.preempt("mine"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    put_program(tmp_path, "git", 'echo "$@" > "$3"')
    pod, said = Slice("mine", "us-west4-a"), []
    run = Run(CONFIG, A, [f"--workdir={A}"])
    arguments = (pod, pod.create("v5litepod-16", spot=True), [run], str(tmp_path / "bundle"), ())
    world = Surroundings(lambda: google.now, google.sleep, said.append)
    with on_path(google, tmp_path):
        assert keep_going.until_done(*arguments, 10.0, ("mine", "z"), world) == 0
    assert google.results == {A: 1} and google.preemptions == 1
    assert not google.nodes
    assert said[-1].startswith("The slice is deleted. Slices existed for 0.")
    assert not default_file("mine", "z", A).exists()
    assert (tmp_path / "bundle").read_text() == f"bundle create {tmp_path}/bundle HEAD\n"


@pytest.mark.parametrize("hours, right", [(0.5, False), (0.6, True)])
def test_a_limit_under_which_no_slice_would_be_made_is_refused(hours, right):
    if right:
        keep_going.check_hours(hours)
    else:
        with pytest.raises(InputError, match=r"must be more than 0\.58"):
            keep_going.check_hours(hours)
