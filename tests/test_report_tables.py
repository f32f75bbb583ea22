"""Golden tables from made-up run directories; means and deviations computed by hand."""

import csv
import io
import json
import re

import pytest

import configs.table1
import configs.table4
from rethinking import config
from rethinking.report import collect, paper, tables
from tests.test_report_collect import make_run


def row_of(root, table, name):
    """The cells of one row of a rendered Markdown table."""
    made = {table.name: table for table in tables.make(collect.collect([root]))}
    for line in tables.to_markdown(made[table]).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0] == name:
            return cells
    raise AssertionError(f"no row {name}")


def test_published_rows_are_those_of_the_configs():
    assert tuple(paper.TABLE1) == configs.table1.ROWS
    assert tuple(paper.TABLE4) == configs.table4.ROWS


def test_mean_and_deviation_stand_beside_the_published_numbers(tmp_path):
    for seed, (train, test) in enumerate([(0.99, 0.51), (1.0, 0.53), (0.98, 0.55)]):
        make_run(tmp_path, "table1:mlp_1x512", seed, train=train, test=test)
    make_run(tmp_path, "table1:mlp_1x512+wd", train=0.998, test=0.5039)
    assert row_of(tmp_path, "table1", "mlp_1x512") == [
        "mlp_1x512", "99.00 ± 1.00 (3)", "100.00", "53.00 ± 2.00 (3)", "50.51", "3"]
    assert row_of(tmp_path, "table1", "mlp_1x512+wd") == [
        "mlp_1x512+wd", "99.80 (1)", "99.80", "50.39 (1)", "50.39", "1"]


def test_missing_diverged_and_unfinished_rows_are_shown_as_such(tmp_path):
    for seed, status in enumerate(["complete", "complete", "diverged"]):
        make_run(tmp_path, "table1:alexnet", seed, status=status, train=1.0, test=0.75)
    make_run(tmp_path, "table1:alexnet+wd", status="diverged")
    make_run(tmp_path, "table1:mlp_3x512", 0, test=0.5)
    make_run(tmp_path, "table1:mlp_3x512", 1, status="unfinished")
    make_run(tmp_path, "table1:mlp_1x512", status="unfinished")
    none = paper.MISSING
    assert row_of(tmp_path, "table1", "alexnet")[1::2] == [
        "100.00 ± 0.00 (2)", "75.00 ± 0.00 (2)", "3; diverged (1 of 3)"]
    assert row_of(tmp_path, "table1", "alexnet+wd")[1::2] == ["diverged (1 of 1)"] * 2 + ["1; diverged (1 of 1)"]
    assert row_of(tmp_path, "table1", "mlp_3x512")[1::2] == ["100.00 (1)", "50.00 (1)", "1 of 2 finished"]
    assert row_of(tmp_path, "table1", "mlp_1x512")[1::2] == ["unfinished", "unfinished", "0 of 1 finished"]
    assert row_of(tmp_path, "table1", "inception+crop") == ["inception+crop", none, "100.00", none, "89.31", none]


def test_no_runs_give_all_tables_with_every_row_missing(tmp_path):
    table1, table3, table4 = tables.make(collect.collect([tmp_path]))
    assert (table1.missing, table4.missing) == (list(paper.TABLE1), list(paper.TABLE4))
    assert table3.missing == list(paper.TABLE3)
    assert row_of(tmp_path, "table4", "alexnet+wd+random_labels")[2] == "fails to converge †"
    assert row_of(tmp_path, "table4", "mlp_1x512+wd+random_labels")[2:5:2] == ["99.21 †", paper.MISSING]
    assert row_of(tmp_path, "table1", "mlp_3x512+random_labels")[2:5:2] == ["100.00", "10.48 †"]


def test_a_row_is_found_under_another_name_by_its_config(tmp_path):
    make_run(tmp_path, "figure1:mlp_1x512+true_labels", config=config.table_row("table1", "mlp_1x512"), test=0.5)
    assert row_of(tmp_path, "table1", "mlp_1x512")[3] == "50.00 (1)"
    assert row_of(tmp_path, "figure1", "mlp_1x512+true_labels")[2] == "50.00 (1)"


