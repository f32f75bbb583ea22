"""What the names of rows mean: from `table1:inception+crop` to a config, for every experiment of the paper.

`EXPERIMENTS` has one entry for each file of configs/, whose docstring says what the experiment shows.
"""

import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict

from rethinking import experiments
from rethinking.errors import InputError, nearest, require_known

# The networks of Table 1, in its order.
TABLE1_MODELS = ("inception", "inception_no_bn", "alexnet", "mlp_3x512", "mlp_1x512")
# Section 2.1's five settings of Figure 1a: the fields of `randomize` that each one changes, and nothing else.
SETTINGS = {
    "true_labels": {},
    "random_labels": {"labels": 1.0},
    "shuffled_pixels": {"pixels": "shuffled"},
    "random_pixels": {"pixels": "random"},
    "gaussian": {"pixels": "gaussian"},
}


def cifar10(model: str) -> ConfigDict:
    """The CIFAR10 experiments of Tables 1 and 4 and Figure 1 (appendix A), without any regularizer.

    The paper gives momentum, learning rates and decay. What it leaves open is chosen here, once for all rows:
    - batch size 128, 100 epochs: the author's demo repository uses 128; Figure 1a's 25,000 steps are 64 epochs of
      it; and with 100 of them MLP 1x512 ends at 99.3% on random labels, where the paper has 99.34%. Neither more
      epochs (the learning rate has decayed to 0.6% of its first value) nor another batch size is needed.
    - initialization: Glorot and Bengio (2010), TensorFlow slim's default; see `rethinking.models.layers.kernel_init`.
    - weight decay, where a row asks for it (`wd`): 5e-4, the custom of the time, on kernels only.
    - random crop: 28x28 windows of the 32x32 images, no padding: the centre crop is one of them.
    """
    config = experiments.defaults("training")
    config.data.name = "cifar10"
    config.data.crop_size = 28
    config.model.name = model
    config.learning_rate = 0.1 if model.startswith(("inception", "wide_resnet")) else 0.01
    return config


def add_weight_decay(config: ConfigDict) -> None:
    """The `+wd` of a row: see `cifar10`."""
    config.weight_decay = 5e-4


def add_crop(config: ConfigDict) -> None:
    """The `+crop` of a row: see `cifar10`."""
    config.augment.crop = True


def add_random_labels(config: ConfigDict) -> None:
    """The `+random_labels` of a row: every training label replaced."""
    config.randomize.update(SETTINGS["random_labels"])


def add_augment(config: ConfigDict) -> None:
    """The `+augment` of a row: crop, flip and colours, with the magnitudes of TensorFlow's Inception distortion. In
    Table 2, as `aug`, that distortion itself."""
    config.augment.update(
        crop=True, flip=True, brightness=32 / 255, saturation=0.5, hue=0.2, contrast=0.5
    )


TABLE_OPTIONS = {
    "crop": add_crop,
    "wd": add_weight_decay,
    "random_labels": add_random_labels,
    "augment": add_augment,
}


def imagenet() -> ConfigDict:
    """Inception V3 as in appendices A and B, Table 2: TensorFlow's recipe, less what the rows switch on.

    Of TensorFlow's `inception` package: RMSProp with decay 0.9, momentum 0.9 and epsilon 1; 0.94 on the learning rate
    every two epochs; label smoothing 0.1; the auxiliary head; evaluation with a moving average of the weights, 0.9999.
    What the paper leaves open, or what a pod does otherwise, is chosen here, once for all rows:
    - batch size 1024 over all devices, synchronous, where the paper has 50 asynchronous workers with 32 images each;
      the learning rate is 0.045 for 32, in proportion for more, and rises to it in five epochs: see `optim.scaled`.
      `configs/figure_async.py` looks at what asynchronous workers change.
    - 100 epochs, at whose end the learning rate has fallen to 4.5% of its first value.
    - computation in bfloat16, parameters and statistics in float32.
    - on the way 50,000 training images are evaluated, as many as test images, in the end all of them.
    - without `aug`, training images are what evaluation sees: the central 87.5%, resized.
    Short runs need `model.options.bn_momentum` and `average_decay` lower: both average over thousands of steps.
    """
    config = experiments.defaults("training")
    config.update(
        {
            "optimizer": "rmsprop",
            "learning_rate": 0.045,
            "reference_batch_size": 32,
            "batch_size": 1024,
            "warmup_epochs": 5.0,
            "decay_per_epoch": 0.94,
            "epochs_per_decay": 2.0,
            "label_smoothing": 0.1,
            "average_decay": 0.9999,
            "dtype": "bfloat16",
            "eval_batch_size": 128,
            "checkpoint_seconds": 600.0,
        }
    )
    config.data.update(name="imagenet2012", stream=True)
    config.eval.num_train = 50_000
    config.model.name = "inception_v3"
    config.model.options = {"aux_head": True, "dropout": 0.0, "bn_momentum": 0.9997, "width": 1.0}
    return config


