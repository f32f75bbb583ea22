"""Makes the runs on one host of a slice, one after another, and writes its state to a file.

    python -m launch.pods.agent JOB RUNS

RUNS is JSON: a list of {"workdir": ..., "arguments": [...]}, the arguments of rethinking.main. All
hosts of the slice do this at the same time. `launch.tpu_pod` starts it, and reads the file. The
file has JOB, which names the runs, and one of these states:

    running PID           this process makes a run
    finished              all runs have a result
    stopped               the user gave `launch.tpu_pod --action=stop`
    saved WORKDIR         this run ended without a result, after SIGTERM or a time budget
    failed CODE WORKDIR   this run ended with an error and this exit code
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

from rethinking.rendezvous.peer import RUN_WORD

FOLDER = pathlib.Path("~/.rethinking")  # on each host
# How long a host waits for the result. Process 0 may write it after the other processes have ended.
RESULT_SECONDS = 60.0


def main(job: str, runs: list[dict], folder: pathlib.Path, seconds: float = RESULT_SECONDS) -> None:
    """Makes the runs until one has no result."""
    note(folder, f"{job} running {os.getpid()}")
    state = "finished"
    for run in runs:
        state = _make(run, folder, seconds)
        if state != "finished":
            break
    note(folder, f"{job} {state}")


def note(folder: pathlib.Path, state: str) -> None:
    """Writes the state. A reader sees the old or the new file, never a part of one."""
    partial = folder / "state.partial"
    partial.write_text(f"{state}\n")
    partial.rename(folder / "state")


def _make(run: dict, folder: pathlib.Path, seconds: float) -> str:
    workdir = run["workdir"]
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {workdir}", flush=True)
    # Processes of another run have another word, so they cannot join this one.
    word = hashlib.sha256(workdir.encode()).hexdigest()[:32]
    code = subprocess.run(
        [sys.executable, "-u", "-m", "rethinking.main", "--distributed", *run["arguments"]],
        env=os.environ | {RUN_WORD: word},
        stdin=subprocess.DEVNULL,
    ).returncode
    if code:
        return f"failed {code} {workdir}"
    if (folder / "stopped").exists():
        return "stopped"
    return "finished" if _wait_for(lambda: has_result(workdir), seconds) else f"saved {workdir}"


def has_result(workdir: str) -> bool:
    """Whether the run in this folder, which may be in a bucket, is finished."""
    from etils import epath  # here, because starting a run does not need it

    return (epath.Path(workdir) / "result.json").exists()


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), FOLDER.expanduser())
