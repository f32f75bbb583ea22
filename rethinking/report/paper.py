"""The published numbers that the tables stand beside, in percent.

Source: Zhang, Bengio, Hardt, Recht, Vinyals, arXiv 1611.03530, unless a number is marked as from elsewhere: then it
is from a later version of the paper.
"""

import dataclasses

MISSING = "–"  # noqa: RUF001  the sign for no number


@dataclasses.dataclass(frozen=True)
class Number:
    """A published number, in percent, or what the paper says in its stead."""

    percent: float | None = None
    elsewhere: bool = False  # not in arXiv 1611.03530
    words: str = ""

    def __str__(self) -> str:
        text = self.words if self.percent is None else f"{self.percent:.2f}"
        return text + " †" * self.elsewhere or MISSING


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a published table: final training and test accuracy."""

    train: Number = Number()
    test: Number = Number()


ELSEWHERE = "† not in the text of arXiv 1611.03530: from a later version of the paper."


def _accuracies(train: float, test: float, test_elsewhere: bool = False) -> Published:
    return Published(Number(train), Number(test, test_elsewhere))


def _fitted(train: float | None, words: str = "") -> Published:
    return Published(train=Number(train, elsewhere=True, words=words))


# Table 1: CIFAR10.
TABLE1 = {
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
}

# Table 4 of the published version: training accuracy on random labels with a regularizer; section 3 says it in words.
TABLE4 = {
    "inception+wd+random_labels": _fitted(100.0),
    "alexnet+wd+random_labels": _fitted(None, "fails to converge"),
    "mlp_3x512+wd+random_labels": _fitted(100.0),
    "mlp_1x512+wd+random_labels": _fitted(99.21),
    "inception+crop+random_labels": _fitted(99.93),
    "inception+random_labels+augment": _fitted(99.28),
}

TABLES = {"table1": TABLE1, "table4": TABLE4}


@dataclasses.dataclass(frozen=True)
class Interpolated:
    """A row of Table 3: test error in percent, and where the text gives it the solution's norm."""

    error: Number = Number()
    norm: str = MISSING


# Table 3: linear models, and the norms that section 5 gives. "mnist" took "under 3 minutes" on 24 cores.
TABLE3 = {
    "mnist": Interpolated(Number(1.2), "approximately 220"),
    "mnist+ridge": Interpolated(Number(words="no better")),
    "mnist+gabor": Interpolated(Number(0.6), "390"),
    "mnist+gabor+ridge": Interpolated(Number(words="no better")),
    "mnist+random_centers": Interpolated(norm="significantly larger"),
    "mnist+random_test_labels": Interpolated(norm="significantly larger"),
    "cifar10": Interpolated(Number(46.0)),
    "cifar10+random_conv": Interpolated(Number(17.0)),
    "cifar10+random_conv+ridge": Interpolated(Number(15.0)),
}
TITLES = {
    "table1": "Table 1: accuracy on CIFAR10, in percent",
    "table4": "Table 4: fitting random labels with a regularizer on, CIFAR10, accuracy in percent",
    "table3": "Table 3: linear models that interpolate, one solve each; error in percent",
    "complexity": "Section 2.2: measures of complexity that explain nothing",
    "expressivity": "Theorem 1 and Corollary 1: networks built to reproduce random labels",
    "figure1": "Figure 1: the runs behind it, accuracy in percent",
    "quickstart": "Quickstart: the randomization tests, accuracy in percent",
}

# Figure 1: which networks b and c show, and which corruptions.
FIGURE1_MODELS = ("inception", "alexnet", "mlp_1x512")
FIGURE1_CORRUPTIONS = tuple(p / 10 for p in range(11))
MODEL_TITLES = {
    "inception": "Inception", "inception_no_bn": "Inception without BN", "alexnet": "AlexNet",
    "mlp_3x512": "MLP 3x512", "mlp_1x512": "MLP 1x512", "wide_resnet_28_1": "Wide ResNet 28-1",
}  # fmt: skip
