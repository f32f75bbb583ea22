"""A gcloud that keeps a state, loses slices, and fails as the real one fails.

`Google.gcloud` answers, and `Google.now` is its time. `on_path` makes a program of it. What it
prints was taken from the source of gcloud 528 and from error reports.
"""

import contextlib
import json
import re
import shlex
import socketserver
import sys
import threading

from launch.pods import hosts
from rethinking import experiments
from tests.launch.fake_google import IN_QUEUE, NO_CAPACITY, Cloud

# The config of all runs.
CONFIG = experiments.defaults("training")
NO_QUOTA = (
    "Quota limit 'TPUV5sPreemptibleLitepodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0 "
    "in zone us-west4-a."
)
NO_NETWORK = "gcloud crashed (ConnectionError): HTTPSConnectionPool(host='tpu.googleapis.com')"


class Google(Cloud):
    """The cloud, asked by commands."""

    def gcloud(self, command, seconds=float("inf")):
        """Answers a command: exit code, standard output and messages. It takes some time."""
        self.calls.append(list(command))
        began = self.now
        if self._happens(self.chances.broken):
            self.sleep(min(seconds, 30))
            return 1, "", f"ERROR: {NO_NETWORK}\n"
        if command[1] == "storage":
            workdir, _, name = command[3].rpartition("/")
            self.sleep(2)
            if name == "config.json":
                return 0, json.dumps(CONFIG.to_dict()), ""
            if self.work.get(workdir) == 0:
                return 0, f"{command[3]}\n", ""
            return 1, "", "ERROR: (gcloud.storage.ls) One or more URLs matched no objects.\n"
        group, verb, rest = command[3], command[4], command[5:]
        answer = getattr(self, f"_{group}_{verb}".replace("-", "_"))(rest)
        took = self.now - began
        if took > seconds:
            return 124, answer[1], answer[2]
        return answer

    def _tpu_vm_list(self, rest):
        self.sleep(2)
        return 0, json.dumps([self._shown(name, node) for name, node in self.nodes.items()]), ""

    def _shown(self, name, node):
        ends = [{"ipAddress": f"10.0.0.{number}"} for number in range(len(node.hosts))]
        shown = {"name": f"projects/p/locations/us-west4-a/nodes/{name}", "state": node.state}
        return shown if node.state == "CREATING" else shown | {"networkEndpoints": ends}

    def _queued_resources_list(self, rest):
        self.sleep(2)
        found = []
        for name, request in self.requests.items():
            state = {"state": request["state"]}
            if "message" in request:
                state["failedData"] = {"error": {"code": 8, "message": request["message"]}}
            name = f"projects/p/locations/us-west4-a/queuedResources/{name}"
            found.append({"name": name, "state": state})
        return 0, json.dumps(found), ""

    def _tpu_vm_create(self, rest):
        name, program = rest[0], "gcloud.compute.tpus.tpu-vm.create"
        if name in self.nodes:
            return 1, "", f"ERROR: ({program}) ALREADY_EXISTS: Resource '{name}' already exists\n"
        head = f"Create request issued for: [{name}]\nWaiting for operation to complete...\n"
        if self._happens(self.chances.no_quota):
            self.sleep(5)
            return 1, "", f"ERROR: ({program}) RESOURCE_EXHAUSTED: {NO_QUOTA}\n"
        if self._happens(self.chances.no_capacity):
            self.sleep(60)
            error = json.dumps({"code": 8, "message": NO_CAPACITY}, indent=2)
            return 1, "", f"{head}.failed.\nERROR: ({program}) {error}\n"
        took = self.random.uniform(120, 400)
        self.make(name, "--spot" in rest, took)
        self.sleep(took + 5)
        return 0, "", f"{head}.done.\nCreated tpu [{name}].\n"

    def _queued_resources_create(self, rest):
        name, program = rest[0], "gcloud.compute.tpus.queued-resources.create"
        self.sleep(5)
        if name in self.requests:
            return 1, "", f"ERROR: ({program}) ALREADY_EXISTS: Resource '{name}' already exists\n"
        if self._happens(self.chances.no_quota):
            return 1, "", f"ERROR: ({program}) RESOURCE_EXHAUSTED: {NO_QUOTA}\n"
        served_at = self.now + self.random.expovariate(1 / self.chances.wait)
        request = {"state": IN_QUEUE[0], "served_at": served_at, "spot": "--spot" in rest}
        self.requests[name] = request
        return 0, "", f"Create request issued for: [{name}]\nCreated queued resource [{name}].\n"

    def _tpu_vm_delete(self, rest):
        self.sleep(self.random.uniform(30, 120))
        if self.nodes.pop(rest[0], None) is None:
            error = f"NOT_FOUND: Resource 'projects/p/locations/z/nodes/{rest[0]}' was not found"
            return 1, "", f"ERROR: (gcloud.compute.tpus.tpu-vm.delete) {error}\n"
        return 0, "", f"Delete request issued for: [{rest[0]}]\nDeleted tpu [{rest[0]}].\n"

    def _queued_resources_delete(self, rest):
        self.sleep(self.random.uniform(30, 120))
        assert {"--force", "--quiet"} <= set(rest)
        self.nodes.pop(rest[0], None)
        if self.requests.pop(rest[0], None) is None:
            return 1, "", "ERROR: (gcloud.compute.tpus.queued-resources.delete) NOT_FOUND\n"
        return 0, "", f"Deleted queued resource [{rest[0]}].\n"

    def _tpu_vm_scp(self, rest):
        node, refused = self._reach(rest[1].rstrip(":"))
        return refused or self._on_all(node, lambda host: "", 10)

    def _tpu_vm_ssh(self, rest):
        node, refused = self._reach(rest[0])
        if refused:
            return refused
        script = next(word for word in rest if word.startswith("--command="))
        return self._run(node, script.removeprefix("--command="))

    def _run(self, node, script):
        self.commands.append(script)
        if script == hosts.ASK:
            names = {id(host): f"t1v-n-w-{number}" for number, host in enumerate(node.hosts)}
            return self._on_all(node, lambda host: f"host {names[id(host)]}: {host.state}\n", 5)
        if script == hosts.INSTALL:
            if self._happens(self.chances.bad_install):
                self.sleep(60)
                return 1, "", "##### Command execution on worker 2 failed with exit status 1.\n"
            return self._on_all(node, lambda host: setattr(host, "installed", True) or "", 150)
        if script == hosts.STOP:
            return self._on_all(node, lambda host: self.save(node) or "", 3)
        if script == hosts.LAST_LINES:
            return self._on_all(node, lambda host: "Traceback: a mistake\n", 3)
        return self._start(node, script)

    def _start(self, node, script):
        line = next(line for line in script.splitlines() if "launch.pods.'agent'" in line)
        words = shlex.split(line)
        job, runs = words[words.index("launch.pods.agent") + 1 :][:2]
        self.job = job
        node.runs = [run["workdir"] for run in json.loads(runs)]
        node.begun, node.unsaved = self.now, 0.0
        deadline = re.search(r"sleep (\d+); exec gcloud", script)
        if deadline:
            node.deletes_itself_at = self.now + int(deadline[1])

        def begin(host):
            assert host.installed
            host.state = f"{job} running 77"
            return ""

        return self._on_all(node, begin, 10)

    def _reach(self, name):
        node = self.nodes.get(name)
        if node is None:
            return None, (1, "", f"ERROR: (gcloud.compute.tpus.tpu-vm.ssh) NOT_FOUND: {name}\n")
        if node.state == "PREEMPTED":
            said = 'This TPU has terminal state "PREEMPTED", so it cannot be used anymore.'
            return None, (1, "", f"ERROR: (gcloud.compute.tpus.tpu-vm.ssh) {said}\n")
        return node, None

    def _on_all(self, node, action, seconds):
        out, err, code = "", f"Using ssh batch size of {len(node.hosts)}.\n", 0
        for number, host in enumerate(node.hosts):
            err += f"SSH: Attempting to connect to worker {number}...\n"
            if host.answers:
                out += action(host)
            else:
                code, seconds = 255, 150
                err += (
                    "Retrying: SSH command error: [/usr/bin/ssh] exited with return code [255].\n"
                )
        self.sleep(seconds)
        return code, out, err


# A program that passes its arguments on, and prints what comes back.
PROGRAM = """\
#!{python} -SE
import json, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    stream = connection.makefile("rw")
    print(json.dumps(sys.argv[1:]), file=stream, flush=True)
    code, out, err = json.loads(stream.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


@contextlib.contextmanager
def on_path(google, folder):
    """Puts a program `gcloud` into a folder, which asks this `google`."""
    address = str(folder / "socket")
    program = folder / "gcloud"
    program.write_text(PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o755)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            answer = google.gcloud(["gcloud", *json.loads(self.rfile.readline())])
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    with socketserver.UnixStreamServer(address, Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()
