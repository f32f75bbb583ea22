"""How the report shows each kind of experiment. A new kind needs one entry in `KINDS`."""

from typing import NamedTuple


class Shown(NamedTuple):
    """A number of result.json as a column of a table."""

    field: str
    header: str
    form: str  # "percent", "epochs", or a format such as ".3g"


class Kind(NamedTuple):
    """The columns of a kind's tables, what they mean, and whether its runs write metrics.jsonl."""

    columns: tuple[Shown, ...]
    title: str
    legend: str = ""
    has_metrics: bool = False


_SECONDS = Shown("seconds", "seconds", ".0f")
KINDS = {
    "training": Kind(
        columns=(
            Shown("train_accuracy", "train", "percent"),
            Shown("train_accuracy_top5", "train top-5", "percent"),
            Shown("test_accuracy", "test", "percent"),
            Shown("test_accuracy_top5", "test top-5", "percent"),
            Shown("fit_epoch", "epochs to fit", "epochs"),
        ),
        title="accuracy in percent",
        has_metrics=True,
    ),
    "kernels": Kind(
        columns=(
            Shown("test_error", "test error", "percent"),
            Shown("train_error", "train error", "percent"),
            Shown("norm", "norm", ".4g"),
            Shown("ridge", "ridge", ".0e"),
            Shown("residual", "residual", ".0e"),
            Shown("num_examples", "n", ",.0f"),
            _SECONDS,
        ),
        title="linear models, error in percent",
        legend="Norm: of the function in its kernel's space. "
        "Residual: of the linear system, relative. "
        "Ridge: relative to the mean of the matrix's diagonal.",
    ),
    "expressivity": Kind(
        columns=(
            Shown("num_points", "points", ",.0f"),
            Shown("num_weights", "weights", ",.0f"),
            Shown("depth", "depth", ",.0f"),
            Shown("width", "width", ",.0f"),
            Shown("train_error", "error, float64", "percent"),
            Shown("max_residual", "largest residual", ".1e"),
            Shown("train_error_float32", "error, float32", "percent"),
            Shown("smallest_eigenvalue", "smallest eigenvalue", ".1e"),
            _SECONDS,
        ),
        title="networks built to reproduce random labels",
        legend="Error: on the training labels, in percent.",
    ),
    "linear": Kind(
        columns=(
            Shown("norm", "norm", ".4g"),
            Shown("train_error", "train error", "percent"),
            Shown("test_error", "test error", "percent"),
            Shown("sgd_distance", "distance of SGD", ".0e"),
            Shown("null_dimension", "null dimension", ",.0f"),
            Shown("hessian_difference", "Hessian, difference", ".0e"),
            Shown("hessian_difference_at_zero", "at zero weights", ".0e"),
            _SECONDS,
        ),
        title="solutions of a linear model, error in percent",
        legend="Distance of SGD: from the solution after the last step, relative to the distance "
        "before the first. SGD from zero approaches the solution of minimum norm. Null dimension: "
        "of the Hessian of the risk. Hessian, difference: the largest between two solutions of a "
        "row, relative to the largest entry. At zero weights: the same between the solution of "
        "minimum norm and w = 0, which fits no labels.",
    ),
    "complexity": Kind(
        columns=(
            Shown("rademacher", "Rademacher", ".3f"),
            Shown("rademacher_low", "at least", ".3f"),
            Shown("rademacher_high", "at most", ".3f"),
            Shown("linear_span", "linear", ".3f"),
            Shown("kernel_ball", "kernel ball", ".3f"),
            Shown("num_fitted", "draws fitted", ",.0f"),
            Shown("draws", "of", ",.0f"),
            Shown("vc_at_least", "VC at least", ",.0f"),
            Shown("max_change", "largest change of loss", ".3g"),
            Shown("mean_change", "mean change", ".3g"),
            Shown("repeat_mean_change", "mean change, none replaced", ".3g"),
            Shown("train_loss", "train loss", ".3g"),
            Shown("test_loss", "test loss", ".3g"),
            Shown("weight_norm", "weight norm", ".3g"),
            Shown("spectral_product", "product of spectral norms", ".3g"),
            Shown("margin_0.1", "margin, 10% quantile", ".3g"),
            _SECONDS,
        ),
        title="measures of complexity",
        legend="Rademacher: complexity of the network's signs, found by training on random "
        "signs, with a 95% interval. Linear: the same for linear functions whose mean square is 1. "
        "Changes: how much losses change when one training example is replaced. None replaced: the "
        "same training twice; some devices add in another order each time.",
        has_metrics=True,
    ),
}
