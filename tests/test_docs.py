"""The code of the pages and of the notebook runs, and the links lead somewhere."""

import io
import math
import pathlib
import re
import sys
import tarfile

import jax
import nbclient
import nbformat
import numpy as np
import pytest
import scipy.io

from rethinking import cli, experiments, models
from rethinking.chips import CHIPS
from rethinking.data import arrays, stream
from rethinking.experiments import optimizers
from rethinking.models import adapters
from rethinking.training import check
from tests.data.pictures import encode, noise
from tests.test_commands import commands

ROOT = pathlib.Path(__file__).parent.parent


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_notebook_runs_to_its_end(monkeypatch):
    """Its cells assert what the text around them says."""
    monkeypatch.setenv("XLA_FLAGS", "")
    notebook = nbformat.read(ROOT / "notebooks/random_labels_to_kernels.ipynb", as_version=4)
    place = {"metadata": {"path": ROOT / "notebooks"}}
    # Fewer points of the same curve, and runs end when they fit instead of after 100 epochs.
    until_fit = '"--config.stop_when_fit=True", "--config.fit_accuracy=0.999"'
    for old, new in (
        ("(0.0, 0.25, 0.5, 0.75, 1.0)", "(0.0, 0.5)"),
        ('"--config.num_devices=1"', f'"--config.num_devices=1", {until_fit}'),
    ):
        (cell,) = (cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    printed = ""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            printed += output.get("text", "")
    (accuracy,) = re.findall(r"random_labels: training accuracy ([\d.]+)%", printed)
    assert float(accuracy) >= 99.9


def write_networks(folder, monkeypatch):
    """Writes the networks of docs/own_network.md to a folder, from which they are imported."""
    for source in blocks("docs/own_network.md", "python"):
        name = source.partition("\n")[0].removeprefix("# ")
        (folder / name).write_text(source)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    "network, library, num_params",
    [
        ("my_network:SmallNet", "flax", 11 * 64 + 1024 * 256 + 256 + 2570),  # the page's command
        ("my_linen:SmallNet", "flax", 11 * 32 + 512 * 256 + 256 + 2570),
        ("my_equinox:EquinoxNet", "equinox", 64 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10),
        ("my_haiku:HaikuNet", "haiku", 64 * 64 + 64 + 2 * 64 + 64 * 10 + 10),
    ],
)
def test_the_networks_of_the_page_run_by_config_alone(
    network, library, num_params, tmp_path, monkeypatch
):
    pytest.importorskip(library)
    write_networks(tmp_path, monkeypatch)
    page = commands("docs/own_network.md")
    arguments = next(words[1:] for words in page if words[0] == "rethinking.main")
    if network != "my_network:SmallNet":
        arguments += [f"--config.model.name={network}", "--config.model.options={}"]
    arguments += ["--config.data.num_train=320", "--config.max_epochs=2", "--config.num_devices=1"]
    config = cli.parse_config([word for word in arguments if "--workdir" not in word])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # Haiku's code
        result = experiments.run(config, tmp_path / "run")
    assert result["num_params"] == num_params
    assert result["status"] == "complete"
    assert result["network_source"]


def test_the_network_for_tokens_of_the_page_takes_tokens(tmp_path, monkeypatch):
    write_networks(tmp_path, monkeypatch)
    made = models.create("my_tokens:BagOfTokens", num_classes=4, vocab_size=12)
    tokens = jax.ShapeDtypeStruct((3,), jax.numpy.int32)
    check.check_model(adapters.adapt(made), tokens, num_classes=4)  # refuses other outputs


