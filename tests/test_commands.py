"""The commands that the pages print are ones that the programs take."""

import importlib
import pathlib
import re
import shlex
import sys

import pytest
from absl import flags

from launch import estimate, jobs
from rethinking import cli
from rethinking.experiments import work

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
PAGES += ["results/README.md", "benchmarks/README.md"]
PAGES += sorted(f"configs/{file.name}" for file in (ROOT / "configs").glob("*.py"))
# What a shell puts in place of the variables on the pages.
VARIABLES = {"$where": "--name=n --zone=z", "$USER": "me"}
# Words on the pages that stand for something of the reader's.
STANDS_FOR = {
    "my_package.my_module:MyNetwork": "my_network:SmallNet",
    "MODEL": "mlp_1x512",
    "--rows=REGEX": "--rows=.",
}


def commands(page):
    """The arguments of each `python -m` in the blocks of a page."""
    text = (ROOT / page).read_text()
    text = "\n".join([*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), *indented(text)])
    for name, value in (*VARIABLES.items(), *STANDS_FOR.items()):
        text = text.replace(name, value)
    for line in text.replace("\\\\\n", " ").replace("\\\n", " ").splitlines():
        line = re.sub(r".*--command='(.*)'$", r"\1", line)  # what the hosts of a pod run
        for part in line.split("&&"):
            if "python -m" in part:
                words = shlex.split(part, comments=True)
                yield words[words.index("-m") + 1 :]


LIBRARIES = ("absl.", "array_record.", "etils.", "grain.", "tensorflow")


def indented(text):
    """The blocks that are set in by four spaces."""
    return re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", text, re.MULTILINE)


def module(name):
    """A program's module. Its flags take the place of those of the program before."""
    for flag in list(flags.FLAGS):
        # Libraries need their own flags later: array_record reads one when it opens a file.
        if not flags.FLAGS.find_module_defining_flag(flag).startswith(LIBRARIES):
            delattr(flags.FLAGS, flag)
    if name == "rethinking.report":
        name = "rethinking.report.__main__"
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.fixture
def my_files(tmp_path, monkeypatch):
    """The files that docs/own_network.md describes, in a folder with the configs."""
    text = (ROOT / "docs/own_network.md").read_text()
    for name, network in re.findall(r"```python\n# (\w+.py)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(network)
    (config,) = (block for block in indented(text) if "ROWS" in block)
    (tmp_path / "my_experiments.py").write_text(re.sub("^    ", "", config, flags=re.MULTILINE))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("my_network", "my_experiments"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def take(program, arguments, capsys):
    """Lets a program parse, check and, where it can, plan what it would do."""
    command = [program, *arguments]
    if program == "rethinking.main":
        cli.check_forwarded(arguments)
    elif program == "rethinking.data.prepare":
        assert module(program).parse(command).name
    elif program == "launch.sweep":
        main = module(program).main
        with pytest.MonkeyPatch.context() as patch:  # other tests count work and measure rates
            patch.setattr(work, "count", lambda config: [])
            patch.setattr(estimate, "product_rate", lambda dtype: 1e11)
            main(cli.parse_flags([*command, "--dry_run"], required=("config", "workdir")))
        assert " to run" in capsys.readouterr().out
    elif program in ("launch.slurm", "launch.tpu_pod"):
        main = module(program).main
        main(cli.parse_launcher_flags([program, "--dry_run", *arguments]))
        assert capsys.readouterr().out
    else:
        module(program)
        cli.parse_flags(command, required=())


@pytest.mark.parametrize("page", PAGES)
def test_programs_take_the_commands_of_a_page(page, my_files, capsys):
    for program, *arguments in commands(page):
        if program in ("venv", "pytest"):
            continue
        take(program, arguments, capsys)
        flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".md")])
def test_main_takes_the_settings_that_the_text_of_a_page_names(page, my_files):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        settings = [word for word in shlex.split(span.replace("MODEL", "mlp_1x512"))]
        if not all(word.startswith("--config") and "=" in word for word in settings):
            continue
        if settings == ["--config.FIELD=VALUE"]:
            continue
        config = [word for word in settings if word.startswith("--config=")]
        others = [word for word in settings if word not in config]
        row = (
            "table2:none" if settings == ["--config.model.options={}"] else "quickstart:true_labels"
        )
        base = f"--config=configs/{row.replace(':', '.py:')}"
        cli.parse_config([*(config or [base]), *others])


def test_the_example_of_a_config_file_has_the_folders_that_the_page_names(my_files):
    planned = jobs.plan("my_experiments.py", "runs/mine")
    assert [job.config.row for job in planned] == ["my_experiments:small", "my_experiments:large"]
    assert planned[0].workdir == pathlib.Path("runs/mine/my_experiments/small/seed_0")
