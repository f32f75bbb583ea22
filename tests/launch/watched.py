"""A watch of launch.pods over the runs of a fake cloud."""

from launch.pods.cloud import Answer, Cloud
from launch.pods.commands import Slice
from launch.pods.meter import Meter
from launch.pods.policy import Policy
from launch.pods.watch import Surroundings, Watch
from launch.run_list import Run
from tests.launch.fake_gcloud import CONFIG
from tests.launch.fake_google import HOUR

# Folders of runs.
A, B = "gs://bucket/a", "gs://bucket/b"


class InMemory(Meter):
    """A meter that writes no file, for the many minutes of the histories."""

    def __init__(self, hours):
        self.used, self._last, self._costs, self._limit = 0.0, None, False, hours * HOUR

    def _keep(self):
        pass

    def allow(self, hours):
        self._limit = hours * HOUR


class Watched:
    """A watch over the runs of a cloud, with what it says."""

    def __init__(self, google, hours=40.0, queued=False, only_start=False, spot=True, meter=None):
        self.google, self.said, self._billed = google, [], google.billed
        self.pod = Slice("mine", "us-west4-a", is_queued=queued)
        self.runs = [Run(CONFIG, workdir, [f"--workdir={workdir}"]) for workdir in google.work]
        self.plan = Policy(self.runs, only_start)
        self.meter = meter or (None if only_start else InMemory(hours))
        self.world = Surroundings(lambda: google.now, google.sleep, self.said.append)
        create = self.pod.create("v5litepod-32", spot=spot)
        calls = Cloud(self.pod, create, self.runs, lambda *call: Answer(*google.gcloud(*call)))
        self.watch = Watch(calls, self.plan, self.meter, "bundle", world=self.world)

    def run(self):
        verdict = self.watch.run()
        if self.meter:
            # The cloud counts whole minutes.
            assert self.google.billed - self._billed <= self.meter.used + 60
        return verdict

    def count(self, text):
        return sum(text in line for line in self.said)


def after(google, workdir, seconds, action):
    """Does something once, when a run needs only so many seconds more."""
    sleep, done = google.sleep, []

    def watched_sleep(pause):
        sleep(pause)
        if google.work[workdir] <= seconds and not done:
            done.append(True)
            action()

    google.sleep = watched_sleep
