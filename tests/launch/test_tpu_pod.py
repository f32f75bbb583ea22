"""launch.tpu_pod: its commands, pasted into a shell with stand-ins for gcloud and git."""

import os
import re
import shlex
import subprocess

import pytest

from tests.launch.programs import (
    AWKWARD,
    DIGITS,
    launch,
    put_program,
    refused,
    run_script,
    words,
)

POD = ["--name=mine", "--zone=us-west4-a"]
GCLOUD = ["gcloud", "compute", "tpus", "tpu-vm"]
ZONE = "--zone=us-west4-a"


@pytest.fixture
def pod(tmp_path):
    """Runs the commands that an action prints. Returns the words of each one."""

    def print_and_paste(action, *arguments):
        ended = launch("tpu_pod", f"--action={action}", *POD, "--dry_run", *arguments)
        assert ended.returncode == 0, ended.stderr
        asked = tmp_path / "asked_of_gcloud"
        for name in ("git", "gcloud"):
            put_program(tmp_path / "pasted", name, f"printf '%s\\0' {name} \"$@\" END >> {asked}")
        asked.unlink(missing_ok=True)
        run_script(ended.stdout, tmp_path / "pasted")
        commands = asked.read_text().removesuffix("END\0").split("END\0")
        return [command.split("\0")[:-1] for command in commands]

    return print_and_paste


def test_each_action_has_its_gcloud_commands(pod):
    (create,) = pod("create", "--accelerator_type=v6e-256", "--spot", "--project=p")
    assert create == [
        *GCLOUD,
        "create",
        "mine",
        "--accelerator-type=v6e-256",
        "--version=v2-alpha-tpuv6e",
        "--spot",
        ZONE,
        "--project=p",
    ]
    bundle, copy, install = pod("setup")
    assert bundle == ["git", "bundle", "create", "rethinking.bundle", "HEAD"]
    assert copy == [*GCLOUD, "scp", "rethinking.bundle", "mine:", "--worker=all", ZONE]
    assert install[:6] == [*GCLOUD, "ssh", "mine"]
    assert pod("status") == [[*GCLOUD, "describe", "mine", "--format=value(state)", ZONE]]
    assert pod("delete") == [[*GCLOUD, "delete", "mine", "--quiet", ZONE]]


def test_every_host_gets_the_arguments_of_main_unchanged(pod, tmp_path):
    arguments = [
        "--workdir=gs://bucket/it's $HOME" if "workdir" in argument else argument
        for argument in AWKWARD
    ]
    ((*ssh, command, zone),) = pod("run", "--", *arguments)
    assert [*ssh, zone] == [*GCLOUD, "ssh", "mine", "--worker=all", ZONE]
    python = tmp_path / "rethinking/.venv/bin"
    put_program(python, "python", f"printf '%s\\0' \"$@\" > {tmp_path}/asked")
    subprocess.run(["bash", "-c", command.removeprefix("--command=")], cwd=tmp_path, check=True)
    assert words(tmp_path / "asked") == ["-u", "-m", "rethinking.main", "--distributed", *arguments]


def test_every_host_gets_the_newest_commit(pod, tmp_path):
    mine, home = tmp_path / "mine", tmp_path / "home"
    git = ["git", "-C", mine, "-c", "user.name=me", "-c", "user.email=me@example.com"]
    bundle = ["bundle", "create", "--quiet", home / "rethinking.bundle", "HEAD"]
    subprocess.run(["git", "init", "--quiet", mine], check=True)
    put_program(home / ".local/bin", "uv", f'echo "$@" >> {tmp_path}/uv')
    install = pod("setup")[2][-2].removeprefix("--command=")
    for text in ("first", "second"):  # the second setup copies the second commit
        (mine / "file").write_text(text)
        for arguments in (["add", "file"], ["commit", "--quiet", "-m", text], bundle):
            subprocess.run([*git, *arguments], check=True)
        environment = os.environ | {"HOME": str(home)}
        subprocess.run(["bash", "-c", install], cwd=home, check=True, env=environment)
        assert (home / "rethinking/file").read_text() == text
    assert (tmp_path / "uv").read_text().splitlines()[:2] == [
        "venv --quiet --allow-existing --python 3.12 .venv",
        "pip install --quiet --python .venv/bin/python --editable .[tpu,gcs,imagenet]",
    ]


def test_stop_finds_the_run_and_not_itself(pod):
    command = pod("stop")[0][-2].removeprefix("--command=")
    program, full, pattern, *_ = shlex.split(command)
    assert (program, full) == ("pkill", "--full")
    assert re.search(pattern, ".venv/bin/python -u -m rethinking.main --distributed")
    assert not re.search(pattern, f"bash -c {command}")


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--action=fly"], "fly"),
        (["--action=delete", "--", DIGITS], "takes no arguments"),
        (["--action=create", "--accelerator_type=v9-8"], "give its --runtime_version"),
        (["--action=run", "--", DIGITS, "--workdir=runs/x"], "gs://BUCKET/FOLDER"),
        (
            ["--action=run", "--", DIGITS, "--workdir=gs://b/x", "--config.seed=-1"],
            "config.seed=-1",
        ),
        (["--action=run", "--", DIGITS, "--workdir=~/x"], "would be another folder on every host"),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason):
    refused("tpu_pod", [*POD, *arguments], reason)


def test_a_missing_gcloud_is_named(tmp_path):
    ended = launch("tpu_pod", "--action=status", *POD, PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "gcloud is not installed here" in ended.stderr
