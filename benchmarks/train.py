"""Training speed on CIFAR10: whole epochs as the runs do them, beside the bare compiled step.

    python -m benchmarks.train --model=mlp_1x512 [--config.dtype=bfloat16] [--config.data.num_train=1280 ...]

Prints one JSON line. An epoch is shuffling, gathering, augmentation if the config asks for it, and all steps; the bare
step runs on one batch that stays where it is. Rates are the best of `--repeats`; everything before the first step
(imports, data, compilation or its cache) is in `seconds_to_first_step`.
"""

import functools
import itertools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from absl import app, flags
from ml_collections import ConfigDict

from rethinking import cli, experiments, models, provenance, sharding
from rethinking.errors import InputError
from rethinking.experiments import resident
from rethinking.experiments.trainer import Experiment
from rethinking.training import optim, state, steps

_MODEL = flags.DEFINE_string("model", None, "A network of rethinking.models.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Epochs to time; the best counts.", lower_bound=1)


def time_epochs(experiment: Experiment, repeats: int) -> tuple[float, float]:
    """Seconds of the first epoch, compilation included, and of the fastest of `repeats` more."""
    seconds = []
    start = time.perf_counter()
    for leg in itertools.islice(experiment.legs(experiment.state, 0), repeats + 1):
        leg.loss.block_until_ready()
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return seconds[0], min(seconds[1:])


def time_bare_step(config: ConfigDict, repeats: int) -> float:
    """Seconds of one compiled step on a fixed random batch: forward, backward and SGD, called from Python."""
    devices = sharding.DataParallel(sharding.data_mesh(1))
    model = models.create(config.model.name, 10, jnp.dtype(config.dtype))
    optimizer = optim.sgd(
        optim.schedule(config.learning_rate, 0.95, 390), config.momentum, config.weight_decay
    )
    size = config.data.crop_size
    images = jax.random.normal(jax.random.key(0), (config.batch_size, size, size, 3))
    labels = jnp.asarray(np.arange(config.batch_size) % 10, jnp.int32)
    train_step = steps.make_train_step(model, optimizer, devices, config.batch_size)
    compiled = jax.jit(
        lambda carry: train_step(carry, images, labels, jax.random.key(0)), donate_argnums=0
    )
    train_state, loss = compiled(state.initializer(model, optimizer, (size, size, 3))(0))
    loss.block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 2 or count < 5:
            train_state, loss = compiled(train_state)
            count += 1
        loss.block_until_ready()
        best = min(best, (time.perf_counter() - start) / count)
    return best


def main(overrides: list[str]) -> None:
    """Times the network that the flags name."""
    cli.log_to_terminal()
    sharding.use_compilation_cache()
    try:
        config = cli.parse_config([f"--config=configs/table1.py:{_MODEL.value}", *overrides])
        experiments.check(config)
        experiment = resident.prepare(config)
    except InputError as error:
        cli.fail(error)
    ready = time.time() - psutil.Process().create_time()
    first, epoch = time_epochs(experiment, _REPEATS.value)
    bare = time_bare_step(config, _REPEATS.value)
    step = epoch / experiment.steps_per_leg
    print(
        json.dumps(
            {
                "model": _MODEL.value,
                "batch": config.batch_size,
                "dtype": config.dtype,
                "device": provenance.device_name(),
                "jax": jax.__version__,
                "images_per_second": round(config.batch_size / step),
                "bare_step_images_per_second": round(config.batch_size / bare),
                "epoch_over_bare_step": round(bare / step, 3),
                "step_ms": round(1e3 * step, 3),
                "compile_seconds": round(first - epoch, 2),
                "seconds_to_first_step": round(ready + first - epoch + step, 2),
            }
        )
    )


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("model",)))
