"""Training speed on CIFAR10: whole epochs as in a run, beside the bare compiled step.

    python -m benchmarks.train --model=mlp_1x512 [--config.dtype=bfloat16] [...]

Prints one JSON line. An epoch is shuffling, gathering, augmentation if the config asks for it, and
all steps. The bare step runs on one batch that stays in place. Each rate is the best of
`--repeats`. `seconds_to_first_step` includes all that comes before: imports, data, and compilation.
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
from rethinking.experiments.resident import ResidentTrainer
from rethinking.experiments.trainer import Trainer
from rethinking.models import adapters
from rethinking.training import optim, state, steps

_MODEL = flags.DEFINE_string("model", None, "A network of rethinking.models.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Epochs to time; the best counts.", lower_bound=1)


def time_epochs(trainer: Trainer, repeats: int) -> tuple[float, float]:
    """Seconds of the first epoch, with compilation, and of the fastest of `repeats` more."""
    seconds = []
    legs = trainer.legs(trainer.initial, 0)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        *_, leg = itertools.islice(legs, trainer.last_step(1) // trainer.leg_steps(0))
        leg.loss.block_until_ready()
        seconds.append(time.perf_counter() - start)
    return seconds[0], min(seconds[1:])


def time_bare_step(config: ConfigDict, repeats: int) -> float:
    """Seconds of one compiled step, forward, backward and SGD, on a fixed random batch."""
    devices = sharding.DataParallel(sharding.device_mesh(1))
    model = adapters.adapt(models.create(config.model.name, 10, jnp.dtype(config.dtype)))
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
    example = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    train_state, loss = compiled(state.initializer(model, optimizer, example)(0))
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
    """Prints the times of the network that the flags name."""
    cli.log_to_terminal()
    sharding.use_compilation_cache()
    try:
        config = cli.parse_config([f"--config=configs/table1.py:{_MODEL.value}", *overrides])
        experiments.check(config)
        trainer = ResidentTrainer(config)
    except InputError as error:
        cli.fail(error)
    ready = time.time() - psutil.Process().create_time()
    first, epoch = time_epochs(trainer, _REPEATS.value)
    bare = time_bare_step(config, _REPEATS.value)
    step = epoch / trainer.last_step(1)
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
