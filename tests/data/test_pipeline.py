"""Worker processes: they change no batch, and they end with their parent."""

import collections
import itertools
import signal
import subprocess
import sys

import psutil
import pytest

from rethinking.data import stream
from rethinking.data.pipeline import Reading
from rethinking.errors import InputError
from tests.data.streams import SIZE, assert_same, evaluate, load, train


def test_worker_processes_change_nothing(tmp_path, held):
    split, rows = load(tmp_path).test, slice(1, 3)
    # Two workers make three batches.
    expected = evaluate(split, 3, rows=rows)
    assert len(expected) == 3
    assert_same(evaluate(split, 3, rows=rows, num_workers=2), expected)


@pytest.mark.slow
def test_worker_processes_change_nothing_in_training(tmp_path, held):
    split, settings = load(tmp_path).train, {"first_step": 3, "rows": slice(1, 4)}
    for workers in (1, 2, 3):
        assert_same(train(split, 7, num_workers=workers, **settings), train(split, 7, **settings))


def test_worker_processes_outlive_a_sigterm_to_all_processes_of_a_program(held, tmp_path):
    """But not SIGKILL, which the system sends if it has too little memory."""
    split = load(tmp_path).train
    batches = stream.train_batches(split, 4, SIZE, 0, True, Reading(num_threads=2, num_workers=2))
    taken = [next(batches)]
    workers = [
        child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) >= 2
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    taken += itertools.islice(batches, 20)
    assert_same(taken, train(split, 21))
    workers[-1].kill()
    with pytest.raises(InputError, match=r"has ended .* exit code -9\)\. Choose fewer"):
        collections.deque(batches, maxlen=0)
    batches.close()
    assert not any(
        worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers
    )


def test_worker_processes_end_when_the_process_they_read_for_is_killed(held, tmp_path):
    program = (
        "import sys, time\nfrom rethinking.data import stream\nif __name__ == '__main__':\n"
        "    split = stream.load('pictures', sys.argv[1]).train\n"
        "    reading = stream.Reading(num_threads=2, num_workers=2)\n"
        "    batches = stream.train_batches(split, 4, 16, 0, True, reading)\n    next(batches)\n"
        "    print('reading', flush=True)\n    time.sleep(60)\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = psutil.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "reading\n"
    workers = [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
