"""Rows, fields and the checks made before anything is loaded."""

import glob
import json
import math
import pathlib

import pytest

from rethinking import cli, config, experiments, models, rows
from rethinking.errors import InputError
from rethinking.settings import TABLE1_MODELS, add_crop, cifar10

FILES = sorted(file for file in glob.glob("configs/*.py") if "__init__" not in file)
COUNTS = {
    "quickstart": 6,
    "audit": 6,
    "table1": 19,
    "table4": 6,
    "figure1": 45,
    "expressivity": 8,
    "linear": 3,
    "table3": 10,
    "complexity": 15,
    "table2": 7,
    "figure_async": 6,
}


@pytest.mark.parametrize("file", FILES)
def test_every_row_of_every_file_builds_and_is_named_after_itself(file):
    module = config.load_file(file)
    assert (
        len(module.ROWS) == len(set(module.ROWS)) == COUNTS[file.split("/")[1].removesuffix(".py")]
    )
    for row in module.ROWS:
        built = module.get_config(row)
        experiments.check(built)
        assert built.row == f"{built.experiment}:{row}"


def test_rows_mean_what_the_contract_says():
    module = config.load_file("configs/table1.py")
    plain, full = module.get_config("inception"), module.get_config("inception+crop+wd")
    changed = {
        k: v for k, v in config.flat(full).items() if config.flat(plain)[k] != v and k != "row"
    }
    assert changed == {"augment.crop": True, "weight_decay": 5e-4}
    assert (plain.learning_rate, plain.momentum, plain.decay_per_epoch, plain.weight_decay) == (
        0.1,
        0.9,
        0.95,
        0,
    )
    assert [module.get_config(m).learning_rate for m in ("alexnet", "mlp_1x512", "mlp_3x512")] == [
        0.01
    ] * 3


@pytest.mark.parametrize(
    "of_an_image, of_training_images, of_all",
    [
        (1 / 3, 0.0159, 0.0286),  # the work of a forward pass, of that of a training step
        (1, 0.0450, 0.0813),  # reading, which takes as long as for training
    ],
)
def test_evaluation_takes_less_than_a_tenth_of_a_run_of_table_2(
    of_an_image, of_training_images, of_all
):
    """The docstring of the config has these numbers, and docs/imagenet.md that of all."""
    num_train, num_test = 1_281_167, 50_000
    for row in rows.TABLE2_ROWS:
        built = rows.table2(row)
        trained = built.max_epochs * num_train
        # Before the first epoch and after each one. The last evaluation has all images.
        number = built.max_epochs // built.eval_epochs
        of_train = number * built.eval.num_train + num_train
        of_both = of_train + (number + 1) * num_test
        whole = trained + of_an_image * of_both
        assert of_an_image * of_train / whole == pytest.approx(of_training_images, abs=1e-4)
        assert of_an_image * of_both / whole == pytest.approx(of_all, abs=1e-4) and of_all < 0.1
    for share, page in (
        (of_training_images, "configs/table2.py"),
        (of_all, "configs/table2.py"),
        (of_all, "docs/imagenet.md"),
    ):
        assert f"{100 * share:.1f}%" in pathlib.Path(page).read_text()


def test_randomized_rows_differ_from_true_labels_in_the_randomization_alone():
    figure1 = config.load_file("configs/figure1.py")
    for row in figure1.ROWS:
        true = config.flat(figure1.get_config(row.split("+")[0] + "+true_labels"))
        changed = {k for k, v in config.flat(figure1.get_config(row)).items() if true[k] != v} - {
            "row"
        }
        assert changed <= {"randomize.labels", "randomize.pixels"}
    table1 = config.load_file("configs/table1.py")
    for model in TABLE1_MODELS:
        true, random = (
            config.flat(table1.get_config(row)) for row in (model, model + "+random_labels")
        )
        assert {k for k in true if true[k] != random[k]} == {"row", "randomize.labels"}


def test_table1_and_figure1_share_their_runs():
    table1, figure1 = (config.load_file(f"configs/{name}.py") for name in ("table1", "figure1"))
    assert experiments.digest(table1.get_config("alexnet")) == experiments.digest(
        figure1.get_config("alexnet+true_labels")
    )
    random = {
        experiments.digest(figure1.get_config(f"alexnet+{name}"))
        for name in ("random_labels", "corrupt=1.0")
    }
    assert random == {experiments.digest(table1.get_config("alexnet+random_labels"))}


def test_digest_ignores_seeds_and_places_only():
    base = cifar10("alexnet")
    for field, same in {
        "seed": True,
        "randomize.seed": True,
        "data.data_dir": True,
        "checkpoint_seconds": True,
        "batch_size": False,
        "randomize.pixels": False,
        "augment.hue": False,
    }.items():
        other = cifar10("alexnet")
        other.update_from_flattened_dict(
            {field: {"data.data_dir": "x", "randomize.pixels": "random"}.get(field, 1)}
        )
        assert (experiments.digest(base) == experiments.digest(other)) is same, field


