"""Run directories in every state of repair, made by hand."""

import json
import math
import os
import re
import subprocess
import sys

import pytest

from rethinking import experiments, rows
from rethinking.errors import InputError
from rethinking.report import collect, tables
from rethinking.report.columns import Statistic, statistic
from rethinking.report.run import number
from rethinking.report.settings import differing, discrepancies
from tests.report.runs import make_run, write


def test_statistic_against_hand_computed_values():
    three = statistic([0.5, None, 0.7, 0.9])
    assert (three.mean, three.n) == (pytest.approx(0.7), 3)
    assert three.std == pytest.approx(0.2)  # sqrt((0.04 + 0 + 0.04) / 2)
    assert statistic([0.25]) == Statistic(0.25, None, 1)
    assert statistic([None]) is None


def test_a_run_is_read_whole(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512", seed=2, train=0.99, fit_step=3900)
    (run,) = collect.collect([tmp_path]).runs
    assert (run.path, run.row, run.seed, run.status) == (path, "table1:mlp_1x512", 2, "complete")
    assert run.value("train_accuracy") == 0.99
    assert run.value("fit_epoch") == 10  # 3900 of 39000 steps in 100 epochs
    assert run.settings["data.name"] == "cifar10"
    assert [line["train_loss"] for line in run.metrics] == [2.3, 0.5, 0.0]


def test_a_torn_last_line_costs_that_line_only(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512")
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 1170, "train_lo')
    (run,) = collect.collect([tmp_path]).runs
    assert [line["step"] for line in run.metrics] == [0, 390, 780]


def test_what_ended_without_metrics_is_broken_what_has_just_begun_is_not(tmp_path):
    (make_run(tmp_path, "table1:mlp_1x512") / "metrics.jsonl").write_text("")
    (make_run(tmp_path, "table1:mlp_1x512+wd", status="unfinished") / "metrics.jsonl").write_text(
        ""
    )
    write(
        tmp_path / "solved", experiments.defaults("kernels"), []
    )  # an experiment that is not trained has none
    collection = collect.collect([tmp_path])
    assert [(run.status, run.metrics) for run in collection.runs] == [
        ("complete", []),
        ("unfinished", []),
    ]
    (reason,) = collection.broken
    assert (
        "table1/mlp_1x512/seed_0: the run has ended, but metrics.jsonl is empty or missing"
        in reason
    )


def test_a_folder_with_results_but_no_config_is_broken(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512")
    (path / "config.json").unlink()
    assert collect.collect([tmp_path]).broken == [f"{path}: no config.json beside its other files"]


@pytest.mark.parametrize(("file", "content", "reason"), [
    ("result.json", '{"status": "comp', "result.json is not JSON"),
    ("result.json", '{"status": "odd"}', "status 'odd'"),
    ("result.json", "[]", "no JSON object"),
    ("config.json", '{"row": "table1', "config.json is not JSON"),
    ("config.json", b"\xff\xfe", "config.json is not JSON"),
    ("config.json", '{"architectures": []}', "not that of a run"),
    ("config.json", '{"row": "table3:mnist", "seed": 0, "kind": "k"}', "unknown kind: 'k'"),
])  # fmt: skip
def test_a_broken_run_is_named_and_the_rest_is_read(tmp_path, caplog, file, content, reason):
    broken = make_run(tmp_path, "table1:mlp_1x512")
    make_run(tmp_path, "table1:mlp_3x512")
    (broken / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    collection = collect.collect([tmp_path])
    assert [run.row for run in collection.runs] == ["table1:mlp_3x512"]
    assert (
        len(collection.broken) == 1
        and str(broken) in collection.broken[0]
        and reason in collection.broken[0]
    )
    assert str(broken) in caplog.text


def test_equal_runs_count_once_and_the_one_that_got_furthest_is_kept(tmp_path):
    make_run(tmp_path / "a", "table1:mlp_1x512", status="unfinished")
    kept = make_run(tmp_path / "b", "table1:mlp_1x512")
    make_run(tmp_path / "b", "table1:mlp_1x512", seed=1)
    figure = rows.table_row("table1", "mlp_1x512")
    make_run(tmp_path / "c", "figure1:mlp_1x512+true_labels", config=figure)
    collection = collect.collect(
        [tmp_path, tmp_path / "b"]
    )  # overlapping folders do not count twice either
    assert sorted(run.seed for run in collection.runs) == [0, 1]
    assert len(collection.repeated) == 2 and all(
        f"repeats {kept}" in line for line in collection.repeated
    )
    for row in (
        "table1:mlp_1x512",
        "figure1:mlp_1x512+true_labels",
    ):  # the one stands for the other
        assert [run.seed for run in collection.of_row(row)] == [0, 1]


def test_another_draw_of_the_corruption_is_another_run(tmp_path):
    for row, runs in (("table1:mlp_1x512+random_labels", 2), ("table1:mlp_1x512", 1)):
        for folder, draw in (("a", 0), ("b", 1)):
            path = make_run(tmp_path / row / folder, row)
            config = json.loads((path / "config.json").read_text())
            config["randomize"]["seed"] = draw
            (path / "config.json").write_text(json.dumps(config))
        assert len(collect.collect([tmp_path / row]).runs) == runs


def test_discrepancies_name_revisions_devices_and_the_settings_that_differ(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", seed=0, num_devices=1)
    make_run(tmp_path, "table1:mlp_1x512", seed=1, num_devices=1)
    assert discrepancies(collect.collect([tmp_path]).runs) == []
    other = rows.table_row("table1", "mlp_1x512")
    other.max_epochs = 7
    make_run(tmp_path, "table1:mlp_1x512", seed=2, revision="def", config=other, num_devices=8)
    runs = collect.collect([tmp_path]).of_row("table1:mlp_1x512")
    assert discrepancies(runs) == [
        "Made with different revisions of the code: abc (seeds 0, 1), def (seed 2).",
        "Made on different numbers of devices, on which batch norm and dropout depend: "
        "1 (seeds 0, 1), 8 (seed 2).",
        "Made with different configs: max_epochs 100 (seeds 0, 1), 7 (seed 2).",
    ]


GPU = {"device": "NVIDIA H100", "float32_products": "tf32"}
TPU = {"device": "TPU v5e", "float32_products": "bfloat16"}
CPU = {"device": "cpu: Xeon, 2 cores"}  # a record from before the precision was in it


@pytest.mark.parametrize(
    "result, products",
    [
        (GPU | {"matmul_precision": "default"}, "tf32"),
        (GPU | {"matmul_precision": "high"}, "tf32"),
        (GPU | {"matmul_precision": "highest"}, "float32"),
        (TPU | {"matmul_precision": "default"}, "bfloat16"),
        (TPU | {"matmul_precision": "tensorfloat32"}, "tensorfloat32"),
        (TPU | {"matmul_precision": "float32"}, "float32"),
        (CPU, "float32"),
        (CPU | {"float32_products": "float32", "matmul_precision": "high"}, "float32"),
        (
            CPU | {"float32_products": "float32", "matmul_precision": "BF16_BF16_F32"},
            "bf16_bf16_f32",
        ),
        ({"device": "NVIDIA H100"}, ""),
    ],
)
def test_the_precision_in_force_follows_from_the_setting_and_the_platform(
    result, products, tmp_path
):
    make_run(tmp_path, "table1:mlp_1x512", **result)
    assert collect.collect([tmp_path]).runs[0].products == products


def test_a_mean_over_different_precisions_is_flagged(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", seed=0, **CPU)
    make_run(tmp_path, "table1:mlp_1x512", seed=1, **GPU, matmul_precision="highest")
    make_run(tmp_path, "table1:mlp_1x512", seed=2, device="an unknown device")
    runs = collect.collect([tmp_path]).of_row("table1:mlp_1x512")
    assert discrepancies(runs) == []
    make_run(tmp_path, "table1:mlp_1x512", seed=3, **GPU)
    sentence = (
        "Made with different precisions of products of float32 numbers: float32 (seeds 0, 1), "
        "tf32 (seed 3)."
    )
    found = collect.collect([tmp_path])
    assert discrepancies(found.of_row("table1:mlp_1x512")) == [sentence]
    (table,) = [table for table in tables.make(found) if table.name == "table1"]
    assert sentence in table.notes


def test_a_field_younger_than_a_run_has_its_default_there(tmp_path):
    make_run(tmp_path, "table1:mlp_1x512", seed=0)
    path = make_run(tmp_path, "table1:mlp_1x512", seed=1)
    config = json.loads((path / "config.json").read_text())
    assert config.pop("stop_when_fit") is False
    (path / "config.json").write_text(json.dumps(config))
    assert differing(collect.collect([tmp_path]).runs) == {}


def test_state_changes_with_every_file_of_a_run_and_with_nothing_else(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512", status="unfinished")
    states = [collect.state([tmp_path])]
    (tmp_path / "index.html").write_text("a report in the same folder")
    assert collect.state([tmp_path]) == states[0]
    with open(path / "metrics.jsonl", "a") as file:
        file.write("{}\n")
    states.append(collect.state([tmp_path]))
    (path / "result.json").write_text("{}")
    states.append(collect.state([tmp_path]))
    make_run(tmp_path, "table1:mlp_1x512", seed=1)
    states.append(collect.state([tmp_path]))
    assert len({tuple(sorted(state.items())) for state in states}) == 4


def test_slugs_are_plain_and_stay_different():
    assert collect.slug("table1") == "table1"
    slugs = [collect.slug(name) for name in ("a/b", "a b", "../a", "a" * 300, "a" * 301)]
    assert len(set(slugs)) == 5 and all(re.fullmatch(r"[\w.-]{1,90}", slug) for slug in slugs)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        collect.collect([tmp_path / "nowhere"])
    assert collect.collect([tmp_path]).runs == []


def test_numbers_that_are_none(tmp_path):
    assert [number(value) for value in (True, "1", None, math.nan, math.inf, 2)] == [None] * 5 + [
        2.0
    ]
    make_run(tmp_path, "table1:mlp_1x512", fit_step=None)
    assert collect.collect([tmp_path]).runs[0].value("fit_epoch") is None


def test_reports_need_neither_jax_nor_matplotlib():
    libraries = "{'jax', 'flax', 'tensorflow', 'matplotlib'}"
    program = f"import sys, rethinking.report; sys.exit(bool({libraries} & sys.modules.keys()))"
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
