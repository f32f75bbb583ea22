"""The versions of the user's own code: found in the source, recorded, and kept apart."""

import importlib.abc
import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest

from launch import jobs
from rethinking import experiments, models, own_code, runs
from rethinking.errors import InputError
from rethinking.experiments import training
from tests.data.own_sets import write_folder, write_saved
from tests.experiments.trained import quickstart
from tests.report.cells import made
from tests.report.runs import make_run

NETWORK = """
import flax.linen as nn

from {helper} import WIDTH


class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.Dense(WIDTH)(x.reshape(len(x), -1)))
"""


def write(folder, **files):
    """Writes FILE.py, or PACKAGE/FILE.py for the name PACKAGE__FILE."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/', 1)}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that modules are imported from; what was imported is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield tmp_path / "code"
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_the_digest_covers_the_modules_beside_it_that_it_imports(folder):
    write(
        folder,
        own_net="import jax, own_a\nfrom own_pkg import own_sub\n",
        own_a="def late():\n    from own_b import x\n",
        own_b="x = 1\n",
        own_other="y = 1\n",
        own_pkg____init__="",
        own_pkg__own_sub="from . import own_deep\nfrom .own_deep import z\n",
        own_pkg__own_deep="z = 1\n",
        own_pkg__own_unused="",
    )
    first = own_code.digest("own_net:Net")
    assert len(first) == 12
    for name, covered in {
        "own_net": True,
        "own_a": True,
        "own_b": True,
        "own_pkg/__init__": True,
        "own_pkg/own_sub": True,
        "own_pkg/own_deep": True,
        "own_other": False,
        "own_pkg/own_unused": False,
    }.items():
        file = folder / f"{name}.py"
        text = file.read_text()
        file.write_text(text + "changed = True\n")
        assert (own_code.digest("own_net:Net") != first) is covered, name
        file.write_text(text)
    assert own_code.digest("own_net:Net") == first
    assert not [name for name in sys.modules if name.startswith("own_")]  # nothing is imported


def test_the_digest_depends_on_the_code_and_not_on_its_place(folder, tmp_path, monkeypatch):
    write(folder, own_net="import own_a\n", own_a="")
    first = own_code.digest("own_net:Net")
    folder.rename(tmp_path / "moved")
    assert own_code.digest("own_net:Net") == ""
    monkeypatch.syspath_prepend(tmp_path / "moved")
    assert own_code.digest("own_net:Net") == first


def test_installed_modules_are_left_out(folder, monkeypatch):
    installed = folder / "site-packages"
    monkeypatch.syspath_prepend(installed)
    write(folder, own_net="import own_installed\nimport rethinking.models\n")
    write(installed, own_installed="", own_family____init__="", own_family__own_c="import own_d")
    write(installed, own_d="")
    before = own_code.digest("own_net:Net"), own_code.digest("own_family.own_c:Net")
    write(installed, own_installed="x = 1\n", own_d="x = 1\n")
    assert (own_code.digest("own_net:Net"), own_code.digest("own_family.own_c:Net")) == before
    write(installed, own_family____init__="x = 1\n")
    assert own_code.digest("own_family.own_c:Net") != before[1]


def test_a_network_in_the_working_directory_is_found_however_the_program_was_started(
    folder, tmp_path, monkeypatch
):
    write(tmp_path / "here", own_here=NETWORK.format(helper="own_width"), own_width="WIDTH = 3\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert models.create("own_here:Net", 10).num_classes == 10
    (job,) = jobs.plan(
        "configs/quickstart.py", "runs", "true", 1, ["--config.model.name=own_here:Net"]
    )
    assert job.config.model.source == own_code.digest("own_here:Net") != ""


@pytest.mark.parametrize("name", ["mlp_1x512", "no_such_module:Net", "no.such:Net", ":Net"])
def test_other_networks_have_no_digest(name):
    assert own_code.digest(name) == own_code.loaded_digest(name) == ""


def test_a_process_goes_on_with_the_version_that_it_has_loaded(folder):
    write(folder, own_net=NETWORK.format(helper="own_width"), own_width="WIDTH = 3\n")
    first = own_code.loaded_digest("own_net:Net")
    write(folder, own_net=NETWORK.format(helper="own_width") + "# edited\n")
    assert own_code.digest("own_net:Net") == first
    importlib.reload(sys.modules["own_net"])
    assert own_code.loaded_digest("own_net:Net") != first


@pytest.mark.parametrize(
    "field, what", [("model.source", "network"), ("optimizer_source", "optimizer")]
)
def test_a_run_of_edited_code_is_another_run(field, what, folder, tmp_path, monkeypatch):
    def train(config, run_directory, deadline):
        run_directory.append({"step": 0, "epoch": 0, "seconds": 0.0})
        return {"status": "complete", "seconds": 0.0}

    monkeypatch.setattr(training, "run", train)
    write(folder, own_net=NETWORK.format(helper="own_width"), own_width="WIDTH = 3\n")
    config = quickstart(**{own_code.PLACES[field].field.replace(".", "__"): "own_net:Net"})
    result = experiments.run(config, tmp_path / "run")
    assert result[f"{what}_source"] == own_code.digest("own_net:Net") != ""
    others = {"network_source", "optimizer_source"} - {f"{what}_source"}
    assert [result[other] for other in others] == [None]
    assert experiments.run(config, tmp_path / "run") == result
    (tmp_path / "run" / "result.json").unlink()
    write(folder, own_width="WIDTH = 4\n")
    del sys.modules["own_net"], sys.modules["own_width"]
    with pytest.raises(InputError, match=rf"{field}: .* now; so the {what} has changed"):
        experiments.run(config, tmp_path / "run")
    config.update_from_flattened_dict({field: result[f"{what}_source"]})
    with pytest.raises(InputError, match=f"is not the present version of the {what} own_net:Net"):
        experiments.run(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


DATA = """
import numpy as np


