"""The published numbers, in percent, and the names under which the report shows things.

Source: Zhang, Bengio, Hardt, Recht, Vinyals, arXiv 1611.03530. A number marked as from elsewhere is
from a later version of the paper.
"""

import dataclasses
from typing import NamedTuple

MISSING = "–"  # noqa: RUF001  stands where there is no number
MODEL_TITLES = {
    "inception": "Inception",
    "inception_no_bn": "Inception without BN",
    "alexnet": "AlexNet",
    "mlp_3x512": "MLP 3x512",
    "mlp_1x512": "MLP 1x512",
    "wide_resnet_28_1": "Wide ResNet 28-1",
    "resnet_18": "ResNet-18",
    "vit_patch4": "Vision Transformer",
    "inception_v3": "Inception V3",
}
LABEL_TITLES = {0.0: "true labels", 1.0: "random labels"}  # by the probability of corruption
DATA_TITLES = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "imagenet2012": "ImageNet",
    "imagenette_subset": "Imagenette",
    "digits": "handwritten digits",
}
# The solutions of `rethinking.experiments.linear`, and the start from which SGD finds each.
SOLUTION_TITLES = {
    "minimum_norm": "minimum norm",
    "random_start": "SGD from a random start",
    "random_test_labels": "fitted to random test labels too",
}
SGD_STARTS = {"minimum_norm": "zero", "random_start": "random"}


class DataSet(NamedTuple):
    """A training set."""

    name: str
    num_train: int  # 0 means all of it

    def __str__(self) -> str:
        title = DATA_TITLES.get(self.name, self.name)
        return f"{title}, {self.num_train:,} training examples" if self.num_train else title

    @property
    def key(self) -> str:
        """The data set as part of a name: "cifar10" or "cifar10_1024"."""
        return f"{self.name}_{self.num_train}" if self.num_train else self.name


CIFAR10 = DataSet("cifar10", 0)


@dataclasses.dataclass(frozen=True)
class Number:
    """A published number in percent, or what the paper says in words."""

    percent: float | None = None
    elsewhere: bool = False  # not in arXiv 1611.03530
    words: str = ""
    best: float | None = None  # the best during training, which Table 2 has in brackets
    decimals: int = 2  # of the percent, as printed

    @property
    def rounding(self) -> float:
        """The most by which the percent can differ from the number that was rounded."""
        return 0.5 * 10**-self.decimals

    def __str__(self) -> str:
        text = self.words if self.percent is None else f"{self.percent:.{self.decimals}f}"
        if self.elsewhere:
            text += " †"
        if self.best:
            text += f" [{self.best:.2f}]"
        return text or MISSING


# A row of a published table: field of result.json -> number.
Published = dict[str, Number]


def _accuracy(percent: float | None, elsewhere: bool = False, words: str = "") -> Number:
    """An accuracy on the training set. The paper prints 100.0, and two decimals of all others."""
    return Number(percent, elsewhere, words, decimals=1 if percent == 100 else 2)


def _accuracies(train: float, test: float, test_elsewhere: bool = False) -> Published:
    return {"train_accuracy": _accuracy(train), "test_accuracy": Number(test, test_elsewhere)}


def _fitted(train: float | None, words: str = "") -> Published:
    return {"train_accuracy": _accuracy(train, elsewhere=True, words=words)}


def _top(
    train: float,
    train5: float,
    test: float,
    test5: float,
    best: float | None = None,
    best5: float | None = None,
) -> Published:
    return {
        "train_accuracy": _accuracy(train),
        "train_accuracy_top5": _accuracy(train5),
        "test_accuracy": Number(test, best=best),
        "test_accuracy_top5": Number(test5, best=best5),
    }


def _interpolated(
    error: float | None = None, words: str = "", norm: str = "", decimals: int = 0
) -> Published:
    number = Number(error, words=words, decimals=decimals)
    return {"test_error": number, "norm": Number(words=norm)}


