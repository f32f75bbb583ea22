"""Golden tables from made-up run directories; means and deviations computed by hand."""

import csv
import io
import json
import re

import pytest

from rethinking import experiments, rows
from rethinking.report import collect, formats, kinds, paper, settings
from rethinking.settings import cifar10, setting
from tests.report.cells import made, row_in, row_of
from tests.report.runs import make_run


def test_published_rows_are_rows_of_the_experiments():
    assert tuple(paper.TABLES["table1"]) == rows.EXPERIMENTS["table1"].rows
    assert tuple(paper.TABLES["table4"]) == rows.EXPERIMENTS["table4"].rows
    assert set(paper.TABLES["table2"]) <= set(rows.EXPERIMENTS["table2"].rows)
    assert set(paper.TABLES["table3"]) <= set(rows.EXPERIMENTS["table3"].rows)


@pytest.mark.parametrize(
    "result, note",
    [
        ({"num_devices": 8, "batch_norm_examples": 128}, None),
        ({"num_devices": 8, "batch_norm_examples": None}, None),
        ({"num_devices": 1}, None),
        (
            {"num_devices": 8, "batch_norm_examples": 16},
            "Batch norm averages over 16 of the 128 examples of a batch, because 8 devices share "
            "it (seed 0).",
        ),
        (
            {"num_devices": 8},  # an older run, which does not say whether it has batch norm
            "Batch norm, if the network has it, averages over 16 of the 128 examples of a batch, "
            "because 8 devices share it (seed 0).",
        ),
    ],
)
def test_a_row_whose_batch_norm_saw_a_part_of_each_batch_is_flagged(result, note, tmp_path):
    make_run(tmp_path, "table1:inception", **result)
    assert list(made(tmp_path)["table1"].notes) == [note][: note is not None]


def test_every_kind_of_experiment_has_columns():
    assert kinds.KINDS.keys() == experiments.KINDS.keys()


def test_mean_deviation_and_difference_stand_beside_the_published_numbers(tmp_path):
    for seed, (train, test) in enumerate([(0.99, 0.51), (1.0, 0.53), (0.98, 0.55)]):
        make_run(tmp_path, "table1:mlp_1x512", seed, train=train, test=test)
    for seed, test in enumerate([0.5037, 0.5039]):
        make_run(tmp_path, "table1:mlp_1x512+wd", seed, train=0.998, test=test)
    make_run(tmp_path, "table1:alexnet", train=0.99, test=0.7)
    # 53 lies 2.49 from 50.51: more than 2. One run has no spread, and its difference no mark.
    assert row_of(tmp_path, "table1", "mlp_1x512") == [
        "mlp_1x512",
        "99.00 ± 1.00 (3)",
        "100.0",
        "≈ -1.00",
        "53.00 ± 2.00 (3)",
        "50.51",
        "≠ +2.49",
        "10.0 ± 0.0 (3)",
        "3",
    ]
    assert row_of(tmp_path, "table1", "mlp_1x512+wd")[1:7] == [
        "99.80 ± 0.00 (2)",
        "99.80",
        "≈ +0.00",
        "50.38 ± 0.01 (2)",
        "50.39",
        "≈ -0.01",
    ]
    assert row_of(tmp_path, "table1", "alexnet")[1:] == [
        "99.00 (1)",
        "100.0",
        "-1.00",
        "70.00 (1)",
        "76.07",
        "-6.07",
        "10.0 (1)",
        "1",
    ]


