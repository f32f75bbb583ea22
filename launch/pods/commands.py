"""The gcloud commands for one TPU slice."""

import re
from collections.abc import Sequence

from rethinking.errors import InputError, require, require_known

# https://docs.cloud.google.com/tpu/docs/runtimes
RUNTIMES = {
    "v6e": "v2-alpha-tpuv6e",
    "v5p": "v2-alpha-tpuv5",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v4": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v2": "tpu-ubuntu2204-base",
}
# The number in an accelerator type counts cores of these kinds, and chips of the others.
_CORES_PER_DEVICE = {"v2": 1, "v3": 1, "v4": 2, "v5p": 2}
# The most devices that one host has.
_MOST_PER_HOST = {"v4": 4, "v5p": 4}
# Options of gcloud that the launcher sets itself, and the flag of the launcher for each.
_OWN = {
    "accelerator-type": "--accelerator_type",
    "version": "--runtime_version",
    "runtime-version": "--runtime_version",
    "zone": "--zone",
    "project": "--project",
    "spot": "--spot",
    "node-id": "--name",
    "async": "no option: the launcher waits for the slice",
}


class Slice:
    """The gcloud commands for one TPU slice. Each method returns a command and runs nothing."""

    def __init__(
        self,
        name: str,
        zone: str,
        project: str | None = None,
        is_queued: bool = False,
        ssh_options: Sequence[str] = (),
    ):
        """`is_queued`: a queued resource with the same name asks for the slice.

        `ssh_options` are more options of `gcloud compute tpus tpu-vm ssh` and `scp`.
        """
        self.name, self.is_queued = name, is_queued
        self._where = [f"--zone={zone}"]
        if project:
            self._where.append(f"--project={project}")
        self._ssh_options = [f"--{option}" for option in ssh_options]

    def create(
        self,
        accelerator_type: str,
        runtime_version: str | None = None,
        spot: bool = False,
        more: Sequence[str] = (),
    ) -> list[str]:
        """Creates the slice, or asks for it. `more` are further options, such as network=NAME.

        Raises InputError if the kind of chip is unknown and `runtime_version` is missing, and for
        options that the launcher sets itself.
        """
        for option in more:
            own = _OWN.get(option.partition("=")[0])
            require(own is None, f"--gcloud={option}: the launcher sets this itself. Use {own}.")
        if not runtime_version:
            require_known(
                _kind(accelerator_type),
                RUNTIMES,
                f"--accelerator_type={accelerator_type}: add a --runtime_version. Unknown kind",
            )
            runtime_version = RUNTIMES[_kind(accelerator_type)]
        version = "runtime-version" if self.is_queued else "version"
        arguments = [
            self.name,
            *([f"--node-id={self.name}"] if self.is_queued else []),
            f"--accelerator-type={accelerator_type}",
            f"--{version}={runtime_version}",
            *(["--spot"] if spot else []),
            *(f"--{option}" for option in more),
        ]
        return (
            self._queued("create", *arguments) if self.is_queued else self._vm("create", *arguments)
        )

    def copy(self, file: str, *options: str) -> list[str]:
        """Copies a file to the home folder on every host."""
        return self._vm("scp", file, f"{self.name}:", "--worker=all", *self._ssh_options, *options)

    def ssh(self, command: str, *options: str, worker: str = "all") -> list[str]:
        """Runs a shell command on one or all hosts."""
        return self._vm(
            "ssh",
            self.name,
            f"--worker={worker}",
            f"--command={command}",
            *self._ssh_options,
            *options,
        )

    def describe(self) -> list[str]:
        """Prints the state of the slice: CREATING, READY, PREEMPTED, ..."""
        if self.is_queued:
            return self._queued("describe", self.name, "--format=value(state.state)")
        return self._vm("describe", self.name, "--format=value(state)")

    def list_slices(self) -> list[str]:
        """Prints all slices of the zone as JSON: an empty list if there is none."""
        return self._vm("list", "--format=json")

    def list_requests(self) -> list[str]:
        """Prints all queued resources of the zone as JSON."""
        return self._queued("list", "--format=json")

    def delete(self) -> list[str]:
        """Deletes the slice and all files on its hosts, without a question to the user."""
        if self.is_queued:
            return self._queued("delete", self.name, "--force", "--quiet")
        return self._vm("delete", self.name, "--quiet")

    def _vm(self, verb: str, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *arguments, *self._where]

    def _queued(self, verb: str, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "queued-resources", verb, *arguments, *self._where]


def list_file(workdir: str, name: str) -> list[str]:
    """Succeeds if a folder of a bucket has a file of this name."""
    return ["gcloud", "storage", "ls", f"{workdir.rstrip('/')}/{name}"]


def print_file(workdir: str, name: str) -> list[str]:
    """Prints a file in a folder of a bucket."""
    return ["gcloud", "storage", "cat", f"{workdir.rstrip('/')}/{name}"]


def count_devices(accelerator_type: str) -> tuple[int, int] | None:
    """JAX's devices of a slice, and the least number of its hosts; None for an unknown kind.

    Raises InputError for a type without a number.
    """
    kind = _kind(accelerator_type)
    if kind not in RUNTIMES:
        return None
    number = re.fullmatch(r"\w+-([1-9]\d*)", accelerator_type)
    if number is None:
        raise InputError(
            f"--accelerator_type={accelerator_type}: must be a kind and a number, as in "
            "v5litepod-16."
        )
    devices = max(1, int(number[1]) // _CORES_PER_DEVICE.get(kind, 1))
    return devices, -(-devices // _MOST_PER_HOST.get(kind, 8))


def _kind(accelerator_type: str) -> str:
    return accelerator_type.partition("-")[0]
