"""Tries JAX: imports it, multiplies, trains a network and solves a kernel system on its devices.

    python -m launch.checks.trial --findings=FILE [--distributed ...]

launch.doctor starts it, because a broken plugin or driver may end or hang the whole process. It
appends its findings to FILE, one JSON object a line. It stops at the first part that fails.
"""

import contextlib
import functools
import itertools
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator

from absl import app, flags

from launch.checks import FAIL, OK
from rethinking import cli, distributed, failures, rendezvous
from rethinking.errors import InputError, require

_FINDINGS = flags.DEFINE_string("findings", None, "The file of the findings.")
cli.define_place_flags()

# Settings of the training: with them the network below learns the digits on any number of devices.
EPOCHS, BATCH_SIZE, LEAST_ACCURACY = 10, 64, 0.9
# The largest residual of a solve that counts as one.
LARGEST_RESIDUAL = 1e-8


def note(**fields: object) -> None:
    """Appends an object to the findings, which are there even if this process is killed."""
    with open(_FINDINGS.value, "a") as file:
        file.write(json.dumps(fields) + "\n")


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Notes that a part begins. If it fails, notes the reason and ends the program."""
    note(begins=name)
    try:
        yield
    except (InputError, rendezvous.RendezvousError) as error:
        note(mark=FAIL, name=name, text=str(error), is_explained=True)
        sys.exit(1)
    except Exception as error:
        note(mark=FAIL, name=name, text=failures.summary(error), is_explained=False)
        traceback.print_exception(error)
        sys.exit(1)


def describe_devices() -> str:
    """The devices in words. Raises InputError if one of them multiplies wrongly."""
    import jax
    import numpy as np

    from rethinking import provenance, sharding

    sharding.use_compilation_cache()
    devices = sharding.all_devices()
    # Small whole numbers, because every precision multiplies and adds them exactly.
    factor = np.random.default_rng(0).integers(-3, 4, (256, 256)).astype(np.float32)
    for device in jax.local_devices():
        product = jax.jit(lambda x: x @ x)(jax.device_put(factor, device))
        require(
            np.array_equal(product, factor @ factor),
            f"{device} multiplies wrongly. Test the device with its vendor's own tools.",
        )
    kinds = sorted({device.device_kind for device in devices})
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    numerics = provenance.numerics()
    found = [f"float32 products: {numerics['float32_products']}"]
    for name in ("driver", "cuda", "cudnn", "libtpu"):
        if numerics[name]:
            found.append(f"{name} {numerics[name]}")
    return f"{count}{', '.join(kinds)} can multiply ({', '.join(found)})"


def train() -> str:
    """Trains a network on the digits, on all devices."""
    import jax
    import numpy as np

    from rethinking import experiments
    from rethinking.experiments.resident import ResidentTrainer

    start = time.monotonic()
    config = experiments.defaults("training")
    config.model.name = "launch.checks.network:Network"
    config.num_devices = count = jax.device_count()
    config.batch_size = count * max(1, BATCH_SIZE // count)
    config.learning_rate = 0.1
    trainer = ResidentTrainer(config)
    num_legs = trainer.last_step(EPOCHS) // trainer.leg_steps(0)
    losses = []
    for leg in itertools.islice(trainer.legs(trainer.initial, 0), num_legs):
        losses.append(float(leg.loss))
    losses = np.reshape(losses, (EPOCHS, -1)).mean(1)
    accuracy = trainer.evaluate_split(leg.state, trainer.train, lambda _: False)["accuracy"]
    text = f"{EPOCHS} epochs of digits in {time.monotonic() - start:.1f} s with the compilation, "
    text += f"loss {losses[0]:.2f} to {losses[-1]:.2f}, training accuracy {accuracy:.1%}"
    require(
        accuracy > LEAST_ACCURACY,
        f"{text}. It must be above {LEAST_ACCURACY:.0%}: the devices compute wrong numbers.",
    )
    return text


def solve() -> str:
    """Solves a kernel system, and checks the solution."""
    import jax

    from rethinking.data import arrays
    from rethinking.kernels import gram, interpolate

    start = time.monotonic()
    digits = arrays.load("digits").train
    x = digits.images[:500].reshape(500, -1) / 255
    # A TPU has no float64. Its factor is in float32, and the host refines the solution.
    dtype = "float32" if jax.default_backend() == "tpu" else "float64"
    found = interpolate.fit(x, digits.labels[:500], gram.Gaussian(bandwidth=1.0), dtype=dtype)
    certificate = found.certificate
    text = f"500 equations in {time.monotonic() - start:.1f} s, {certificate}"
    require(
        certificate.residual < LARGEST_RESIDUAL and certificate.train_error == 0,
        f"{text}. The residual must be below {LARGEST_RESIDUAL:.0e}: the devices compute wrong "
        "numbers.",
    )
    return text


PARTS: dict[str, Callable[[], str]] = {
    "devices": describe_devices,
    "training": train,
    "kernels": solve,
}


def main(_: list[str]) -> None:
    """Tries all parts, on the devices of all processes if there are several."""
    cli.log_to_terminal(logging.WARNING)
    with contextlib.ExitStack() as stack:
        with part("jax"):
            import jax

            note(mark=OK, name="jax", text=f"{jax.__version__} can be imported")
        if flags.FLAGS.distributed:
            with part("processes"):
                _join(stack)
        for name, run in PARTS.items():
            with part(name):
                note(mark=OK, name=name, text=run(), platform=jax.default_backend())


def _join(stack: contextlib.ExitStack) -> None:
    import jax

    values = flags.FLAGS
    process = stack.enter_context(
        distributed.join(
            values.coordinator_address,
            values.num_processes,
            values.process_id,
            values.rendezvous_timeout,
        )
    )
    text = f"{jax.process_count()} found each other, with {jax.device_count()} devices in all"
    note(mark=OK, name="processes", text=text, process=process)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("findings",)))
