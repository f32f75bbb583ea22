"""A Slurm cluster in a folder: the programs that a batch script calls, with a state.

Each job, and each task of an array, has a folder JOBS/NAME with its state, its script and the
number of its running step. As in the real one, the number of an array's first task is also that of
the whole array.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys

FIRST = 4097
PROGRAMS = ("sbatch", "scancel", "scontrol", "squeue", "srun")


class Cluster:
    """The cluster in a folder. `path` is the PATH on which its programs hide the real ones."""

    def __init__(self, folder):
        self.folder = folder
        self.jobs = folder / "jobs"
        programs = folder / "bin"
        for place in (self.jobs, programs):
            place.mkdir(parents=True)
        for name in PROGRAMS:
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SE {__file__} {name} "$@"\n')
            program.chmod(0o755)
        self.variables = {
            "FAKE_SLURM": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    def states(self):
        """The state of each job, by its name."""
        return {job.name: (job / "state").read_text() for job in sorted(self.jobs.iterdir())}

    def begin(self, name, **environment):
        """Starts the script of a pending job, as a node does."""
        job = self.jobs / name
        assert (job / "state").read_text() == "PENDING"
        (job / "state").write_text("RUNNING")
        (job / "step").unlink(missing_ok=True)
        number, _, task = name.partition("_")
        variables = {"SLURM_JOB_ID": number}
        if task:
            variables = {
                "SLURM_JOB_ID": str(int(number) + int(task)),
                "SLURM_ARRAY_JOB_ID": number,
                "SLURM_ARRAY_TASK_ID": task,
            }
        return subprocess.Popen(
            ["bash", job / "script"],
            env=os.environ | self.variables | variables | environment,
            stdout=open(job / "output", "ab"),
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def kill(self, name, process):
        """Ends a job as Slurm does at its time limit, and when it is put back while it runs."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        job = self.jobs / name
        if (job / "state").read_text() == "RUNNING":
            (job / "state").write_text("TIMEOUT")


def main(program, arguments):
    jobs = pathlib.Path(os.environ["FAKE_SLURM"]) / "jobs"
    return globals()[program](jobs, arguments)


def sbatch(jobs, arguments):
    script = sys.stdin.read()
    options = re.findall(r"^#SBATCH --(\S+)", script, re.MULTILINE)
    array = next((option for option in options if option.startswith("array=")), None)
    number = FIRST + 100 * len({job.name.partition("_")[0] for job in jobs.iterdir()})
    names = [str(number)]
    if array:
        last = int(re.fullmatch(r"array=0-(\d+)(%\d+)?", array)[1])
        names = [f"{number}_{task}" for task in range(last + 1)]
    for name in names:
        (jobs / name).mkdir()
        (jobs / name / "script").write_text(script)
        (jobs / name / "state").write_text("PENDING")
    print(f"Submitted batch job {number}")


def squeue(jobs, arguments):
    assert {"--noheader", "--format=%T"} < set(arguments), arguments
    for job in _named(jobs, _value(arguments, "--jobs=")):
        print((job / "state").read_text())


def scontrol(jobs, arguments):
    assert arguments[0] == "requeue", arguments
    for job in _named(jobs, arguments[1]):
        (job / "state").write_text("PENDING")


def scancel(jobs, arguments):
    assert arguments[0] == "--signal=TERM", arguments  # it spares the batch script
    for job in _named(jobs, arguments[1]):
        if (job / "step").exists():
            os.kill(int((job / "step").read_text()), signal.SIGTERM)


def srun(jobs, arguments):
    name = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        name = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    (jobs / name / "srun").write_text("".join(f"{word}\0" for word in arguments))
    command = list(arguments)
    while command[0].startswith("--"):
        del command[0]
    step = subprocess.Popen(command)
    (jobs / name / "step").write_text(str(step.pid))
    return step.wait()


def _named(jobs, name):
    """The job of this name, or all tasks of the array with this number."""
    found = [job for job in jobs.iterdir() if name in (job.name, job.name.partition("_")[0])]
    if not found:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    return found


def _value(arguments, option):
    return next(word.removeprefix(option) for word in arguments if word.startswith(option))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
