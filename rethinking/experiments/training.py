"""Training a network, on true data or on a randomized copy (sections 2 and 3)."""

import math
from typing import Any

from ml_collections import ConfigDict

from rethinking import runs
from rethinking.config import COMMON, LARGEST, NUM_TEST, Field, Fields
from rethinking.errors import require
from rethinking.randomize import PIXELS

# The defaults switch off whatever a row does not ask for.
FIELDS: Fields = COMMON | {
    "seed": COMMON["seed"].replace(doc="seed of initialization, order and augmentation"),
    "batch_size": Field(128, "examples in a batch, over all devices", minimum=1, below=LARGEST),
    "max_epochs": Field(100, "number of epochs after which the run ends", minimum=1, below=LARGEST),
    "stop_when_fit": Field(False, "stop at the first epoch that reaches `fit_accuracy`"),
    "fit_accuracy": Field(
        0.99, "training accuracy, in evaluation mode, that counts as fitted", minimum=0, maximum=1
    ),
    "optimizer": Field(
        "sgd",
        "SGD with momentum, or TensorFlow's RMSProp with epsilon = 1 inside the root",
        choices=("sgd", "rmsprop"),
    ),
    "learning_rate": Field(0.01, "learning rate at the start", above=0),
    "reference_batch_size": Field(
        0,
        "`learning_rate` is for batches of this size, and scaled in proportion; 0: not scaled",
        minimum=0,
        below=LARGEST,
    ),
    "momentum": Field(0.9, "momentum of SGD and of RMSProp", minimum=0, below=1),
    "decay_per_epoch": Field(
        0.95, "factor on the learning rate every `epochs_per_decay` epochs", above=0
    ),
    "epochs_per_decay": Field(1.0, "epochs between two decays of the learning rate", above=0),
    "warmup_epochs": Field(0.0, "epochs in which the learning rate rises from zero", minimum=0),
    "weight_decay": Field(0.0, "coefficient of half the squared norm of the kernels", minimum=0),
    "label_smoothing": Field(
        0.0, "part of a label that is spread over all classes, in training", minimum=0, below=1
    ),
    "workers": Field(
        1,
        "asynchronous workers to imitate: gradients come workers - 1 steps late",
        minimum=1,
        below=LARGEST,
    ),
    "average_decay": Field(
        0.0,
        "decay of a moving average of the weights, which is then evaluated; 0: no average",
        minimum=0,
        below=1,
    ),
    "dtype": Field(
        "float32",
        "dtype of the computation; parameters are always float32",
        choices=("float32", "bfloat16"),
    ),
    "eval_epochs": Field(1, "epochs between two evaluations", minimum=1, below=LARGEST),
    "eval_batch_size": Field(
        1000,
        "examples in an evaluation batch, per device",
        minimum=1,
        below=LARGEST,
        scientific=False,
    ),
    "checkpoint_seconds": Field(
        60.0,
        "least time between two checkpoints; 0: after every epoch",
        minimum=0,
        scientific=False,
    ),
    "num_devices": COMMON["num_devices"].replace(
        doc="number of devices that share a batch; 0: all"
    ),
    "data.num_test": NUM_TEST,
    "data.crop_size": Field(
        0,
        "side of the centre crop that the network sees; 0: the whole image",
        minimum=0,
        below=LARGEST,
    ),
    "data.whiten": Field(True, "scale each image to mean zero and variance one"),
    "data.stream": Field(
        False,
        "read the data from disk batch by batch, for large sets of JPEGs; else they stay on the device",
    ),
    "data.image_size": Field(
        299, "side to which streamed images are resized", minimum=1, below=LARGEST
    ),
    "data.skip_bad": Field(
        False, "leave out and count streamed images that cannot be read, instead of stopping"
    ),
    "data.num_threads": Field(
        16,
        "threads that read, decode and distort streamed images, in each process",
        minimum=1,
        below=LARGEST,
        scientific=False,
    ),
    "data.num_workers": Field(
        0,
        "further processes, on each host, that these threads are spread over",
        minimum=0,
        below=LARGEST,
        scientific=False,
    ),
    "eval.num_train": Field(
        0,
        "training images to evaluate on the way, a seeded choice; the last evaluation has all; 0: always all",
        minimum=0,
        below=LARGEST,
    ),
    "eval.shifts": Field(
        "", 'further test sets for the end, such as "noise,blur=2,cifar10_1": see data/shifts.py'
    ),
    "model.name": Field("mlp_1x512", "a name in `rethinking.models`, or package.module:Class"),
    "model.sync_batch_norm": Field(
        False, "batch norm over the global batch instead of each device's own part"
    ),
    "model.options": Field({}, "further fields of the network, such as inception_v3's `dropout`"),
    "randomize.pixels": Field("none", "what replaces the images (section 2.1)", choices=PIXELS),
    "augment.crop": Field(
        False,
        "train on random crops of `data.crop_size`; streamed images: on a random box, resized",
    ),
    "augment.flip": Field(False, "flip training images at random"),
    "augment.brightness": Field(
        0.0, "largest shift of training pixels, which are in [0, 1]", minimum=0
    ),
    "augment.saturation": Field(
        0.0,
        "s: multiply the saturation of training images by a factor from [1 - s, 1 + s]",
        minimum=0,
        maximum=1,
    ),
    "augment.hue": Field(
        0.0, "largest shift of the hue of training images, in full turns", minimum=0, maximum=0.5
    ),
    "augment.contrast": Field(
        0.0,
        "c: multiply the contrast of training images by a factor from [1 - c, 1 + c]",
        minimum=0,
        maximum=1,
    ),
}


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together."""
    data, augment = config.data, config.augment
    require(
        not (augment.crop and config.randomize.pixels != "none"),
        "config.augment.crop=True with randomized pixels: pixels are randomized in the crop that the network sees, so "
        "that nothing is left to crop from. Set one of the two off.",
    )
    require(
        not augment.crop or data.crop_size > 0 or data.stream,
        "config.augment.crop=True needs config.data.crop_size, the side of the crop.",
    )
    if data.stream:
        require(
            not config.eval.shifts,
            "config.eval.shifts is for sets that fit into memory. Set config.data.stream=False.",
        )
        require(
            config.randomize.pixels == "none" and data.crop_size == 0,
            "config.data.stream=True reads images of any size. config.randomize.pixels and config.data.crop_size are "
            "for sets that fit into memory.",
        )
        require(
            data.whiten,
            "config.data.whiten=False: streamed images are scaled to [-1, 1] and never whitened. Leave it True.",
        )
    else:
        require(
            data.image_size == FIELDS["data.image_size"].default and not data.skip_bad,
            "config.data.image_size and config.data.skip_bad are for streamed images. Set config.data.stream=True.",
        )


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Trains as `config` says, or continues; returns the fields of result.json, or None if it had to stop."""
    from rethinking.experiments import loop

    return loop.run(config, run_directory, deadline)