def test_mixed_revisions_and_configs_get_footnotes(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", 0, revision="old")
    make_run(tmp_path, "table1:mlp_1x512", 1, revision="new")
    other = config.table_row("table1", "mlp_3x512")
    other.batch_size = 64
    make_run(tmp_path, "table1:mlp_3x512", 0)
    make_run(tmp_path, "table1:mlp_3x512", 1, config=other)
    make_run(tmp_path, "table1:inception", 0)
    assert row_of(tmp_path, "table1", "mlp_3x512")[-1] == "2[^table1-1]"
    assert row_of(tmp_path, "table1", "mlp_1x512")[-1] == "2[^table1-2]"
    assert row_of(tmp_path, "table1", "inception")[-1] == "1"
    text = tables.to_markdown(tables.make(collect.collect([tmp_path]))[0])
    assert "[^table1-1]: Made with different configs: batch_size 128 (seed 0), 64 (seed 1)." in text
    assert "[^table1-2]: Made with different revisions of the code: old (seed 0), new (seed 1)." in text


def test_plain_table_has_epochs_to_fit_in_the_papers_order(tmp_path):
    make_run(tmp_path, "quickstart:corrupt=0.5", fit_step=None, train=0.9)
    make_run(tmp_path, "quickstart:random_labels", 0, fit_step=3900)
    make_run(tmp_path, "quickstart:random_labels", 1, fit_step=4680)
    make_run(tmp_path, "quickstart:random_labels", 2, fit_step=None)
    make_run(tmp_path, "quickstart:true_labels", fit_step=390)
    table = tables.make(collect.collect([tmp_path]))[-1]
    assert [row.name for row in table.rows] == ["true_labels", "random_labels", "corrupt=0.5"]
    assert [row.cells[3] for row in table.rows] == [
        "1.0 (1)", "11.0 ± 1.4 (2); not fitted (1 of 3)", "not fitted (1 of 1)"]  # sqrt(0.5 * 4) = 1.4


@pytest.mark.parametrize("name", ["a|b", "`a`", "[x](http://y)", "<b>", "a\nb", "\x1b[31mred", "a\\|b", "$x$"])
def test_special_characters_stay_in_their_cell(tmp_path, name):
    file = make_run(tmp_path, "quickstart:true_labels") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"row": f"quickstart:{name}"}))
    text = tables.to_markdown(tables.make(collect.collect([tmp_path]))[-1])
    (line,) = [line for line in text.splitlines() if "100.00 (1)" in line]
    assert len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) == 5 + 2
    assert not re.search(r"(?<!\\)(?:\\\\)*[`<\[$]|\x1b", line)


def test_csv_has_every_row_with_its_numbers(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", 0, test=0.5)
    make_run(tmp_path, "table1:mlp_1x512", 1, test=0.6)
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(tables.make(collect.collect([tmp_path]))))))
    assert len(rows) == len(paper.TABLE1) + len(paper.TABLE3) + len(paper.TABLE4)
    (row,) = [row for row in rows if row["row"] == "mlp_1x512"]
    assert (row["complete"], row["test_accuracy_n"], row["seeds"], row["revisions"]) == ("2", "2", "0 1", "abc")
    assert float(row["test_accuracy_mean"]) == pytest.approx(0.55)
    assert float(row["test_accuracy_std"]) == pytest.approx(0.1 / 2**0.5)
    assert float(row["published_test_accuracy"]) == 0.5051


def test_table_3_has_errors_norms_and_times_beside_the_published(tmp_path):
    settings = config.named(config.interpolation(), "table3", "mnist")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(settings.to_json())
    result = {"status": "complete", "test_error": 0.0122, "train_error": 0.0, "norm": 221.3, "ridge": 0.0,
              "residual": 3e-12, "num_examples": 60000, "seconds": 300.0}
    (folder / "result.json").write_text(json.dumps(result))
    assert row_of(tmp_path, "table3", "mnist") == ["mnist", "1.22 (1)", "1.20", "0.00 (1)", "221.3",
                                                   "approximately 220", "0e+00", "3e-12", "60,000", "300", "1"]
    assert row_of(tmp_path, "table3", "cifar10+random_conv+ridge")[1:3] == [paper.MISSING, "15.00"]


def test_expressivity_has_a_table(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(config.named(config.expressivity(), "expressivity", "cifar10").to_json())
    result = {"status": "complete", "train_error": 0.0, "num_weights": 103072, "depth": 2, "width": 50000}
    (folder / "result.json").write_text(json.dumps(result))
    row = row_of(tmp_path, "expressivity", "cifar10")
    assert row[2:6] == ["103,072", "2", "50,000", "0.00 (1)"]


def test_complexity_has_a_table(tmp_path):
    folder = tmp_path / "complexity" / "rademacher+alexnet" / "seed_0"
    folder.mkdir(parents=True)
    settings = config.named(config.complexity(), "complexity", "rademacher+alexnet")
    (folder / "config.json").write_text(settings.to_json())
    result = {"status": "complete", "rademacher": 1.0, "draws": 5, "num_fitted": 5, "seconds": 3.0}
    (folder / "result.json").write_text(json.dumps(result))
    row = row_of(tmp_path, "complexity", "rademacher+alexnet")
    assert (row[1], row[6], row[7], row[9]) == ("1.000", "5", "5", paper.MISSING)
