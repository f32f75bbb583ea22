"""Command lines, config files of the user's own, and what is said about their mistakes."""

import io
import pathlib
import sys

import pytest
from absl import flags

from rethinking import cli, failures, paths
from rethinking.cli import flag_types
from rethinking.errors import InputError

DIGITS = "--config=configs/quickstart.py:true_labels"


def parsed(*overrides, row=DIGITS):
    return cli.parse_config([row, *overrides])


@pytest.fixture
def config_file(tmp_path):
    """A function from the lines of get_config(row) to the --config argument of that file."""

    def write(*lines, head="from rethinking import experiments\n"):
        body = "".join(f"    {line}\n" for line in lines)
        text = f"{head}ROWS = ('a',)\n\n\ndef get_config(row='a'):\n{body}"
        (tmp_path / "mine.py").write_text(text)
        return f"--config={tmp_path / 'mine.py'}:a"

    return write


@pytest.mark.parametrize(
    "override, reason",
    [
        ("--config.max_epochs=5.0", "must be a whole number, at least 1 and below 2**31, as in"),
        ("--config.max_epochs=None", "as in --config.max_epochs=100"),
        ("--config.learning_rate=[1]", "must be a number, at least 1e-30 and at most 1e+30, as in"),
        ("--config.stop_when_fit=perhaps", "must be True or False"),
        ("--config.model.options={'a':", 'must be a dictionary, as in --config.model.options="{'),
        ("--config.kind=kernels", "the row decides the kind, which is 'training'"),
        ("--config.augment={'flip': True}", "one by one, as in --config.augment.flip=True"),
        ("--config.augment={'flp': True}", "one by one"),
        ("--config.augment=5", "one by one, as in --config.augment.brightness=0.0"),
        ("--config.seed=1" + "0" * 5000, "must be a whole number"),
    ],
)
def test_an_override_of_the_wrong_form_is_refused_with_the_right_one(override, reason):
    with pytest.raises(InputError) as refusal:
        parsed(override)
    assert reason in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_the_options_of_a_network_can_be_set_as_a_whole():
    config = parsed("--config.model.options={'width': 64, 'rates': (0.1, 0.2)}")
    assert config.model.options.to_dict() == {"width": 64, "rates": (0.1, 0.2)}
    empty = parsed("--config.model.options={}", row="--config=configs/table2.py:none")
    assert empty.model.options.to_dict() == {}


def test_an_override_that_a_later_one_undoes_is_refused():
    row = "--config=configs/table2.py:none"
    with pytest.raises(InputError, match="has no effect before"):
        parsed("--config.model.options.width=0.5", "--config.model.options={}", row=row)


@pytest.mark.parametrize(
    "line, head, place, reason",
    [
        ("experiments.defaults('training').batch_size = '128'", None, 6, "str"),
        ("return experiments.default('training')", None, 6, "AttributeError"),
        ("return 1 / 0", None, 6, "ZeroDivisionError"),
        ("return", "import no_such_package\n", 1, "no_such_package"),
        ("return", "x = = 1\n", 1, "SyntaxError"),
        ("return", "x = {}['a']\n", 1, "KeyError"),
    ],
)
def test_a_mistake_in_a_config_file_is_named_by_its_line(line, head, place, reason, config_file):
    row = config_file(line) if head is None else config_file(line, head=head)
    with pytest.raises(InputError) as refusal:
        parsed(row=row)
    message = str(refusal.value)
    assert reason in message
    assert f"mine.py, line {place}: " in message
    assert "Traceback" not in message


def test_a_mistake_of_this_package_keeps_its_traceback(config_file, monkeypatch):
    ours = {}
    exec(compile("def broken(fields): return {}['ours']", paths.__file__, "exec"), ours)
    monkeypatch.setattr("rethinking.config.defaults", ours["broken"])
    with pytest.raises(KeyError) as raised:
        parsed(row=config_file("return experiments.defaults('training')"))
    assert failures.place(raised.value) is None
    assert "Traceback" in failures.describe(raised.value)


def test_a_get_config_that_returns_something_else_is_refused(config_file):
    with pytest.raises(InputError, match="returns a dict"):
        parsed(row=config_file("return {'seed': 1}"))