def load():
    x = np.random.default_rng({seed}).random((40, 6))
    y = np.arange(40) % 2
    return (x, y), (x, y)
"""


def write_npz(root, labels):
    """An .npz file with these labels, twelve of them. Returns its path."""
    x = np.random.default_rng(0).random((12, 6))
    np.savez(f"{root}.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    return root.with_name(f"{root.name}.npz")


def write_images(root, labels):
    """A folder of equal images."""
    shutil.rmtree(root, ignore_errors=True)
    held = {"x_train": np.zeros((12, 4, 4, 3), np.uint8), "y_train": labels}
    return write_folder(root, held | {"x_test": held["x_train"], "y_test": labels})


def write_table(root, labels):
    """A Hugging Face set. Its Arrow file keeps its size."""
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 12, "label": labels.tolist()})
    return write_saved(root, {"train": table})


def test_a_run_of_an_edited_function_that_returns_data_is_another_run(folder, tmp_path):
    write(folder, own_data=DATA.format(seed=0))
    config = quickstart(data__name="own_data:load")
    first = experiments.with_source(config)
    assert first.data.source == own_code.digest("own_data:load") != ""
    with runs.open_run(tmp_path / "run", first, experiments.scientific) as run:
        run.append({"step": 0, "epoch": 0, "seconds": 0.0})
    write(folder, own_data=DATA.format(seed=1))
    second = experiments.with_source(config)
    assert experiments.digest(second) != experiments.digest(first)
    with (
        pytest.raises(InputError, match=r"data.source: .* so the data set has changed"),
        runs.open_run(tmp_path / "run", second, experiments.scientific),
    ):
        pass
    with pytest.raises(
        InputError, match="is not the present version of the data set own_data:load"
    ):
        experiments.with_source(first)
    assert experiments.with_source(quickstart(data__name="mnist:3.0.1")).data.source == ""


@pytest.mark.parametrize("write_set", [write_npz, write_images, write_table])
def test_a_run_on_changed_files_is_another_run_and_their_place_does_not_count(write_set, tmp_path):
    def version(path):
        return experiments.with_source(quickstart(data__name=str(path))).data.source

    labels = np.arange(12) % 3
    path = write_set(tmp_path / "one", labels)
    first = version(path)
    assert len(first) == 12
    moved = tmp_path / "two" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    assert version(moved) == first
    moved.rename(path)
    labels[[3, 4]] = labels[[4, 3]]
    write_set(tmp_path / "one", labels)
    assert version(path) != first


def test_a_run_on_files_is_continued_unless_they_change(tmp_path):
    path = write_npz(tmp_path / "one", np.arange(12) % 3)
    config = quickstart(data__name=str(path), batch_size=4, max_epochs=1)
    result = experiments.run(config, tmp_path / "run")
    assert result["data_source"] == experiments.with_source(config).data.source
    assert experiments.run(config, tmp_path / "run") == result
    write_npz(tmp_path / "one", np.arange(12)[::-1] % 3)
    with pytest.raises(InputError, match="so the data set has changed since"):
        experiments.run(config, tmp_path / "run")
    old = json.loads((tmp_path / "run" / "config.json").read_text())
    old["data"]["source"] = ""  # as before it was recorded
    (tmp_path / "run" / "config.json").write_text(json.dumps(old))
    assert experiments.run(config, tmp_path / "run") == result


def test_a_run_from_before_there_were_digests_is_continued(tmp_path):
    config = quickstart(model__name="tests.experiments.networks:OwnNetwork")
    old = json.loads(config.to_json())
    del old["model"]["source"], old["optimizer_source"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = experiments.with_source(config)
    assert config.model.source
    with runs.open_run(tmp_path, config, experiments.scientific):
        pass


@pytest.mark.parametrize("row", ["quickstart:true_labels", "table1:mlp_1x512"])
def test_a_mean_is_over_one_version(tmp_path, row):
    for seed, source in enumerate(["aaa", "aaa", "bbb"]):
        config = quickstart(model__name="own_net:Net")
        config.model.source = source
        make_run(tmp_path, row, seed, config=config, test=0.5 + seed / 10, train=0.9)
    cells = []
    for name, table in made(tmp_path).items():
        if name.startswith(row.partition(":")[0]):
            cells += [(each.name, len(each.runs), each.notes) for each in table.rows if each.runs]
    assert [(name.rpartition("model.source=")[2], n) for name, n, _ in cells] == [
        ("aaa", 2),
        ("bbb", 1),
    ]
    assert all(any("network differs" in note for note in notes) for *_, notes in cells)


def test_a_package_that_another_finder_knows_has_its_digest(folder, tmp_path, monkeypatch):
    """As setuptools installs a package with `pip install -e`."""
    write(folder, own_pkg____init__="", own_pkg__own_net="from . import own_a\n", own_pkg__own_a="")
    found = own_code.digest("own_pkg.own_net:Net")
    elsewhere = tmp_path / "elsewhere" / "own_pkg"
    elsewhere.parent.mkdir()
    (folder / "own_pkg").rename(elsewhere)
    assert own_code.digest("own_pkg.own_net:Net") == ""

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "own_pkg":
                return importlib.util.spec_from_file_location(name, elsewhere / "__init__.py")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert own_code.digest("own_pkg.own_net:Net") == found != ""
    assert "own_pkg" not in sys.modules
