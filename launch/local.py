"""Makes one run in several processes on this machine, each with its own devices.

    python -m launch.local --num_processes=N [--devices_per_process=K] \\
        -- ARGUMENTS OF rethinking.main

Each process gets an equal share of the visible GPUs. With --devices_per_process, each process has K
fake CPU devices instead: use this to try a run of several hosts on one machine. Each line of output
begins with the number of its process.

If a process fails, this program ends the others, shows the last lines of the failed process again,
and ends with its exit code. On SIGTERM or Ctrl-C it sends SIGTERM to all processes. They save the
run and stop. A second signal kills them.
"""

import os
import queue
import secrets
import socket
import sys
from collections.abc import Mapping

from absl import app, flags

from launch import devices, processes
from rethinking import cli, rendezvous
from rethinking.cli import flag_types, output
from rethinking.errors import InputError
from rethinking.rendezvous.peer import RUN_WORD

_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes that make the run.", lower_bound=1
)
_DEVICES = flags.DEFINE_integer(
    "devices_per_process", None, "Number of fake CPU devices of each process.", lower_bound=1
)
_GRACE = flag_types.define_seconds(
    "grace_seconds",
    10.0,
    "After a failure, seconds until the other processes are killed.",
    most=1e6,
)
_MODULE = flags.DEFINE_string(
    "module", "rethinking.main", "The program to start. It must have the flags of rethinking.main."
)


def command(module: str, arguments: list[str], place: rendezvous.Place) -> list[str]:
    """The command that starts the process with this place."""
    return [
        sys.executable,
        "-u",
        "-m",
        module,
        *arguments,
        "--distributed",
        f"--coordinator_address={place.address}",
        f"--num_processes={place.num_processes}",
        f"--process_id={place.process_id}",
    ]


def deal_devices(
    num_processes: int, fake: int | None, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """For each process, the environment variables that give it its devices.

    These are `fake` CPU devices, or an equal share of the visible GPUs.
    Raises InputError if the GPUs cannot be divided evenly.
    """
    if fake:
        return [devices.fake_devices(fake, environment)] * num_processes
    gpus = devices.visible_gpus(environment)
    if not gpus:
        return [{}] * num_processes
    if len(gpus) % num_processes:
        raise InputError(
            f"--num_processes={num_processes}: the {len(gpus)} visible GPUs ({','.join(gpus)}) "
            "cannot be divided evenly. Choose another number, or set CUDA_VISIBLE_DEVICES."
        )
    share = len(gpus) // num_processes
    environments = []
    for first in range(0, len(gpus), share):
        environments.append({"CUDA_VISIBLE_DEVICES": ",".join(gpus[first : first + share])})
    return environments


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def main(arguments: list[str]) -> None:
    """Starts the processes and waits for them. Ends with the exit code of the first failure."""
    output.outlive_terminal()
    total = _NUM_PROCESSES.value
    try:
        environments = deal_devices(total, _DEVICES.value, os.environ)
    except InputError as error:
        cli.fail(error)
    address, word = _free_address(), secrets.token_hex(16)
    ended: queue.SimpleQueue = queue.SimpleQueue()
    started: list[processes.Process] = []
    processes.pass_on_signals(started)
    for number, environment in enumerate(environments):
        line = command(_MODULE.value, arguments, rendezvous.Place(address, total, number))
        environment = environment | {RUN_WORD: word}
        started.append(processes.Process(number, line, environment, ended))
    order = processes.await_all(started, ended, _GRACE.value)
    for process in started:
        process.drain()
    failed = processes.first_failure(order)
    if failed:
        processes.report(failed, total)
        code = failed.exit_code
        # As a shell does: 128 + N after signal N.
        sys.exit(code if code > 0 else 128 - code)


if __name__ == "__main__":
    app.run(
        main, flags_parser=lambda argv: cli.parse_launcher_flags(argv, required=("num_processes",))
    )