def add_dropout(config: ConfigDict) -> None:
    """The `dropout` of a row of Table 2: TensorFlow keeps 0.8."""
    config.model.options.dropout = 0.2


def add_imagenet_weight_decay(config: ConfigDict) -> None:
    """The `wd` of a row of Table 2: TensorFlow's coefficient."""
    config.weight_decay = 4e-5


IMAGENET_OPTIONS = {
    "aug": add_augment,
    "random_labels": add_random_labels,
    "dropout": add_dropout,
    "wd": add_imagenet_weight_decay,
}


def table_row(experiment: str, row: str) -> ConfigDict:
    """The config of a row `MODEL[+crop][+wd][+random_labels][+augment]` of Table 1 or 4; options in any order.

    Raises InputError for an unknown model or option, with the nearest known one.
    """
    model, *options = row.split("+")
    require_known(
        model, (*TABLE1_MODELS, "wide_resnet_28_1"), f"{experiment} row {row!r}: unknown model"
    )
    for option in options:
        require_known(option, TABLE_OPTIONS, f"{experiment} row {row!r}: unknown option")
    config = cifar10(model)
    for option, add in TABLE_OPTIONS.items():
        if option in options:
            add(config)
    return named(
        config,
        experiment,
        "+".join([model, *(option for option in TABLE_OPTIONS if option in options)]),
    )


def setting(config: ConfigDict, name: str) -> ConfigDict:
    """`config` with one setting of section 2.1: a key of `SETTINGS`, or `corrupt=P` for labels corrupted with P."""
    if name.startswith("corrupt="):
        try:
            config.randomize.labels = float(name.removeprefix("corrupt="))
        except ValueError:
            raise InputError(
                f"{name!r}: P in corrupt=P is a probability, a number in [0, 1]"
            ) from None
    else:
        require_known(name, SETTINGS, "unknown setting")
        config.randomize.update(SETTINGS[name])
    return config


