"""launch.tpu_pod: its commands, pasted into a shell with stand-ins for gcloud and git."""

import os
import re
import shlex
import subprocess

import pytest

from launch.pods import commands, hosts
from tests.launch.programs import (
    AWKWARD,
    DIGITS,
    call,
    launch,
    put_program,
    refused,
    run_script,
    words,
)

POD = ["--name=mine", "--zone=us-west4-a"]
GCLOUD = ["gcloud", "compute", "tpus", "tpu-vm"]
ZONE = "--zone=us-west4-a"
REQUIRED = ("action", "name", "zone")
RUN = ["--", DIGITS, "--workdir=gs://b/x"]


@pytest.fixture
def pod(tmp_path, capsys):
    """Runs the commands that an action prints. Returns the words of each one."""

    def print_and_paste(action, *arguments):
        call("tpu_pod", [f"--action={action}", *POD, "--dry_run", *arguments], REQUIRED)
        asked = tmp_path / "asked_of_gcloud"
        for name in ("git", "gcloud"):
            put_program(tmp_path / "pasted", name, f"printf '%s\\0' {name} \"$@\" END >> {asked}")
        asked.unlink(missing_ok=True)
        run_script(capsys.readouterr().out, tmp_path / "pasted")
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


def test_options_are_passed_on_to_gcloud(pod):
    disk = "data-disk=source=projects/p/zones/z/disks/imagenet,mode=read-only"
    options = ("network=mine", "service-account=a@b", "reserved", disk)
    more = [f"--gcloud={option}" for option in options]
    (create,) = pod("create", *more)
    assert create[-5:] == [*(f"--{option}" for option in options), ZONE]
    (queued,) = pod("create", "--queued", "--spot", *more)
    assert queued == [
        *GCLOUD[:3],
        "queued-resources",
        "create",
        "mine",
        "--node-id=mine",
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--spot",
        *(f"--{option}" for option in options),
        ZONE,
    ]
    (delete,) = pod("delete", "--queued")
    assert delete[3:] == ["queued-resources", "delete", "mine", "--force", "--quiet", ZONE]
    (status,) = pod("status", "--queued")
    assert status[3:] == [
        *("queued-resources", "describe", "mine", "--format=value(state.state)", ZONE)
    ]
    (ssh,) = pod("stop", "--ssh=internal-ip")
    assert ssh[-2:] == ["--internal-ip", ZONE]


def test_stop_can_be_forced_and_logs_follow(pod):
    ((*ssh, command, _),) = pod("stop", "--force")
    assert ssh == [*GCLOUD, "ssh", "mine", "--worker=all"]
    assert command == f"--command={hosts.FORCE_STOP}"
    ((*ssh, command, _),) = pod("logs", "--worker=3")
    assert ssh == [*GCLOUD, "ssh", "mine", "--worker=3"]
    assert command == f"--command={hosts.FOLLOW}"


def test_up_and_watch_say_what_they_would_do(pod):
    arguments = ("--config=configs/quickstart.py", "--workdir=gs://b/runs", "--rows=labels")
    flags = ("--accelerator_type=v6e-8", "--before=mount $DISK", "--sweep")
    create, bundle, copy, install, start, delete = pod(
        "watch", *flags, "--max_hours=5", "--", *arguments
    )
    assert [create[4], bundle[1], copy[4], install[4], delete[4]] == [
        *("create", "bundle", "scp", "ssh", "delete")
    ]
    command = next(word for word in start if word.startswith("--command="))
    assert "mount $DISK || exit\n" in command
    for row in ("true_labels", "random_labels"):
        assert f"--workdir=gs://b/runs/quickstart/{row}/seed_0" in command
    assert len(pod("up", *flags, "--", *arguments)) == 5


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
        (["--action=create", "--accelerator_type=v9-8"], "add a --runtime_version"),
        (["--action=run", "--", DIGITS, "--workdir=runs/x"], "gs://BUCKET/FOLDER"),
        (
            ["--action=run", "--", DIGITS, "--workdir=gs://b/x", "--config.seed=-1"],
            "config.seed=-1",
        ),
        (["--action=run", "--", DIGITS, "--workdir=~/x"], "would be a different folder on each"),
        (["--action=create", "--gcloud=zone=x"], "Use --zone"),
        (["--action=delete", "--force"], "--force is for --action=stop"),
        (["--action=run", "--before=mount x", *RUN], "--before is for --action=up"),
        (["--action=run", "--sweep", *RUN], "--sweep is for --action=up"),
        (["--action=up", "--max_hours=2", *RUN], "--max_hours is for --action=watch"),
        (["--action=watch", *RUN], "needed: --max_hours"),
        (["--action=watch", "--max_hours=0.2", *RUN], "must be more than 0.58"),
        (["--action=up", "--", DIGITS, "--workdir=runs/x"], "gs://BUCKET/FOLDER"),
        (["--action=up", *RUN, "--config.batch_size=50"], "split evenly over 16 devices"),
        (["--action=up", "--accelerator_type=v5litepod", *RUN], "a kind and a number"),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason, capsys):
    refused("tpu_pod", [*POD, *arguments], reason, capsys, required=REQUIRED)


@pytest.mark.parametrize(
    "accelerator_type, counted",
    [
        ("v5litepod-16", (16, 2)),
        ("v5litepod-8", (8, 1)),
        ("v6e-256", (256, 32)),
        ("v5p-16", (8, 2)),
        ("v4-8", (4, 1)),
        ("v3-32", (32, 4)),
        ("v9-8", None),
    ],
)
def test_the_devices_of_a_slice_are_counted(accelerator_type, counted):
    assert commands.count_devices(accelerator_type) == counted


def test_a_missing_gcloud_is_named(tmp_path):
    ended = launch("tpu_pod", "--action=status", *POD, PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "gcloud is not installed here" in ended.stderr
