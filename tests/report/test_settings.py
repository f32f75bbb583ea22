"""The commands in the report, parsed by the program that would run them."""

import json
import shlex

from rethinking import cli, experiments, rows
from rethinking.report import collect
from rethinking.report.settings import command, overrides
from rethinking.settings import cifar10
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


def test_a_row_that_is_in_no_file_has_all_its_settings_listed(tmp_path):
    settings = cifar10("alexnet")
    make_run(tmp_path, "mine:row", config=settings)
    text = command(run_in(tmp_path))
    assert "--config=configs/mine.py:row" in text and "--config.model.name=alexnet" in text
    assert "--config.batch_size" not in text  # a default


def test_names_cannot_leave_their_argument_nor_name_a_file(tmp_path):
    settings = experiments.defaults("training")
    settings.data.name = "$(reboot)"
    path = make_run(tmp_path / "a b", "mine:x; reboot", config=settings)
    arguments = shlex.split(command(run_in(tmp_path)))
    assert arguments[3:] == [
        "--config=configs/mine.py:x; reboot",
        f"--workdir={path}",
        "--config.data.name=$(reboot)",
    ]
    file = path / "config.json"
    file.write_text(file.read_text().replace("mine:x", "../tests/conftest:x"))
    assert "--config=configs/../tests/conftest.py" in command(run_in(tmp_path))  # shown, not loaded