def test_the_seed_of_a_corruption_decides_something_where_there_is_one():
    for row, decides in {"alexnet": False, "alexnet+random_labels": True}.items():
        one, other = (rows.table_row("table1", row) for _ in range(2))
        other.randomize.seed = 1
        assert (experiments.scientific(one) != experiments.scientific(other)) is decides, row
    measured = experiments.defaults("complexity")
    measured.randomize.seed = 1  # of the random signs
    assert experiments.scientific(measured)["randomize.seed"] == 1


def test_a_field_added_later_leaves_old_digests_alone():
    new = cifar10("alexnet")
    old = new.to_dict()
    del old["augment"]["hue"]
    assert experiments.digest(old) == experiments.digest(new)


def test_committed_records_keep_their_digests():
    records = list((pathlib.Path(__file__).parent.parent / "results").rglob("result.json"))
    assert records
    for record in records:
        settings = json.loads((record.parent / "config.json").read_text())
        assert experiments.digest(settings) == json.loads(record.read_text())["config_digest"], (
            record
        )


def test_kinds_are_told_apart_and_each_has_its_experiment():
    assert experiments.scientific(experiments.defaults("training")) == {}
    assert experiments.scientific(experiments.defaults("expressivity")) == {"kind": "expressivity"}
    deep = experiments.defaults("expressivity")
    deep.depth = 3
    assert experiments.scientific(deep) == {"kind": "expressivity", "depth": 3}


def test_every_configured_network_exists():
    assert set(TABLE1_MODELS) <= set(models.MODELS)


def test_overrides_are_typed():
    built = cli.parse_config(
        [
            "--config=configs/table1.py:mlp_1x512",
            "--config.batch_size=64",
            "--config.randomize.labels=0.25",
            "--config.stop_when_fit=true",
        ]
    )
    assert (built.batch_size, built.randomize.labels, built.stop_when_fit) == (64, 0.25, True)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--config=configs/tabel1.py:inception"], "Did you mean 'configs/table1.py'"),
        (["--config=configs/table1.py:incepton"], "Did you mean 'inception'"),
        (["--config=configs/table1.py:inception+crp"], "Did you mean 'crop'"),
        (["--config=configs/figure1.py:alexnet+gausian"], "Did you mean 'gaussian'"),
        (["--config=configs/figure1.py:alexnt+gaussian"], "Did you mean 'alexnet+gaussian'"),
        (["--config=configs/figure1.py:alexnet+corrupt=half"], "a number in [0, 1]"),
        (["--config=configs/expressivity.py:depth=33"], "Did you mean 'depth=3"),
        (["--config=configs/table1.py:alexnet", "--config.weightdecay=1"], "weight_decay"),
        (["--config=configs/table1.py:alexnet", "--config.data.nme=x"], "name"),
        (["--config=configs/table1.py:alexnet", "--config.batch_size=many"], "batch_size"),
        (["--config=configs/table1.py:alexnet", "--config.stop_when_fit=perhaps"], "stop_when_fit"),
    ],
)
def test_bad_command_lines_are_refused_with_the_reason(arguments, reason):
    with pytest.raises(InputError) as error:
        cli.parse_config(arguments)
    assert reason in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    "field, value",
    [
        ("randomize.labels", 1.1),
        ("randomize.labels", -0.1),
        ("randomize.labels", math.nan),
        ("batch_size", 0),
        ("max_epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("randomize.pixels", "gausian"),
        ("dtype", "float16"),
        ("fit_accuracy", 1.5),
        ("seed", -1),
        ("augment.hue", 0.6),
        ("augment.crop", True),
        ("data.crop_size", -1),
    ],
)
def test_impossible_values_are_refused_by_name(field, value):
    settings = experiments.defaults("training")
    settings.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=f"config.{field}"):
        experiments.check(settings)


@pytest.mark.parametrize(
    "field, value",
    [
        ("depth", 1),
        ("randomize.labels", 1.1),
        ("seed", -1),
        ("randomize.seed", 2**31),
        ("data.num_train", -1),
    ],
)
def test_impossible_constructions_are_refused_by_name(field, value):
    settings = experiments.defaults("expressivity")
    settings.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=f"config.{field}"):
        experiments.check(settings)


def test_an_unknown_kind_is_refused():
    settings = experiments.defaults("expressivity")
    settings.kind = "expresivity"
    with pytest.raises(InputError, match="Did you mean 'expressivity'"):
        experiments.check(settings)


def test_crop_of_randomized_pixels_is_refused():
    settings = cifar10("inception")
    add_crop(settings)
    settings.randomize.pixels = "shuffled"
    with pytest.raises(InputError, match="nothing is left to crop"):
        experiments.check(settings)