def test_missing_diverged_and_unfinished_rows_are_shown_as_such(tmp_path):
    for seed, status in enumerate(["complete", "complete", "diverged"]):
        make_run(tmp_path, "table1:alexnet", seed, status=status, train=1.0, test=0.75)
    make_run(tmp_path, "table1:alexnet+wd", status="diverged")
    make_run(tmp_path, "table1:mlp_3x512", 0, test=0.5)
    make_run(tmp_path, "table1:mlp_3x512", 1, status="unfinished")
    make_run(tmp_path, "table1:mlp_1x512", status="unfinished")
    none = paper.MISSING
    ours = [1, 4, -1]
    assert [row_of(tmp_path, "table1", "alexnet")[i] for i in ours] == [
        "100.00 ± 0.00 (2)",
        "75.00 ± 0.00 (2)",
        "3; diverged (1 of 3)",
    ]
    assert row_of(tmp_path, "table1", "alexnet+wd")[1:] == [
        "diverged (1 of 1)",
        "100.0",
        none,
        "diverged (1 of 1)",
        "77.36",
        none,
        "diverged (1 of 1)",
        "1; diverged (1 of 1)",
    ]
    assert [row_of(tmp_path, "table1", "mlp_3x512")[i] for i in ours] == [
        "100.00 (1)",
        "50.00 (1)",
        "1 of 2 finished",
    ]
    assert [row_of(tmp_path, "table1", "mlp_1x512")[i] for i in ours] == ["unfinished"] * 2 + [
        "0 of 1 finished"
    ]
    assert row_of(tmp_path, "table1", "inception+crop")[1:] == [
        none,
        "100.0",
        none,
        none,
        "89.31",
        none,
        none,
        none,
    ]


def test_no_runs_give_all_tables_with_every_row_missing(tmp_path):
    found = made(tmp_path)
    assert list(found) == ["table1", "table2", "table3", "table4"]
    for name, published in paper.TABLES.items():
        assert found[name].missing == list(published)
    assert row_of(tmp_path, "table4", "alexnet+wd+random_labels")[2] == "fails to converge †"
    assert row_of(tmp_path, "table4", "mlp_1x512+wd+random_labels")[2] == "99.21 †"
    assert row_of(tmp_path, "table1", "mlp_3x512+random_labels")[2:6:3] == ["100.0", "10.48 †"]
    assert row_of(tmp_path, "table2", "wd")[8] == r"67.18 \[72.57\]"


def test_a_row_is_found_under_another_name_by_its_config(tmp_path):
    make_run(
        tmp_path,
        "figure1:mlp_1x512+true_labels",
        config=rows.table_row("table1", "mlp_1x512"),
        test=0.5,
    )
    assert row_of(tmp_path, "table1", "mlp_1x512")[4] == "50.00 (1)"
    assert row_of(tmp_path, "figure1", "mlp_1x512+true_labels")[2] == "50.00 (1)"


