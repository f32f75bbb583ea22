"""The sentences that the report begins with, from made-up runs."""

from rethinking import experiments, rows
from rethinking.report import collect, findings
from rethinking.settings import cifar10
from tests.report.runs import make_run, write


def found(root):
    collection = collect.collect([root])
    table = findings.table(collection)
    return table, findings.sentences(table, collection)


def cells(table):
    return {row.name: table.cells(row)[1:] for row in table.rows}


def test_networks_that_fit_both_are_one_sentence_with_the_range_of_their_accuracies(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "table1:alexnet", seed, test=0.75 + 0.02 * seed)
        make_run(tmp_path, "table1:alexnet+random_labels", seed, test=0.1)
        make_run(tmp_path, "table1:alexnet+wd", seed, test=0.99)  # regularized: not counted
    make_run(tmp_path, "table1:mlp_1x512", test=0.512)
    make_run(tmp_path, "table1:mlp_1x512+random_labels", train=0.99, test=0.11)
    table, sentences = found(tmp_path)
    assert cells(table) == {
        "AlexNet, CIFAR10": [
            "100.00 ± 0.00 (2)",
            "76.00 ± 1.41 (2)",
            "100.00 ± 0.00 (2)",
            "10.00 ± 0.00 (2)",
            "4",
        ],
        "MLP 1x512, CIFAR10": ["100.00 (1)", "51.20 (1)", "99.00 (1)", "11.00 (1)", "2"],
    }
    assert sentences == [
        "On CIFAR10, AlexNet and MLP 1x512 fit both the true labels and random labels. "
        "Test accuracy is 51.2% to 76.0% after training on true labels and 10.0% to 11.0% after "
        "training on random labels."
    ]


def test_a_network_that_does_not_fit_random_labels_is_said_to(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", test=0.5)
    make_run(tmp_path, "table1:mlp_1x512+random_labels", 0, fit_step=None, train=0.4, test=0.1)
    make_run(tmp_path, "table1:mlp_1x512+random_labels", 1, test=0.1)
    _, sentences = found(tmp_path)
    assert sentences == [
        "On CIFAR10, MLP 1x512 fits the true labels but not random labels. Test accuracy is 50.0% "
        "after training on true labels and 10.0% after training on random labels."
    ]


def test_a_network_with_one_of_the_two_has_a_row_but_no_sentence(tmp_path):
    config = cifar10("mlp_1x512")
    config.data.num_train = 1024
    make_run(tmp_path, "mine:a", config=config, test=0.3)
    make_run(tmp_path, "table1:alexnet", status="unfinished")
    table, sentences = found(tmp_path)
    name = "MLP 1x512, CIFAR10, 1,024 training examples"
    assert cells(table) == {name: ["100.00 (1)", "30.00 (1)", "–", "–", "1"]}  # noqa: RUF001
    assert sentences == ["No network has complete runs on both true and random labels yet."]


def test_of_several_settings_the_most_frequent_counts_and_differences_are_noted(tmp_path):
    for seed, epochs in enumerate((45, 45, 100)):
        config = cifar10("mlp_1x512")
        config.max_epochs = epochs
        make_run(tmp_path, "table1:mlp_1x512", seed, config=config, test=0.4 + epochs / 1000)
    make_run(tmp_path, "table1:mlp_1x512+random_labels", test=0.1)
    table, _ = found(tmp_path)
    (row,) = table.rows
    assert table.cells(row)[2] == "44.50 ± 0.00 (2)"
    assert row.notes == [
        "True and random labels differ in other settings too: max_epochs (45 and 100)."
    ]


def test_the_best_exact_linear_model_and_the_largest_construction_are_named(tmp_path):
    for number, (error, train) in enumerate(((0.2, 0.1), (0.43, 0.0), (0.3, 0.0))):
        config = rows.EXPERIMENTS["table3"].get_config("cifar10")
        config.kernel.bandwidth = 1.0 + number
        if error == 0.3:
            config.data.num_train = 10_000
        result = {"test_error": error, "train_error": train}
        write(tmp_path / f"kernel{number}", config, [], result=result)
    config.data.num_test = 100
    result = {"test_error": 0.01, "train_error": 0.0}
    write(tmp_path / "few_test_images", config, [], result=result)
    for points, depth, labels in [(10_000, 2, 1), (50_000, 2, 1), (60_000, 3, 1), (60_001, 2, 0)]:
        config = experiments.defaults("expressivity")
        config.row, config.data.num_train = "expressivity:cifar10", points
        config.depth, config.randomize.labels = depth, float(labels)
        result = {"train_error": 0.0, "num_points": points, "num_weights": 2 * points + 3072}
        write(tmp_path / f"network{points}", config, [], result=result | {"depth": depth})
    _, sentences = found(tmp_path)
    assert sentences[1:] == [
        "The best linear models that fit all training labels have a test error of "
        "30.00% on CIFAR10 (10,000 training examples).",
        "A network built as in Theorem 1 reproduces random labels of 50,000 examples without an "
        "error. It has 103,072 weights.",
    ]


def test_the_solution_of_sgd_from_zero_stands_beside_the_others(tmp_path):
    solutions = [
        {"name": "minimum_norm", "norm": 20.0, "train_error": 0.0, "test_error": 0.113},
        {"name": "random_start", "norm": 124.0, "train_error": 0.0, "test_error": 0.611},
        {"name": "random_test_labels", "norm": 136.0, "train_error": 0.0, "test_error": 0.901},
    ]
    result = {"solutions": solutions, "sgd": [{"start": "zero", "distance": 1e-8}]}
    config = rows.EXPERIMENTS["linear"].get_config("mnist+fourier")
    path = write(tmp_path / "run", config, [], result=result)
    assert found(tmp_path)[1][1:] == [
        "On MNIST, 500 training examples, SGD from zero finds the linear model of minimum norm, "
        "with a test error of 11.3%. Other linear models that fit all training labels have 61.1% "
        "and 90.1%."
    ]
    text = (path / "result.json").read_text()
    for claim, change in (
        ("1e-08", "0.5"),  # SGD did not come near
        ('"norm": 124.0', '"norm": 12.0'),  # another solution is smaller
        ('"minimum_norm"', '"other"'),
    ):
        assert claim in text
        (path / "result.json").write_text(text.replace(claim, change))
        assert found(tmp_path)[1][1:] == [], claim
    misfit = '"train_error": 0.1, "test_error": 0.611'  # a solution that does not fit is left out
    exact = misfit.replace("0.1", "0.0")
    assert exact in text
    (path / "result.json").write_text(text.replace(exact, misfit))
    assert found(tmp_path)[1][-1].endswith("that fit all training labels have 90.1%.")
