"""The page on one's own data: each of its commands runs on the sets that it describes."""

import pathlib
import re
import shlex

import datasets
import pytest

from rethinking import cli, experiments
from rethinking.data import prepare, stream
from rethinking.experiments import data_set
from tests.data import own_sets

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "own_data.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def write_sets(folder):
    """Writes the sets that the page describes to a folder, which is the working directory."""
    file, function, table = blocks("python")
    exec(file, {})
    exec(table, {})
    (folder / "my_data.py").write_text(function)
    held = own_sets.digits(100, 40)
    own_sets.write_folder(folder / "photos", held)
    tables = {}
    for key in ("train", "test"):
        columns = {"x": held[f"x_{key}"].tolist(), "label": held[f"y_{key}"].tolist()}
        tables[key] = datasets.Dataset.from_dict(columns)
    own_sets.write_saved(folder / "my_hub_set", tables)


@pytest.mark.parametrize("trains", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_commands_of_the_page_on_data_run(trains, tmp_path, monkeypatch):
    """Each finds the set that the page describes, and trains on it for an epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_sets(tmp_path)
    pages = "".join(blocks("sh")).replace("\\\n", " ")
    for number, line in enumerate(pages.splitlines()):
        module, *arguments = shlex.split(line)[2:]
        if "fashion_mnist" in line:
            continue  # it would be downloaded
        if module == "rethinking.data.prepare":
            assert prepare.prepare(*arguments) in " ".join(PAGE.split())
            continue
        given = [each for each in arguments if each.startswith("--config")]
        short = ["--config.max_epochs=1", "--config.num_devices=1", "--config.batch_size=20"]
        config = cli.parse_config([*given, *short])
        experiments.check(config)
        if trains:
            result = experiments.run(config, tmp_path / "runs" / str(number))
            assert result["status"] == "complete"
        elif config.data.stream:
            stream.check(config.data.name)
        else:
            assert data_set.describe(config).num_train in (100, 150, 320, 400)