TABLES: dict[str, dict[str, Published]] = {
    # CIFAR10: no regularizer, explicit ones, random labels.
    "table1": {
        "inception+crop+wd": _accuracies(100.0, 89.05),
        "inception+crop": _accuracies(100.0, 89.31),
        "inception+wd": _accuracies(100.0, 86.03),
        "inception": _accuracies(100.0, 85.75),
        "inception+random_labels": _accuracies(100.0, 9.78),
        "inception_no_bn+wd": _accuracies(100.0, 83.00),
        "inception_no_bn": _accuracies(100.0, 82.00),
        "inception_no_bn+random_labels": _accuracies(100.0, 10.12, test_elsewhere=True),
        "alexnet+crop+wd": _accuracies(99.90, 81.22),
        "alexnet+crop": _accuracies(99.82, 79.66),
        "alexnet+wd": _accuracies(100.0, 77.36),
        "alexnet": _accuracies(100.0, 76.07),
        "alexnet+random_labels": _accuracies(99.82, 9.86),
        "mlp_3x512+wd": _accuracies(100.0, 53.35),
        "mlp_3x512": _accuracies(100.0, 52.39),
        "mlp_3x512+random_labels": _accuracies(100.0, 10.48, test_elsewhere=True),
        "mlp_1x512+wd": _accuracies(99.80, 50.39),
        "mlp_1x512": _accuracies(100.0, 50.51),
        "mlp_1x512+random_labels": _accuracies(99.34, 10.61, test_elsewhere=True),
    },
    # ImageNet, Inception V3. In brackets: the best test accuracy during training.
    "table2": {
        "aug+dropout+wd": _top(92.18, 99.21, 77.84, 93.92),
        "aug": _top(92.33, 99.17, 72.95, 90.43),
        "wd": _top(90.60, 100.0, 67.18, 86.44, best=72.57, best5=91.31),
        "none": _top(99.53, 100.0, 59.80, 80.38, best=63.16, best5=84.49),
        "random_labels+dropout+wd": _top(91.18, 97.95, 0.09, 0.49),
        "random_labels+wd": _top(87.81, 96.15, 0.12, 0.50),
        "random_labels": _top(95.20, 99.14, 0.11, 0.56),
    },
    # Linear models, and the norms of section 5. "mnist" took "under 3 minutes" on 24 cores.
    "table3": {
        "mnist": _interpolated(1.2, norm="approximately 220", decimals=1),
        "mnist+ridge": _interpolated(words="no better"),
        "mnist+gabor": _interpolated(0.6, norm="390", decimals=1),
        "mnist+gabor+ridge": _interpolated(words="no better"),
        "mnist+random_centers": _interpolated(norm="significantly larger"),
        "mnist+random_test_labels": _interpolated(norm="significantly larger"),
        "cifar10": _interpolated(46.0),
        "cifar10+random_conv": _interpolated(17.0),
        "cifar10+random_conv+ridge": _interpolated(15.0),
    },
    # Training accuracy on random labels with a regularizer. Section 3 says it in words.
    "table4": {
        "inception+wd+random_labels": _fitted(100.0),
        "alexnet+wd+random_labels": _fitted(None, "fails to converge"),
        "mlp_3x512+wd+random_labels": _fitted(100.0),
        "mlp_1x512+wd+random_labels": _fitted(99.21),
        "inception+crop+random_labels": _fitted(99.93),
        "inception+random_labels+augment": _fitted(99.28),
    },
}
# The data of the published numbers. Runs on other data have tables of their own.
DATA = {
    "table1": CIFAR10,
    "table2": DataSet("imagenet2012", 0),
    "table4": CIFAR10,
}
TITLES = {
    "table1": "Table 1: accuracy on CIFAR10, in percent",
    "table2": "Table 2: accuracy on ImageNet, in percent",
    "table3": "Table 3: linear models that fit the training set exactly, error in percent",
    "table4": "Table 4: random labels with a regularizer, accuracy on CIFAR10, in percent",
    "audit": "Audit: accuracy in percent",
    "complexity": "Section 2.2: measures of complexity",
    "expressivity": "Theorem 1: networks built to reproduce random labels",
    "figure1": "Runs of Figure 1: accuracy in percent",
    "figure_async": "Asynchronous workers: accuracy in percent",
    "linear": "Section 5: solutions of a linear model, and the one that SGD finds",
    "quickstart": "Quickstart: accuracy in percent",
}
NOTES = {
    "table1": "† From a later version of the paper, not in arXiv 1611.03530.",
    "table2": "For reference: AlexNet (2012) has a top-5 test accuracy of 83.6.",
    "table4": "† From a later version of the paper, not in arXiv 1611.03530.",
}
FIGURE2_MODELS = ("inception", "inception_no_bn")  # of Figure 2b


def title(model: str) -> str:
    """A network's name in the paper, or its own name if the paper has none."""
    return MODEL_TITLES.get(model, model)