def test_runs_of_table_1_stand_in_figure_1_for_the_rows_that_it_shares(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", test=0.5)
    assert "figure1" not in made(tmp_path)
    make_run(
        tmp_path,
        "figure1:mlp_1x512+gaussian",
        config=setting(cifar10("mlp_1x512"), "gaussian"),
    )
    assert row_of(tmp_path, "figure1", "mlp_1x512+true_labels")[2] == "50.00 (1)"
    assert [row.name for row in made(tmp_path)["figure1"].rows] == [
        "mlp_1x512+true_labels",
        "mlp_1x512+gaussian",
    ]


def test_mixed_revisions_get_a_footnote(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", 0, revision="old")
    make_run(tmp_path, "table1:mlp_1x512", 1, revision="new")
    make_run(tmp_path, "table1:inception", 0)
    make_run(tmp_path, "table1:inception+wd", 0, revision="old")
    make_run(tmp_path, "table1:inception+wd", 1, revision="new")
    for name in ("mlp_1x512", "inception+wd"):
        assert row_of(tmp_path, "table1", name)[-1] == "2[^table1-1]"
    assert row_of(tmp_path, "table1", "inception")[-1] == "1"
    text = formats.to_markdown(made(tmp_path)["table1"])
    assert (
        text.count(
            "[^table1-1]: Made with different revisions of the code: old (seed 0), new (seed 1)."
        )
        == 1
    )


def test_other_settings_get_a_footnote_or_beside_published_numbers_their_own_row(
    tmp_path,
):
    for row, field in (
        ("table1:mlp_3x512", "batch_size"),
        ("figure1:mlp_1x512+true_labels", "max_epochs"),
    ):
        other = rows.table_row("table1", "mlp_3x512")
        other[field] = 64
        make_run(tmp_path, row, 1, config=other)
    assert row_of(tmp_path, "figure1", "mlp_1x512+true_labels")[-1] == "1[^figure1-1]"
    text = formats.to_markdown(made(tmp_path)["figure1"])
    assert "[^figure1-1]: Not the row's own settings: " in text and "max_epochs=64" in text
    assert row_of(tmp_path, "table1", "mlp_3x512")[1:3] == [paper.MISSING, "100.0"]
    assert row_of(tmp_path, "table1", "mlp_3x512, batch_size=64")[1:3] == [
        "100.00 (1)",
        paper.MISSING,
    ]


def test_runs_with_other_settings_are_not_averaged_with_those_of_the_row(tmp_path):
    name = "alexnet+wd+random_labels"
    for seed, train in enumerate((0.98, 1.0)):
        make_run(tmp_path, f"table4:{name}", seed, train=train)
    for weight_decay, train in ((0.004, 0.1), (0.001, 0.9)):
        other = rows.table_row("table4", name)
        other.weight_decay = weight_decay
        for seed in range(2):
            make_run(
                tmp_path / f"{weight_decay}", f"table4:{name}", seed, config=other, train=train
            )
    assert row_of(tmp_path, "table4", name)[1:3] == ["99.00 ± 1.41 (2)", "fails to converge †"]
    for weight_decay, train in ((0.004, "10.00"), (0.001, "90.00")):
        cells = row_of(tmp_path, "table4", f"{name}, weight_decay={weight_decay}")
        assert (cells[1], cells[2], cells[-1]) == (f"{train} ± 0.00 (2)", paper.MISSING, "2")
    found = [row.name for row in made(tmp_path)["table4"].rows]
    assert [name.partition(", ")[2] for name in found[1:4]] == [
        "",
        "weight_decay=0.001",
        "weight_decay=0.004",
    ]


def test_runs_evaluated_on_different_splits_are_not_averaged(tmp_path):
    for seed, (split, test) in enumerate([("test", 0.5), ("test", 0.5), ("validation", 0.9)]):
        make_run(tmp_path, "table1:mlp_1x512", seed, test=test, eval_split=split)
    make_run(tmp_path / "again", "table1:mlp_1x512", eval_split="validation", test=0.7)
    collected = collect.collect([tmp_path])
    name = "table1:mlp_1x512"
    found = settings.split("table1", "mlp_1x512", collected.of_row(name))
    values = {row: [run.value("test_accuracy") for run in runs] for row, (runs, _) in found.items()}
    assert values == {
        "mlp_1x512, data.eval_split=test": [0.5, 0.5],
        "mlp_1x512, data.eval_split=validation": [0.7, 0.9],
    }
    assert not collected.repeated


def test_where_no_run_has_the_rows_own_settings_the_published_row_is_missing(tmp_path):
    for batch_size in (64, 256):
        other = rows.table_row("table1", "mlp_3x512")
        other.batch_size, other.max_epochs = batch_size, 7
        make_run(tmp_path / f"{batch_size}", "table1:mlp_3x512", config=other)
    assert row_of(tmp_path, "table1", "mlp_3x512")[1:3] == [paper.MISSING, "100.0"]
    for batch_size in (64, 256):
        assert (
            row_of(tmp_path, "table1", f"mlp_3x512, batch_size={batch_size}, max_epochs=7")[-1]
            == "1"
        )


def test_the_longest_of_shorter_runs_stands_in_the_published_row_until_there_is_a_whole_one(
    tmp_path,
):
    for epochs in (5, 45, 200):
        other = rows.table_row("table1", "mlp_3x512")
        other.max_epochs, other.eval.num_train = epochs, 2000 * (epochs == 45)
        make_run(tmp_path / f"{epochs}", "table1:mlp_3x512", config=other, test=epochs / 500)
    text = formats.to_markdown(made(tmp_path)["table1"])
    assert "After 45 epochs instead of 100." in text
    row = row_of(tmp_path, "table1", "mlp_3x512")
    assert row[4:7] == ["9.00 (1)", "52.39", "-43.39"]
    assert row[-1] == "1[^table1-1]"
    names = [row.name for row in made(tmp_path)["table1"].rows if row.runs]
    assert names == ["mlp_3x512", "mlp_3x512, max_epochs=5", "mlp_3x512, max_epochs=200"]
    make_run(tmp_path / "whole", "table1:mlp_3x512")
    assert row_of(tmp_path, "table1", "mlp_3x512")[-1] == "1"


def test_runs_on_other_data_do_not_stand_beside_the_papers_numbers(tmp_path):
    for name, num_train in (("cifar10", 1000), ("digits", 0)):
        settings = rows.table_row("table1", "mlp_1x512")
        settings.data.update(name=name, num_train=num_train)
        make_run(tmp_path / f"{name}", "table1:mlp_1x512", config=settings, test=0.25)
    found = made(tmp_path)
    assert found["table1"].missing == list(paper.TABLES["table1"])
    assert (
        found["table1_cifar10_1000"].title
        == "Table 1 on CIFAR10, 1,000 training examples: accuracy in percent"
    )
    assert row_of(tmp_path, "table1_digits", "mlp_1x512")[2] == "25.00 (1)"


def test_table_2_has_top_5_and_the_best_on_the_way_in_brackets(all_tables):
    row = row_in(all_tables["table2"], "aug")
    assert row[1:6] == ["92.00 ± 0.00 (3)", "92.33", "≠ -0.33", "99.00 ± 0.00 (3)", "99.17"]
    # 0.73, 0.732 and 0.734: 73.2, deviation 0.2; the best are two points better.
    assert row[7:10] == [r"73.20 ± 0.20 (3) \[75.20\]", "72.95", "≠ +0.25"]
    assert row[10] == r"88.20 ± 0.20 (3) \[89.20\]"
    assert row_in(all_tables["table2"], "none")[1:] == [
        paper.MISSING,
        "99.53",
        *[paper.MISSING] * 2,
        "100.0",
        *[paper.MISSING] * 2,
        r"59.80 \[63.16\]",
        *[paper.MISSING] * 2,
        r"80.38 \[84.49\]",
        *[paper.MISSING] * 3,
    ]


def test_plain_table_has_epochs_to_fit_in_the_papers_order(tmp_path):
    make_run(tmp_path, "quickstart:corrupt=0.5", fit_step=None, train=0.9)
    make_run(tmp_path, "quickstart:random_labels", 0, fit_step=3900)
    make_run(tmp_path, "quickstart:random_labels", 1, fit_step=4680)
    make_run(tmp_path, "quickstart:random_labels", 2, fit_step=None)
    make_run(tmp_path, "quickstart:true_labels", fit_step=390)
    make_run(tmp_path, "quickstart:corrupt=0.25", fit_step=390)
    table = made(tmp_path)["quickstart"]
    assert [row.name for row in table.rows] == [
        "true_labels",
        "random_labels",
        "corrupt=0.5",
        "corrupt=0.25",
    ]
    assert [table.cells(row)[3] for row in table.rows[:3]] == [
        "1.0 (1)",
        "11.0 ± 1.4 (2); not fitted (1 of 3)",
        "not fitted (1 of 1)",
    ]  # sqrt(0.5 * 4) = 1.4


@pytest.mark.parametrize(
    "name", ["a|b", "`a`", "[x](http://y)", "<b>", "a\nb", "\x1b[31mred", "a\\|b", "$x$"]
)
def test_special_characters_stay_in_their_cell_in_markdown(tmp_path, name):
    file = make_run(tmp_path, "quickstart:true_labels") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"row": f"quickstart:{name}"}))
    text = formats.to_markdown(made(tmp_path)["quickstart"])
    (line,) = [line for line in text.splitlines() if "100.00 (1)" in line]
    assert len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) == 5 + 2
    assert not re.search(r"(?<!\\)(?:\\\\)*[`<\[$]|\x1b", line)


def test_csv_has_every_number_of_every_row(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", 0, test=0.5)
    make_run(tmp_path, "table1:mlp_1x512", 1, test=0.6)
    rows = list(csv.DictReader(io.StringIO(formats.to_csv(list(made(tmp_path).values())))))
    for name, published in paper.TABLES.items():
        assert list(dict.fromkeys(row["row"] for row in rows if row["table"] == name)) == list(
            published
        )
    wanted = {"table": "table1", "row": "mlp_1x512", "field": "test_accuracy"}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    assert (row["complete"], row["n"], row["seeds"], row["revisions"]) == ("2", "2", "0 1", "abc")
    assert float(row["mean"]) == pytest.approx(0.55)
    assert float(row["std"]) == pytest.approx(0.1 / 2**0.5)
    assert float(row["published"]) == 0.5051
