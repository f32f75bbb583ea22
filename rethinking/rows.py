"""What row names mean: from `table1:inception+crop` to a config, for every experiment of the paper.

`EXPERIMENTS` has an entry for each file of configs/. That file says what the experiment shows.
"""

import contextlib
import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict

from rethinking import experiments
from rethinking.errors import InputError, nearest, require_known
from rethinking.settings import (
    IMAGENET_OPTIONS,
    SETTINGS,
    TABLE1_MODELS,
    TABLE_OPTIONS,
    add_random_labels,
    cifar10,
    imagenet,
    named,
    setting,
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The rows of one file of configs/, and what each means."""

    rows: tuple[str, ...]
    # From a row to its config. Raises InputError, with the nearest known name, for an unknown row.
    get_config: Callable[[str], ConfigDict]


def table_row(experiment: str, row: str) -> ConfigDict:
    """MODEL[+crop][+wd][+random_labels][+augment] of Table 1 or 4, options in any order.

    Raises InputError, with the nearest known name, for an unknown model or option.
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


def quickstart(row: str) -> ConfigDict:
    """A setting of section 2.1, with an MLP on handwritten digits.

    The learning rate decays by 0.98 an epoch, more slowly than on CIFAR10: an epoch has 44 steps
    instead of 390.
    """
    config = experiments.defaults("training")
    config.update(batch_size=32, learning_rate=0.05, decay_per_epoch=0.98)
    return named(setting(config, row), "quickstart", row)


def audit(row: str) -> ConfigDict:
    """A setting of section 2.1, for a network and data of the user's own.

    The optimizer is AdamW with its usual learning rate and no weight decay, because that trains
    most networks without tuning. The learning rate falls to zero along a cosine.
    """
    config = experiments.defaults("training")
    config.update(
        optimizer="adamw", learning_rate=1e-3, schedule="cosine", batch_size=32, max_epochs=200
    )
    return named(setting(config, row), "audit", row)


def audit_leaves_out(config: ConfigDict) -> str:
    """Why a row of the audit makes no sense for the data of `config`; "" if it does.

    Also "" for a data set that cannot be found: the run itself says what is wrong with it.
    """
    if config.randomize.pixels == "none":
        return ""
    if config.data.stream:
        return "streamed images keep their pixels"
    from rethinking.experiments import data_set  # here: listing rows needs no data

    with contextlib.suppress(InputError):
        if config.randomize.pixels == "gaussian" and data_set.describe(config).kind == "tokens":
            return "tokens have no Gaussian noise"
    return ""


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

    Bandwidths were chosen on held-out training images: 5 for MNIST, which is
    exp(-0.02 ||x - z||^2), 0.5 for Gabor features, which have unit norm, and 7 for CIFAR10.
    Random centers are for 10,000 examples, four centers each. The condition number of their
    system grows with the third power of the number of examples, too large for float64 at 60,000.
    """
    require_known(row, TABLE3_ROWS, "table3: unknown row")
    config = experiments.defaults("kernels")
    config.data.name, *options = row.split("+")
    config.kernel.bandwidth = experiments.kernels.BANDWIDTHS[config.data.name]
    if "gabor" in options:
        config.features.name = "gabor"
        config.kernel.bandwidth = experiments.kernels.BANDWIDTHS["gabor"]
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

    With the learning rates of Table 1, late gradients make the MLP diverge, with 8 workers and with
    50. So all rows have 0.03 of these rates, without decay. With that, training works even with 50
    workers.
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

    Settings are those of Table 1, except for batches of 32. There are fewer images, and smaller
    batches keep the number of steps high.
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
AUDIT_ROWS = QUICKSTART_ROWS
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
# The rows that say most, the most telling first. A sweep of several files begins with them.
TABLE1_TELLING = tuple(
    f"{model}{labels}"
    for model in ("inception", "alexnet", "mlp_1x512", "mlp_3x512", "inception_no_bn")
    for labels in ("+random_labels", "")
)
FIGURE1_TELLING = (
    *(f"inception+{name}" for name in SETTINGS),
    *(
        f"{model}+corrupt={p}"
        for p in (0.5, 0.2, 0.8)
        for model in ("inception", "alexnet", "mlp_1x512")
    ),
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
    "audit": Experiment(AUDIT_ROWS, audit),
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