def named(config: ConfigDict, experiment: str, row: str) -> ConfigDict:
    """`config` under the name that its run directory and every report give it."""
    config.experiment, config.row = experiment, f"{experiment}:{row}"
    return config


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The rows of one file of configs/, and what each means."""

    rows: tuple[str, ...]
    # The config of a row; InputError, with the nearest known name, for a row that does not exist.
    get_config: Callable[[str], ConfigDict]


def quickstart(row: str) -> ConfigDict:
    """A setting of section 2.1, with an MLP on handwritten digits.

    The learning rate falls more slowly than on CIFAR10, by 0.98 an epoch: an epoch is 44 steps instead of 390.
    """
    config = experiments.defaults("training")
    config.update(batch_size=32, learning_rate=0.05, decay_per_epoch=0.98)
    return named(setting(config, row), "quickstart", row)


def table1(row: str) -> ConfigDict:
    """MODEL[+crop][+wd][+random_labels]."""
    return table_row("table1", row)


def table2(row: str) -> ConfigDict:
    """`none` or [aug][+random_labels][+dropout][+wd]."""
    options = [] if row == "none" else row.split("+")
    for option in options:
        require_known(option, IMAGENET_OPTIONS, f"table2 row {row!r}: unknown option")
    config = imagenet()
    for option, add in IMAGENET_OPTIONS.items():
        if option in options:
            add(config)
    name = "+".join(option for option in IMAGENET_OPTIONS if option in options) or "none"
    return named(config, "table2", name)


def table3(row: str) -> ConfigDict:
    """DATA[+FEATURES][+ridge], `mnist+random_centers` or `mnist+random_test_labels`.

    Bandwidths were chosen on held-out training images: 5 for MNIST, 0.5 for Gabor features, which have unit norm, and
    7 for CIFAR10. Random centers are for 10,000 examples: their system's condition number grows with the third power
    of the number of examples, too large for float64 at 60,000.
    """
    require_known(row, TABLE3_ROWS, "table3: unknown row")
    config = experiments.defaults("kernels")
    config.data.name, *options = row.split("+")
    if config.data.name == "cifar10":
        config.kernel.bandwidth = 7.0
    if "gabor" in options:
        config.features.name = "gabor"
        config.kernel.bandwidth = 0.5
    if "random_conv" in options:
        config.features.name = "random_conv"
        config.kernel.name = "linear"
    if "random_centers" in options:
        config.random_centers = 4
        config.data.num_train = 10_000
    if "random_test_labels" in options:
        config.random_test_labels = True
        config.data.num_train = 50_000
    config.choose_ridge = "ridge" in options
    return named(config, "table3", row)


def table4(row: str) -> ConfigDict:
    """MODEL[+crop][+wd]+random_labels[+augment]."""
    return table_row("table4", row)


def figure1(row: str) -> ConfigDict:
    """MODEL+SETTING."""
    model, plus, name = row.partition("+")
    if model not in TABLE1_MODELS or not plus:
        raise InputError(f"figure1: unknown row {row!r}. {nearest(row, FIGURE1_ROWS)}")
    return named(setting(cifar10(model), name), "figure1", row)


def figure_async(row: str) -> ConfigDict:
    """MODEL+workers=N.

    With the learning rates of Table 1 late gradients make the MLP diverge, with 8 workers as well as with 50. So all
    rows have 0.03 of them, at which 50 workers train, and which does not decay.
    """
    model, plus, workers = row.partition("+workers=")
    if model not in TABLE1_MODELS or not (plus and workers.isdecimal() and int(workers)):
        raise InputError(f"figure_async: unknown row {row!r}. {nearest(row, FIGURE_ASYNC_ROWS)}")
    config = cifar10(model)
    config.update(
        workers=int(workers), learning_rate=0.03 * config.learning_rate, decay_per_epoch=1.0
    )
    return named(config, "figure_async", row)


def complexity(row: str) -> ConfigDict:
    """`rademacher+MODEL` or `stability+MODEL[+random_labels]`.

    Settings are those of Table 1, but for batches of 32, so that fewer images take as many steps.
    """
    require_known(row, COMPLEXITY_ROWS, "complexity: unknown row")
    measure, model, *labels = row.split("+")
    config = experiments.defaults("complexity")
    config.update(cifar10(model))
    config.update(kind="complexity", measure=measure, batch_size=32)
    if measure == "rademacher":
        config.update(stop_when_fit=True, fit_accuracy=1.0, halvings=6, doublings=2)
        config.data.num_train = 8000
    else:
        config.data.update(num_train=5000, num_test=5000)
    if labels:
        add_random_labels(config)
    return named(config, "complexity", row)


def expressivity(row: str) -> ConfigDict:
    """`cifar10` or `mnist`, each also with `+one_hot`, or `depth=K`."""
    require_known(row, EXPRESSIVITY_ROWS, "expressivity: unknown row")
    config = experiments.defaults("expressivity")
    if row.startswith("depth="):
        config.depth = int(row.removeprefix("depth="))
        config.data.num_train = 10_000
    else:
        config.data.name, _, one_hot = row.partition("+")
        config.one_hot = bool(one_hot)
    return named(config, "expressivity", row)


def linear(row: str) -> ConfigDict:
    """`mnist[+fourier[+random_labels]]`.

    Training and test images together must be linearly independent. The pixels of MNIST allow this
    for a few hundred images, 2,000 random Fourier features for 1,500.
    """
    require_known(row, LINEAR_ROWS, "linear: unknown row")
    config = experiments.defaults("linear")
    config.data.name, *options = row.split("+")
    config.data.update(num_train=100, num_test=300)
    if "fourier" in options:
        config.features.name = "fourier"
        config.data.update(num_train=500, num_test=1000)
    if "random_labels" in options:
        add_random_labels(config)
    return named(config, "linear", row)


QUICKSTART_ROWS = (
    "true_labels",
    "random_labels",
    "corrupt=0.5",
    "shuffled_pixels",
    "random_pixels",
    "gaussian",
)
TABLE1_ROWS = (
    "inception+crop+wd",
    "inception+crop",
    "inception+wd",
    "inception",
    "inception+random_labels",
    "inception_no_bn+wd",
    "inception_no_bn",
    "inception_no_bn+random_labels",
    "alexnet+crop+wd",
    "alexnet+crop",
    "alexnet+wd",
    "alexnet",
    "alexnet+random_labels",
    "mlp_3x512+wd",
    "mlp_3x512",
    "mlp_3x512+random_labels",
    "mlp_1x512+wd",
    "mlp_1x512",
    "mlp_1x512+random_labels",
)
TABLE2_ROWS = (
    "aug+dropout+wd",
    "aug",
    "wd",
    "none",
    "random_labels+dropout+wd",
    "random_labels+wd",
    "random_labels",
)
TABLE3_ROWS = (
    "mnist",
    "mnist+ridge",
    "mnist+gabor",
    "mnist+gabor+ridge",
    "mnist+random_centers",
    "mnist+random_test_labels",
    "cifar10",
    "cifar10+ridge",
    "cifar10+random_conv",
    "cifar10+random_conv+ridge",
)
TABLE4_ROWS = (
    "inception+wd+random_labels",
    "alexnet+wd+random_labels",
    "mlp_3x512+wd+random_labels",
    "mlp_1x512+wd+random_labels",
    "inception+crop+random_labels",
    "inception+random_labels+augment",
)
FIGURE1_ROWS = tuple(
    f"{model}+{name}"
    for model in ("inception", "alexnet", "mlp_1x512")
    for name in (*SETTINGS, *(f"corrupt={p / 10}" for p in range(1, 11)))
)
FIGURE_ASYNC_ROWS = tuple(
    f"{model}+workers={workers}" for model in ("mlp_1x512", "inception") for workers in (1, 8, 50)
)
COMPLEXITY_ROWS = tuple(
    f"{measure}+{model}{labels}"
    for measure, labels in (("rademacher", ""), ("stability", ""), ("stability", "+random_labels"))
    for model in TABLE1_MODELS
)
EXPRESSIVITY_ROWS = (
    "cifar10",
    "cifar10+one_hot",
    "mnist",
    "mnist+one_hot",
    "depth=2",
    "depth=3",
    "depth=8",
    "depth=32",
)
LINEAR_ROWS = ("mnist", "mnist+fourier", "mnist+fourier+random_labels")

EXPERIMENTS = {
    "quickstart": Experiment(QUICKSTART_ROWS, quickstart),
    "table1": Experiment(TABLE1_ROWS, table1),
    "table2": Experiment(TABLE2_ROWS, table2),
    "table3": Experiment(TABLE3_ROWS, table3),
    "table4": Experiment(TABLE4_ROWS, table4),
    "figure1": Experiment(FIGURE1_ROWS, figure1),
    "figure_async": Experiment(FIGURE_ASYNC_ROWS, figure_async),
    "complexity": Experiment(COMPLEXITY_ROWS, complexity),
    "expressivity": Experiment(EXPRESSIVITY_ROWS, expressivity),
    "linear": Experiment(LINEAR_ROWS, linear),
}