@pytest.mark.parametrize("block, first, last", [(0, 0.05, 0.05), (1, 0.0003, 0)])
def test_the_optimizers_of_the_page_have_its_learning_rates(
    block, first, last, tmp_path, monkeypatch
):
    (source,) = blocks("docs/own_optimizer.md", "python")
    (tmp_path / "my_optimizer.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    command = blocks("docs/own_optimizer.md", "sh")[block]
    config = cli.parse_config([flag for flag in command.split() if flag.startswith("--config")])
    experiments.check(config)
    rate, _ = optimizers.build(config, steps_per_epoch=44)
    assert float(rate(0)) == pytest.approx(first)
    assert float(rate(44 * config.max_epochs)) == pytest.approx(last)


def test_the_kernel_examples_of_the_page_run():
    digits = arrays.load("digits")
    x, x_test = (split.images[:300].reshape(300, -1) / 255 for split in (digits.train, digits.test))
    names = {"x": x, "labels": digits.train.labels[:300]}
    names |= {"x_test": x_test, "labels_test": digits.test.labels[:300]}
    first, second = blocks("docs/kernel_system.md", "python")
    exec(first, names)
    assert names["wrong"] == np.mean(names["outputs"].argmax(1) != names["labels_test"]) < 0.4
    exec(second, names)
    assert names["model"].error(x_test, names["labels_test"]) < 0.1


def test_the_example_of_the_library_s_page_runs():
    names = {}
    exec(blocks("docs/library.md", "python")[0], names)
    (true, true_test), (random, random_test) = names["accuracies"].values()
    assert true == random == 1 and true_test > 0.7 and abs(random_test - 0.1) < 0.05


@pytest.mark.slow
def test_the_training_loop_of_the_library_s_page_runs():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    names = {}
    exec(blocks("docs/library.md", "python")[1], names)
    assert names["accuracy"] == 1
    assert 150 < (names["random_labels"] != names["labels"]).sum() < 200
    assert sorted(names["shuffled_images"][3].ravel()) == sorted(names["images"][3].ravel())


def add(archive, name, content):
    """Adds a file to a tar archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_the_program_of_the_page_makes_folders_of_imagenet_s_archives(tmp_path, monkeypatch):
    """Archives of two classes, in the form of ILSVRC 2012's: their numbers are not their order."""
    wnids, pictures = ["n02", "n01"], [encode(noise(9, 9, seed), "jpeg") for seed in range(7)]
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as train:
        for number, wnid in enumerate(wnids):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for which in (2 * number, 2 * number + 1):
                    add(images, f"{wnid}_{which}.JPEG", pictures[which])
            add(train, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as val:
        for which in (4, 5, 6):
            add(val, f"ILSVRC2012_val_{which - 3:08d}.JPEG", pictures[which])
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.array([(1, "n02", 0), (2, "n01", 0), (3, "n00", 2)], kind)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets[:, None]})
    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        folder = "ILSVRC2012_devkit_t12/data"
        add(devkit, f"{folder}/meta.mat", meta.getvalue())
        add(devkit, f"{folder}/ILSVRC2012_validation_ground_truth.txt", b"2\n1\n2\n")
    (program,) = blocks("docs/imagenet.md", "python")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), str(tmp_path / "imagenet")])
    exec(program, {})
    found = stream.load(str(tmp_path / "imagenet"))
    assert found.num_classes == 2 and found.eval_split == "val"
    read = [
        [split.records.read(i) for i in range(len(split))] for split in (found.train, found.test)
    ]
    assert read[0] == [(pictures[which], which < 2) for which in (2, 3, 0, 1)]
    assert read[1] == [(pictures[which], which == 5) for which in (4, 6, 5)]


def test_the_host_arithmetic_of_the_page_adds_up():
    """A v5e chip wants 1,192 images a second. The others follow from their memory bandwidth."""
    text = (ROOT / "docs/imagenet.md").read_text()
    table = text[text.index("| host |") :].partition("\n\n")[0].splitlines()[2:]
    tpu, gpu = CHIPS["TPU v5 lite"], 85.2e9 / 256
    a_chip = {
        "v5e": 1192,
        "v5p": 1192 * CHIPS["TPU v5"].bandwidth / tpu.bandwidth,
        "v6e": 1192 * CHIPS["TPU v6 lite"].bandwidth / tpu.bandwidth,
        "A3 High": CHIPS["NVIDIA H100 80GB HBM3"].bandwidth / gpu,
        "A3 Ultra": CHIPS["NVIDIA H200"].bandwidth / gpu,
    }
    assert len(table) == 7
    for line in table:
        name, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        chips, _, _, _, wanted, cores, network = (float(cell.replace(",", "")) for cell in numbers)
        (rate,) = (rate for kind, rate in a_chip.items() if name.startswith(kind))
        assert wanted == pytest.approx(chips * rate, rel=1e-3)
        assert cores == math.ceil(wanted / 300)
        assert network == pytest.approx(wanted * 147_897_477_120 / 1_281_167 * 8 / 1e9, abs=0.06)


def test_links_between_the_pages_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    for folder in ("docs", "results", "benchmarks"):
        pages += (ROOT / folder).glob("*.md")
    broken = []
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} links to {target}")
    assert broken == []
