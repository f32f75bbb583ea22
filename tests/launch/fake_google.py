"""Slices of TPUs that cost money, compute, and are taken away: what a fake gcloud shows.

The time is `Cloud.now`, and passes in `Cloud.sleep`.
"""

import dataclasses
import random

HOUR = 3600.0
NO_CAPACITY = (
    'There is no more capacity in the zone "us-west4-a"; you can try in another zone where Cloud '
    "TPU Nodes are offered (see https://cloud.google.com/tpu/docs/regions) [EID: 0x9f48947a7d57c8d]"
)
IN_QUEUE = ("WAITING_FOR_RESOURCES", "PROVISIONING", "FAILED", "SUSPENDED")


@dataclasses.dataclass
class Chances:
    """How often something happens: means in seconds, and probabilities of each call."""

    preempted_after: float = 3 * HOUR
    wait: float = 0.5 * HOUR  # of a request in the queue
    no_capacity: float = 0.0
    no_quota: float = 0.0
    broken: float = 0.0  # any call: the network, or gcloud itself
    bad_host: float = 0.0  # a slice has a host that never answers
    lost_host: float = 0.0  # per hour: a host vanishes while the slice stays
    bad_install: float = 0.0
    crash: float = 0.0  # per hour: a process of the run fails


@dataclasses.dataclass
class Host:
    state: str = "none new"
    installed: bool = False
    answers: bool = True


@dataclasses.dataclass
class Node:
    state: str
    ready_at: float
    preempted_at: float
    hosts: list[Host]
    spot: bool
    runs: list[str] = dataclasses.field(default_factory=list)
    begun: float = 0.0  # when the processes joined
    unsaved: float = 0.0
    deletes_itself_at: float = float("inf")


class Cloud:
    """The cloud. `work` has the seconds that each run in a bucket still needs."""

    def __init__(self, seed=0, work=None, num_hosts=4, chances=None):
        self.random = random.Random(seed)
        self.now = 1_700_000_000.0
        self.work = dict(work or {})
        self.results = {}  # how often each run was finished
        self.num_hosts = num_hosts
        self.chances = chances or Chances()
        self.nodes, self.requests = {}, {}
        self.billed = 0.0
        self.calls, self.commands = [], []
        self.exit_codes = {}  # of runs that always fail
        self.stops = []  # when `stop` is called from elsewhere
        self.preemptions = 0

    def sleep(self, seconds):
        """Lets time pass."""
        end = self.now + seconds
        while self.now < end:
            step = min(60.0, end - self.now)
            self.now += step
            for name in list(self.requests):
                self._serve(name)
            for node in list(self.nodes.values()):
                self._pass(node, step)
            for name, node in list(self.nodes.items()):
                if self.now >= node.deletes_itself_at:
                    del self.nodes[name]

    def _serve(self, name):
        request = self.requests[name]
        if request["state"] in IN_QUEUE[:2] and self.now >= request["served_at"]:
            if request["state"] == "PROVISIONING":
                request["state"] = "ACTIVE"
            elif self._happens(self.chances.no_capacity):
                request |= {"state": "FAILED", "message": NO_CAPACITY}
            else:
                request |= {"state": "PROVISIONING", "served_at": self.now + 200}
                self.make(name, request["spot"], 200)
        node = self.nodes.get(name)
        if request["state"] == "ACTIVE" and (node is None or node.state == "PREEMPTED"):
            request["state"] = "SUSPENDED"

    def _pass(self, node, seconds):
        if node.state in ("CREATING", "READY"):
            self.billed += seconds
        if node.state == "CREATING" and self.now >= node.ready_at:
            node.state = "READY"
        if node.spot and node.state in ("CREATING", "READY") and self.now >= node.preempted_at:
            self._preempt(node)
        if node.state == "READY" and node.runs:
            self._compute(node, seconds)

    def preempt(self, name):
        """Takes a slice away."""
        self._preempt(self.nodes[name])

    def _preempt(self, node):
        node.state = "PREEMPTED"
        self.preemptions += 1

    def _compute(self, node, seconds):
        running = [host for host in node.hosts if " running" in host.state]
        if not running:
            return
        if self._happens(self.chances.lost_host * seconds / HOUR):
            self.random.choice(node.hosts).answers = False
        alive = [host for host in running if host.answers]
        if len(alive) < len(node.hosts):
            if self.now > node.begun + 300:  # lost within a minute, or not joined within five
                self._end(node, f"failed 69 {node.runs[0]}")
            return
        if self.now < node.begun + 120:
            return
        code = self.exit_codes.get(node.runs[0])
        if code is not None or self._happens(self.chances.crash * seconds / HOUR):
            self._end(node, f"failed 69 {node.runs[0]}")
            self.random.choice(node.hosts).state = f"{self.job} failed {code or 1} {node.runs[0]}"
            return
        self._train(node, seconds)

    def _train(self, node, seconds):
        workdir = node.runs[0]
        node.unsaved += seconds
        if self.work[workdir] - node.unsaved <= 0:
            self.work[workdir] = 0
            self.results[workdir] = self.results.get(workdir, 0) + 1
        elif node.unsaved >= 300:
            self.work[workdir] -= node.unsaved
            node.unsaved = 0.0
        while node.runs and self.work[node.runs[0]] == 0:
            del node.runs[0]
            node.unsaved = 0.0
        if not node.runs:
            self._end(node, "finished")

    def _end(self, node, state):
        for host in node.hosts:
            if " running" in host.state:
                host.state = f"{self.job} {state}"
        node.unsaved = 0.0

    def _happens(self, probability):
        return self.random.random() < probability

    def make(self, name, spot, seconds):
        there = [Host() for _ in range(self.num_hosts)]
        if self._happens(self.chances.bad_host):
            self.random.choice(there).answers = False
        preempted_at = self.now + self.random.expovariate(1 / self.chances.preempted_after)
        self.nodes[name] = Node("CREATING", self.now + seconds, preempted_at, there, spot)

    def save(self, node):
        if node.runs and any(" running" in host.state for host in node.hosts):
            self.work[node.runs[0]] -= node.unsaved
            self._end(node, "stopped")
