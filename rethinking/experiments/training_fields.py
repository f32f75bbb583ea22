"""The settings of training: each declared once, with its type, range and meaning."""

from rethinking.config import COMMON, NUM_TEST
from rethinking.config.fields import HUGE, LARGEST, TINY, Field, Fields
from rethinking.randomize import PIXELS

# The fields of a network that are not options, and what decides them.
RESERVED = {
    "num_classes": "the data set decides it",
    "dtype": "config.dtype decides it",
    "bn_axis_name": "config.model.sync_batch_norm decides it",
    "example_shape": "the data set decides it",
    "vocab_size": "the data set decides it",
    "name": "Flax uses it",
    "parent": "Flax uses it",
}
# The optimizers of `rethinking.training.optim`, which `optimizer` names.
OPTIMIZERS = ("sgd", "rmsprop", "adamw")
# By default, everything that a row can switch on is off.
FIELDS: Fields = COMMON | {
    "seed": COMMON["seed"].replace(doc="seed of initialization, order and augmentation"),
    "batch_size": Field(
        128, "training examples in a batch, over all devices", minimum=1, below=LARGEST
    ),
    "max_epochs": Field(100, "number of epochs to train", minimum=1, below=LARGEST),
    "stop_when_fit": Field(False, "stop after the first epoch that reaches `fit_accuracy`"),
    "fit_accuracy": Field(
        0.99,
        "training accuracy, in evaluation mode, from which the training set counts as fitted",
        minimum=0,
        maximum=1,
    ),
    "optimizer": Field(
        "sgd",
        '"sgd" with momentum; "rmsprop", TensorFlow\'s with epsilon = 1 inside the root; "adamw"; '
        "or package.module:function, a function of the config that makes an optax optimizer",
    ),
    "optimizer_source": Field(
        "",
        "the version of an optimizer of your own, which a run fills in: a digest of its source",
    ),
    "learning_rate": Field(0.01, "learning rate at the start", minimum=TINY, maximum=HUGE),
    "reference_batch_size": Field(
        0,
        "batch size that `learning_rate` is for; other sizes scale it in proportion; 0: no scaling",
        minimum=0,
        below=LARGEST,
    ),
    "momentum": Field(0.9, "momentum of SGD and of RMSProp", minimum=0, below=1),
    "schedule": Field(
        "staircase",
        "how the learning rate falls: by `decay_per_epoch` in steps, along half a cosine to zero "
        "at `max_epochs`, or not at all",
        choices=("staircase", "cosine", "constant"),
    ),
    "decay_per_epoch": Field(
        0.95,
        "factor on the learning rate every `epochs_per_decay` epochs",
        minimum=TINY,
        maximum=HUGE,
    ),
    "epochs_per_decay": Field(
        1.0, "epochs between two decays of the learning rate", minimum=1e-6, maximum=1e9
    ),
    "warmup_epochs": Field(
        0.0, "epochs in which the learning rate rises from zero", minimum=0, maximum=1e6
    ),
    "weight_decay": Field(
        0.0,
        "coefficient of half the squared norm of the weights: all parameters of two or more "
        "dimensions, so no biases; adamw: part of the weights that each step takes away, times the "
        "learning rate",
        minimum=0,
        maximum=HUGE,
    ),
    "label_smoothing": Field(
        0.0, "part of a training label that is spread evenly over all classes", minimum=0, below=1
    ),
    "workers": Field(
        1,
        "asynchronous workers to simulate: gradients arrive workers - 1 steps late",
        minimum=1,
        maximum=10_000,
    ),
    "average_decay": Field(
        0.0,
        "decay of a moving average of the weights, which evaluations then use; 0: no average",
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
        maximum=2**20,
        scientific=False,
    ),
    "checkpoint_seconds": Field(
        60.0,
        "least number of seconds between two checkpoints; 0: after every epoch, or after every "
        "step where an epoch is not one program",
        minimum=0,
        maximum=1e9,
        scientific=False,
    ),
    "num_devices": COMMON["num_devices"].replace(
        doc="number of devices that share a batch; 0: one if the data are in memory; all of them "
        "if the data are streamed, or if several processes make the run"
    ),
    "data.num_test": NUM_TEST,
    "data.crop_size": Field(
        0,
        "side of the centre crop that the network sees, in pixels; 0: the whole image",
        minimum=0,
        maximum=4096,
    ),
    "data.whiten": Field(
        True,
        "scale each image to mean zero and variance one; of vectors, scale each feature so, by its "
        "mean and variance over the training set; without effect on tokens",
    ),
    "data.stream": Field(
        False,
        "read the images from disk batch by batch, for large sets; else the device keeps them all",
    ),
    "data.image_size": Field(
        299, "side of streamed images after resizing, in pixels", minimum=1, maximum=4096
    ),
    "data.skip_bad": Field(
        False, "skip and count streamed images that cannot be read, instead of stopping"
    ),
    "data.num_threads": Field(
        0,
        "threads that read, decode and distort streamed images, per process; "
        "0: one for each core that the process has, but at least 16",
        minimum=0,
        maximum=1024,
        scientific=False,
    ),
    "data.num_workers": Field(
        -1,
        "worker processes, for each process of the run, that share `data.num_threads`, at most one "
        "for each core; 0: none; -1: one for every 4 cores if there are 8 or more",
        minimum=-1,
        maximum=256,
        scientific=False,
    ),
    "eval.num_train": Field(
        0,
        "number of training examples in each evaluation but the last, which uses all; "
        "the seed chooses them; 0: always all",
        minimum=0,
        below=LARGEST,
    ),
    "eval.shifts": Field(
        "",
        'shifted test sets to evaluate at the end, such as "noise,blur=2,cifar10_1": '
        "see data/shifts.py",
        longest=2000,
    ),
    "model.name": Field("mlp_1x512", "a name in `rethinking.models`, or package.module:NAME"),
    "model.sync_batch_norm": Field(
        False, "batch norm over the global batch instead of over each device's part of it"
    ),
    "model.options": Field(
        {}, "further arguments of the network, such as `dropout` of inception_v3"
    ),
    "model.source": Field(
        "",
        "digest of the source of your own network, which identifies its version; "
        "the run fills it in",
    ),
    "randomize.pixels": Field(
        "none",
        "what replaces the examples (section 2.1): their pixels, features or tokens",
        choices=PIXELS,
    ),
    "augment.crop": Field(
        False,
        "train on random crops of `data.crop_size`; streamed images: on a random box, resized",
    ),
    "augment.flip": Field(False, "flip half of the training images left to right, at random"),
    "augment.brightness": Field(
        0.0,
        "largest shift of the brightness of training images, whose values are in [0, 1]",
        minimum=0,
        maximum=1,
    ),
    "augment.saturation": Field(
        0.0,
        "s: multiply the saturation of training images by a factor from [1 - s, 1 + s]",
        minimum=0,
        maximum=1,
    ),
    "augment.hue": Field(
        0.0,
        "largest shift of the hue of training images, as a fraction of a full turn",
        minimum=0,
        maximum=0.5,
    ),
    "augment.contrast": Field(
        0.0,
        "c: multiply the contrast of training images by a factor from [1 - c, 1 + c]",
        minimum=0,
        maximum=1,
    ),
}
