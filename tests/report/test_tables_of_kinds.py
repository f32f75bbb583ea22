"""The tables of single kinds of experiments: their columns and rows."""

from rethinking import experiments, rows
from rethinking.report import collect, paper
from rethinking.settings import named
from tests.report.cells import made, number_of, row_in, row_of
from tests.report.runs import make_run, write


def test_table_3_has_errors_norms_and_times_beside_the_published(tmp_path):
    settings = named(experiments.defaults("kernels"), "table3", "mnist")
    write(
        tmp_path / "run",
        settings,
        [],
        result={
            "test_error": 0.0122,
            "train_error": 0.0,
            "norm": 221.3,
            "ridge": 0.0,
            "residual": 3e-12,
            "num_examples": 60000,
            "seconds": 300.0,
        },
    )
    assert row_of(tmp_path, "table3", "mnist") == [
        "mnist",
        "1.22 (1)",
        "1.2",
        "+0.02",
        "0.00 (1)",
        "221.3",
        "approximately 220",
        "0e+00",
        "3e-12",
        "60,000",
        "300",
        "1",
    ]
    assert row_of(tmp_path, "table3", "cifar10+random_conv+ridge")[1:3] == [paper.MISSING, "15"]


def test_other_numbers_of_random_filters_have_rows_of_their_own(all_tables):
    table = all_tables["table3"]
    whole = row_in(table, "cifar10+random_conv")
    assert whole[1:3] == ["17.49 ± 0.30 (3)", "17"]  # 0.171875 + 0.003 seed
    fewer = row_in(table, "cifar10+random_conv, 1,000 filters")
    assert fewer[1:3] == ["23.30 ± 0.30 (3)", paper.MISSING]


def test_so_have_other_numbers_of_examples(tmp_path):
    settings = rows.EXPERIMENTS["table3"].get_config("mnist+random_test_labels")
    write(tmp_path / "whole", settings, [], result={"test_error": 0.9})
    settings.data.num_train = 5000
    write(tmp_path / "part", settings, [], result={"test_error": 0.91})
    assert row_of(tmp_path, "table3", "mnist+random_test_labels")[1] == "90.00 (1)"
    assert row_of(tmp_path, "table3", "mnist+random_test_labels, 5,000 examples")[1] == "91.00 (1)"


def test_expressivity_has_a_table(tmp_path):
    settings = named(experiments.defaults("expressivity"), "expressivity", "cifar10")
    write(
        tmp_path / "run",
        settings,
        [],
        result={"train_error": 0.0, "num_weights": 103072, "depth": 2, "width": 50000},
    )
    wanted = {"weights": "103,072", "depth": "2", "width": "50,000", "error, float64": "0.00 (1)"}
    for header, text in wanted.items():
        assert number_of(tmp_path, "expressivity", "cifar10", header) == text
    assert number_of(tmp_path, "expressivity", "cifar10", "points") is None  # no run has it


def test_complexity_has_a_table(tmp_path):
    settings = named(experiments.defaults("complexity"), "complexity", "rademacher+alexnet")
    write(
        tmp_path / "run",
        settings,
        [{"num_train": 9}],
        result={"rademacher": 1.0, "draws": 5, "num_fitted": 5, "seconds": 3.0},
    )
    for header, text in {"Rademacher": "1.000", "draws fitted": "5", "of": "5"}.items():
        assert number_of(tmp_path, "complexity", "rademacher+alexnet", header) == text
    assert number_of(tmp_path, "complexity", "rademacher+alexnet", "mean change") is None


def test_shifted_test_sets_have_a_table_of_their_own(tmp_path):
    for seed, accuracy in enumerate((0.4, 0.6)):
        make_run(
            tmp_path,
            "table1:mlp_1x512",
            seed,
            test=0.5,
            shifts={
                "noise=1": {"loss": 1.0, "accuracy": accuracy},
                "cifar10_1": {"loss": 1.0, "accuracy": 0.3},
            },
        )
    make_run(tmp_path, "table1:mlp_3x512")
    table = made(tmp_path)["shifts"]
    assert [column.header for column in table.columns] == [
        "row",
        "test",
        "noise=1",
        "cifar10_1",
        "runs",
    ]
    (row,) = table.rows
    assert table.cells(row) == [
        "table1:mlp_1x512",
        "50.00 ± 0.00 (2)",
        "50.00 ± 14.14 (2)",
        "30.00 ± 0.00 (2)",
        "2",
    ]


def _linear_run(root, seed, distance=1e-6, **solutions):
    """A run of section 5's linear models; `solutions` are name -> norm, test error."""
    config = rows.EXPERIMENTS["linear"].get_config("mnist+fourier")
    config.seed = config.randomize.seed = seed
    found = []
    for name, (norm, error) in solutions.items():
        found.append({"name": name, "norm": norm, "train_error": 0.0, "test_error": error})
    sgd = [
        {"start": "zero", "step": 0, "distance": 1.0},
        {"start": "zero", "step": 9, "distance": distance},
        {"start": "random", "step": 9, "distance": 2e-5},
    ]
    result = {"solutions": found, "sgd": sgd, "null_dimension": 1500, "hessian_difference": 3e-15}
    return write(root / f"seed_{seed}", config, [], result=result)


def test_every_solution_of_a_linear_model_has_a_row(tmp_path):
    for seed in range(2):
        errors = {
            "minimum_norm": (20 + 2 * seed, 0.25),
            "random_start": (124.0, 0.5 + 0.25 * seed),
            "random_test_labels": (136.0, 0.875),
        }
        _linear_run(tmp_path, seed, **errors)
    table = made(tmp_path)["linear"]
    assert table.title == "Section 5: solutions of a linear model, and the one that SGD finds"
    assert [column.header for column in table.columns] == [
        "row",
        "norm",
        "train error",
        "test error",
        "distance of SGD",
        "null dimension",
        "Hessian, difference",
        "seconds",
        "runs",
    ]
    none = paper.MISSING
    zero = "0.00 ± 0.00 (2)"
    # 21 ± sqrt(2), and 62.5 ± 12.5 sqrt(2)
    assert [table.cells(row)[:6] for row in table.rows] == [
        ["mnist+fourier, minimum norm", "21 ± 1.414", zero, "25.00 ± 0.00 (2)", "1e-06", "1,500"],
        [
            "mnist+fourier, SGD from a random start",
            "124",
            zero,
            "62.50 ± 17.68 (2)",
            "2e-05",
            "1,500",
        ],
        [
            "mnist+fourier, fitted to random test labels too",
            "136",
            zero,
            "87.50 ± 0.00 (2)",
            none,
            "1,500",
        ],
    ]


def test_an_unfinished_linear_model_has_one_row_and_a_damaged_one_is_broken(tmp_path):
    path = _linear_run(tmp_path, 0, minimum_norm=(20.0, 0.25))
    (path / "result.json").write_text('{"status": "complete", "solutions": [{"norm": 1}]}')
    assert "unreadable solutions" in collect.collect([tmp_path]).broken[0]
    (path / "result.json").unlink()
    assert row_of(tmp_path, "linear", "mnist+fourier")[1:] == ["0 of 1 finished"]
