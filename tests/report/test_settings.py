"""The commands in the report, parsed by the program that would run them."""

import json
import shlex

import pytest

from rethinking import cli, experiments, rows
from rethinking.report import collect
from rethinking.report.settings import command, overrides
from rethinking.runs import json_files
from tests.report.runs import make_run


def run_in(root):
    (run,) = collect.collect([root]).runs
    return run


def parsed(run):
    """The config that a run's command describes."""
    assert shlex.split(command(run))[:3] == ["python", "-m", "rethinking.main"]
    arguments = [text for text in shlex.split(command(run)) if text.startswith("--config")]
    return cli.parse_config(arguments)


def test_a_row_of_the_configs_needs_no_overrides(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512+wd")
    run = run_in(tmp_path)
    assert command(run) == (
        "python -m rethinking.main --config=configs/table1.py:mlp_1x512+wd "
        f"--workdir={path.as_posix()}"
    )
    assert overrides(run) == {}


def test_the_command_describes_the_run_with_its_seeds_and_other_settings(tmp_path):
    settings = rows.table_row("table1", "mlp_1x512")
    settings.update(max_epochs=7, stop_when_fit=True, learning_rate=0.25)
    settings.data.num_train = 1000
    make_run(tmp_path, "table1:mlp_1x512", 3, config=settings)
    run = run_in(tmp_path)
    assert overrides(run) == {
        "max_epochs": 7,
        "stop_when_fit": True,
        "learning_rate": 0.25,
        "data.num_train": 1000,
    }
    again = parsed(run)
    assert (
        experiments.scientific(again) == experiments.scientific(settings)
        and again.seed == again.randomize.seed == 3
    )


def test_another_draw_of_the_corruption_is_in_the_command(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512+random_labels")
    settings = json.loads((path / "config.json").read_text())
    settings["randomize"]["seed"] = 5
    (path / "config.json").write_text(json.dumps(settings))
    again = parsed(run_in(tmp_path))
    assert (again.seed, again.randomize.seed) == (0, 5)


@pytest.mark.parametrize("kind", experiments.KINDS)
def test_a_row_that_is_in_no_file_begins_with_one_of_its_kind(kind, tmp_path):
    settings = experiments.defaults(kind)
    settings.data.num_train = 321
    make_run(tmp_path, "mine:row", 2, config=settings)
    again = parsed(run_in(tmp_path))
    assert experiments.scientific(again) == experiments.scientific(settings)
    assert (again.experiment, again.row, again.seed) == ("mine", "mine:row", 2)


@pytest.mark.parametrize(
    "row, options",
    [
        ("quickstart:true_labels", {"width": 64}),
        ("mine:row", {"width": 64, "name": "a b", "sizes": {"first": 1, "rest": [2, 3]}}),
        ("table2:none", {}),
        ("table2:none", {"dropout": 0.5}),
    ],
)
def test_options_of_the_network_are_in_the_command(row, options, tmp_path):
    experiment, _, name = row.partition(":")
    settings = experiments.defaults("training")
    if experiment in rows.EXPERIMENTS:
        settings = rows.EXPERIMENTS[experiment].get_config(name)
    settings.model.name, settings.model.options = "my_network:SmallNet", options
    make_run(tmp_path, row, config=settings)
    again = parsed(run_in(tmp_path))
    assert again.model.to_dict() == settings.model.to_dict()
    assert experiments.scientific(again) == experiments.scientific(settings)


def test_a_field_younger_than_the_run_has_its_default_in_the_command(tmp_path):
    """The row sets it to something else."""
    path = make_run(tmp_path, "table2:none", config=rows.EXPERIMENTS["table2"].get_config("none"))
    settings = json.loads((path / "config.json").read_text())
    assert settings.pop("label_smoothing") == 0.1
    (path / "config.json").write_text(json.dumps(settings))
    result = json.loads((path / "result.json").read_text())
    result["config_digest"] = experiments.digest(settings)
    (path / "result.json").write_text(json.dumps(json_files.seal(result)))
    run = run_in(tmp_path)
    assert parsed(run).label_smoothing == 0.0
    assert overrides(run) == {"label_smoothing": 0.0}


def test_settings_that_a_run_lacks_are_seen(tmp_path):
    """--config.model.options={} takes the auxiliary head away."""
    config = rows.EXPERIMENTS["table2"].get_config("none")
    config.model.options = {"bn_momentum": config.model.options["bn_momentum"]}
    make_run(tmp_path, "table2:none", config=config)
    missing = [f"model.options.{name}" for name in ("aux_head", "dropout", "width")]
    assert overrides(run_in(tmp_path)) == dict.fromkeys(missing)


def test_every_command_of_a_page_makes_its_run(everything_content):
    one_seed = {run.path.parent: run for run in everything_content.collection.runs}
    assert len(one_seed) > 50
    for run in one_seed.values():
        again, workdir = cli.check_forwarded(shlex.split(command(run))[3:])
        assert workdir == str(run.path)
        assert experiments.scientific(again) == experiments.scientific(run.settings), command(run)
        assert f"{again.row} {again.seed}" == f"{run.row} {run.seed}"


def test_names_cannot_leave_their_argument_nor_name_a_file(tmp_path):
    settings = experiments.defaults("training")
    settings.data.name = "$(reboot)"
    path = make_run(tmp_path / "a b", "mine:x; reboot", config=settings)
    file = path / "config.json"
    file.write_text(file.read_text().replace("mine:x", "../tests/conftest:x"))
    arguments = shlex.split(command(run_in(tmp_path)))
    assert arguments[3:5] == ["--config=configs/quickstart.py:true_labels", f"--workdir={path}"]
    assert "--config.row=../tests/conftest:x; reboot" in arguments
    assert "--config.data.name=$(reboot)" in arguments