def test_data_classes_and_frozen_configs_work_in_a_config_file(config_file):
    head = (
        "from __future__ import annotations\nimport dataclasses\nimport ml_collections\n"
        "from rethinking import experiments\n"
        "@dataclasses.dataclass\nclass Settings:\n    epochs: int = 3\n"
    )
    row = config_file(
        "config = experiments.defaults('training')",
        "config.max_epochs = Settings().epochs",
        "return ml_collections.FrozenConfigDict(config)",
        head=head,
    )
    assert (
        parsed("--config.seed=5", row=row).to_dict().items() >= {"max_epochs": 3, "seed": 5}.items()
    )


def test_the_traceback_of_a_mistake_goes_into_the_run_directory(config_file, tmp_path):
    try:
        parsed(row=config_file("return 1 / 0"))
    except InputError as error:
        failures.record(error, tmp_path / "run")
        failures.record(error, tmp_path / "run")
        failures.record(error, tmp_path)  # it holds mine.py
    text = (tmp_path / "run" / "errors.txt").read_text()
    assert text.count("ZeroDivisionError: division by zero\n") == 2
    assert "return 1 / 0" in text
    assert not (tmp_path / "errors.txt").exists()


def test_a_refusal_leaves_no_log(tmp_path):
    failures.record(InputError("choose another"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_home_folder_is_expanded_in_every_path(monkeypatch, tmp_path):
    from rethinking.data.sources import tfds

    monkeypatch.setenv("HOME", str(tmp_path))
    values = flags.FlagValues()
    cli.define_run_flags(values)
    flag_types.define_paths("runs", None, "", flag_values=values)
    values(["", "--config=~/a.py:row", "--workdir=~/run", "--runs=~/a,b"])
    assert values.config == f"{tmp_path}/a.py:row"
    assert values.workdir == f"{tmp_path}/run"
    assert values.runs == [f"{tmp_path}/a", "b"]
    with pytest.raises(flags.Error, match="a path is needed"):
        values(["", "--runs=a,"])
    assert tfds.resolve_data_dir("~/sets") == tmp_path / "sets"
    (tmp_path / "q.py").write_text(pathlib.Path("configs/quickstart.py").read_text())
    assert parsed(row="--config=~/q.py:gaussian").row == "quickstart:gaussian"


def test_without_a_home_folder_the_path_is_refused_and_the_cache_moves(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without $HOME and a user
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(InputError, match="home folder ~ is not known"):
        paths.expand("~/x")
    assert not str(paths.cache()).startswith("~")


@pytest.mark.parametrize("value", ["nan", "-1", "-inf", "soon"])
def test_a_time_that_is_no_number_of_seconds_is_refused(value):
    with pytest.raises(InputError, match="time_budget"):
        cli.check_forwarded([DIGITS, "--workdir=x", f"--time_budget={value}"])


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([DIGITS], "needed: -- --config=FILE:ROW --workdir=DIR"),
        ([DIGITS, "--workdir=x", "--wrkdir=y"], "Unknown command line flag 'wrkdir'"),
        ([DIGITS, "--workdir=x", "more"], "unknown arguments: more"),
        ([DIGITS, "--workdir=x", "--rendezvous_timeout=1e9"], "at most 1,000,000"),
        ([DIGITS, "--workdir=x", "--num_processes=2"], "the launcher gives this flag"),
        ([DIGITS, "--workdir=x", "--config.seed=-1"], "config.seed=-1"),
        ([DIGITS, "--workdir=x", "--config.max_epochs", "5"], "Write --config.max_epochs=5"),
        ([DIGITS, "--workdir="], "a path is needed"),
    ],
)
def test_what_main_refuses_is_not_forwarded(arguments, reason):
    with pytest.raises(InputError) as refusal:
        cli.check_forwarded(arguments)
    assert reason in str(refusal.value)


def test_forwarded_arguments_give_their_config_and_workdir():
    config, workdir = cli.check_forwarded(
        ["--workdir", "runs/a", DIGITS, "--stderrthreshold=error", "--config.seed=3"]
    )
    assert (config.seed, workdir) == (3, "runs/a")


def test_output_that_the_terminal_cannot_show_is_escaped(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    cli.parse_flags(["main"], ())
    print("runs/é ± \udcff", flush=True)
    assert shown.getvalue() == b"runs/\\xe9 \\xb1 \\udcff\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: 9 GB")])
def test_too_little_memory_is_said_with_remedies(error):
    assert failures.is_correctable(error)
    assert failures.describe(error).startswith("too little memory. ")
    assert not failures.is_correctable(RuntimeError("x"))
