"""A thousand runs: how long their report takes, and how much memory."""

import json
import subprocess
import sys
import time

import pytest

from rethinking.settings import SETTINGS, TABLE1_MODELS, cifar10, setting
from tests.report.runs import make_run, training_lines

LINES = 300


def make_runs(root, number, models):
    """Makes runs of LINES lines each: rows differ in network, labels and rate, with three seeds."""
    lines = [training_lines(0.01 * (seed + 1), 0.5, epochs=LINES - 1) for seed in range(3)]
    settings = list(SETTINGS)
    for run in range(number):
        row, seed = divmod(run, 3)
        made = setting(cifar10(models[row % len(models)]), settings[row // len(models) % 5])
        made.learning_rate = 0.01 * (1 + row // 25)
        make_run(root, f"sweep:{made.model.name}+{row}", seed, config=made, lines=lines[seed])


def report_on(runs, output):
    """Processor seconds, wall seconds and gigabytes of a process that makes a report.

    Linux has the gigabytes in /proc. `ru_maxrss` would begin with the memory of the parent.
    """
    start = time.monotonic()
    program = (
        "import json, pathlib, re, resource, sys; from rethinking import report; "
        "report.build(sys.argv[1:2], sys.argv[2]); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "status = pathlib.Path('/proc/self/status').read_text(); "
        "(most,) = re.findall(r'VmHWM:\\s+(\\d+) kB', status); "
        "print(json.dumps([used.ru_utime + used.ru_stime, int(most) * 1024 / 1e9]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, runs, output], capture_output=True, text=True, check=True
    )
    seconds, gigabytes = json.loads(ended.stdout.splitlines()[-1])
    return seconds, time.monotonic() - start, gigabytes


def test_sixty_runs_are_a_matter_of_seconds(tmp_path):
    make_runs(tmp_path / "runs", 60, models=("mlp_1x512",))
    seconds, _, gigabytes = report_on(tmp_path / "runs", tmp_path / "report")
    assert seconds < 30 and gigabytes < 0.6
    assert (tmp_path / "report" / "index.html").stat().st_size < 5e6


@pytest.mark.slow
def test_a_thousand_runs_take_a_minute_and_a_gigabyte_at_most(tmp_path):
    make_runs(tmp_path / "runs", 1000, TABLE1_MODELS)
    seconds, wall, gigabytes = report_on(tmp_path / "runs", tmp_path / "report")
    print(f"{seconds:.1f} s of processor time, {wall:.1f} s in all, {gigabytes:.2f} GB")
    assert seconds < 60 and gigabytes < 1
    page = tmp_path / "report" / "index.html"
    assert page.stat().st_size < 5e6 and "1000 complete" in page.read_text()
