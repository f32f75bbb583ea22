"""One of several processes of a run, with two fake devices: ADDRESS NUM_PROCESSES RANK WHAT."""

import math
import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax.experimental import multihost_utils

from rethinking import distributed

address, num_processes, rank, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


def total() -> float:
    """The sum of rank + 1 over all processes. No process can compute it alone."""
    return multihost_utils.process_allgather(np.float32(rank + 1)).sum()


with distributed.join(address, num_processes, rank, timeout=120.0) as process_id:
    assert process_id == jax.process_index() == rank
    assert jax.device_count() == 2 * num_processes
    assert total() == sum(range(1, num_processes + 1))
    print("joined", flush=True)
    if what == "fail" and rank == 1:
        raise ValueError("out of luck")
    if what == "exit" and rank == 1:
        sys.exit(2)
    if what == "be_preempted":
        assert distributed.agreed(rank == 0)
        assert distributed.agreed(rank == 1)
        assert not distributed.agreed(rank == 7)
        assert distributed.must_stop(math.inf if rank else 0.0)
        step = 0
        while not distributed.must_stop(math.inf):
            time.sleep(0.02 * (rank + 1))  # each process at its own speed
            step += 1
            if step == 3:
                print("begun", flush=True)
        print("saved at step", step, flush=True)
    while what != "be_preempted":  # until this process or the other one is killed
        total()
