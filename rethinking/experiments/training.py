"""Training a network, on true data or on a randomized copy (sections 2 and 3).

`FIELDS`, in training_fields.py, declares the settings; `check` refuses settings that do not go
together; and `run` makes one run. Its parts are in the modules that `run` imports:

    examples.py                what the network sees of images, vectors and tokens
    resident.py, streamed.py   a network with its data, on the devices or read from disk
    loop.py                    the training loop: train, evaluate, save, stop in time
    checkpoint.py evaluations.py   the saved states; whether their evaluations are all there
    progress.py                what the terminal and TensorBoard show
    inspection.py profile.py kernel_table.py   --profile and --debug_nans
"""

import contextlib
import math
import time
from typing import Any

from ml_collections import ConfigDict

from rethinking import distributed, own_code, runs
from rethinking.config import refuse_without_effect
from rethinking.errors import nearest, require
from rethinking.experiments.evaluations import summarize
from rethinking.experiments.inspection import NOTHING, Inspection
from rethinking.experiments.training_fields import FIELDS, OPTIMIZERS, RESERVED


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together."""
    data, augment = config.data, config.augment
    require(
        not data.num_train or config.batch_size <= data.num_train,
        f"config.batch_size={config.batch_size} is more than config.data.num_train="
        f"{data.num_train}. Choose a smaller batch.",
    )
    for option in RESERVED:
        require(
            option not in config.model.options,
            f"config.model.options cannot set {option}: {RESERVED[option]}. Leave it out.",
        )
    _check_optimizer(config)
    require(
        not (augment.crop and config.randomize.pixels != "none"),
        "config.augment.crop=True with config.randomize.pixels: pixels are randomized within the "
        "crop that the network sees, so nothing is left to crop from. Switch one of the two off.",
    )
    require(
        not augment.crop or data.crop_size > 0 or data.stream,
        "config.augment.crop=True needs the side of the crop. Set config.data.crop_size.",
    )
    if data.stream:
        _check_streamed(config)
    else:
        require(
            data.image_size == FIELDS["data.image_size"].default and not data.skip_bad,
            "config.data.image_size and config.data.skip_bad are for streamed images. "
            "Set config.data.stream=True.",
        )


def _check_optimizer(config: ConfigDict) -> None:
    """Raises InputError for an unknown optimizer, and for settings that it or the schedule ignores.

    An optimizer of the user's own is checked where it is made.
    """
    require(
        ":" in config.optimizer or config.optimizer in OPTIMIZERS,
        f"config.optimizer: unknown optimizer {config.optimizer!r}. "
        f"{nearest(config.optimizer, OPTIMIZERS)} One of your own is package.module:function.",
    )
    if config.optimizer == "adamw":
        refuse_without_effect(config, FIELDS, ["momentum"], "config.optimizer=adamw")
    if config.schedule != "staircase":
        refuse_without_effect(
            config,
            FIELDS,
            ["decay_per_epoch", "epochs_per_decay"],
            f"config.schedule={config.schedule}",
        )
    elif config.decay_per_epoch == 1:
        refuse_without_effect(config, FIELDS, ["epochs_per_decay"], "config.decay_per_epoch=1")


def _check_streamed(config: ConfigDict) -> None:
    """Raises InputError for settings that do nothing where the images are streamed."""
    require(
        not config.eval.shifts,
        "config.eval.shifts is for sets that fit into memory. Set config.data.stream=False.",
    )
    require(
        config.randomize.pixels == "none" and config.data.crop_size == 0,
        "config.data.stream=True reads images of any size, but config.randomize.pixels and "
        "config.data.crop_size are for sets that fit into memory. "
        "Set config.randomize.pixels=none and config.data.crop_size=0.",
    )
    require(
        config.data.whiten,
        "config.data.whiten=False: streamed images are scaled to [-1, 1] and never whitened. "
        "Leave it True.",
    )


def can_grow(config: ConfigDict) -> bool:
    """Whether the first epochs are trained the same with any larger `max_epochs`.

    Their evaluations can differ: that after the last epoch uses the whole training set, and it is
    also made where `eval_epochs` leaves one out.
    """
    return config.schedule != "cosine" and not own_code.is_own(config.optimizer)


@distributed.notice_sigterm()
def run(
    config: ConfigDict,
    run_directory: runs.RunDirectory,
    deadline: float = math.inf,
    inspection: Inspection = NOTHING,
) -> dict[str, Any] | None:
    """Trains as `config` says, or continues; returns the fields of result.json.

    Returns None if the run had to stop before its end, because of `deadline` (of time.monotonic())
    or SIGTERM. Its state is saved, and the same call continues.
    Raises InputError for settings or data that cannot work, before any time is spent.
    """
    # Imported here because everything but a run works without JAX.
    from rethinking.experiments.checkpoint import Checkpoints
    from rethinking.experiments.loop import Loop
    from rethinking.experiments.resident import ResidentTrainer
    from rethinking.experiments.streamed import StreamedTrainer

    start = time.monotonic()
    make_trainer = StreamedTrainer if config.data.stream else ResidentTrainer
    trainer = make_trainer(config)
    with contextlib.closing(Checkpoints(run_directory.path)) as checkpoints:
        loop = Loop(config, trainer, run_directory, checkpoints, start, deadline, inspection)
        status = loop.run()
        if status is None:
            return None
        fields = {
            "status": status,
            "num_params": trainer.num_params,
            "batch_norm_examples": trainer.batch_norm_examples,
            "eval_split": trainer.eval_split,
        }
        fields |= summarize(run_directory.metrics, config.fit_accuracy)
        return fields | trainer.result_fields(loop.state)
