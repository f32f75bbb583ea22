"""The runs that a launcher sends elsewhere: the arguments of rethinking.main for each of them."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from launch import jobs
from rethinking import cli
from rethinking.cli import flag_types
from rethinking.config import load_file
from rethinking.errors import require


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its config, its folder and all its arguments of rethinking.main."""

    config: ConfigDict
    workdir: str
    arguments: list[str]

    def __str__(self) -> str:
        return f"{self.config.row} seed {self.config.seed}"


def single(arguments: Sequence[str]) -> list[Run]:
    """The run that these arguments of rethinking.main describe.

    Raises InputError if rethinking.main would refuse them.
    """
    config, workdir = cli.check_forwarded(arguments)
    return [Run(config, workdir, list(arguments))]


def sweep(arguments: Sequence[str]) -> list[Run]:
    """The runs that are left of a sweep with these arguments of launch.sweep, in its order.

    A run that is finished in a folder on this machine is left out. The root may be in a bucket.
    Raises InputError if launch.sweep would refuse the arguments, or if no run is left.
    """
    values = _sweep_flags()
    overrides = cli.parse_into(["launch.sweep", *arguments], values, ("config", "workdir"))
    root: str = values.workdir
    names = _names(values.config, overrides)
    with tempfile.TemporaryDirectory() as nothing:
        planned_in = nothing if "://" in root else root  # a bucket cannot be searched from here
        planned = jobs.plan(values.config, planned_in, values.rows, values.seeds, overrides)
    found = []
    for job in planned:
        if job.is_left:
            folder = pathlib.PurePath(job.workdir).relative_to(planned_in)
            workdir = f"{root.rstrip('/')}/{folder.as_posix()}"
            found.append(_run(job.config, workdir, names, overrides))
    require(bool(found), f"--workdir={root}: all {len(planned)} runs of this sweep are finished.")
    return found


def check_devices(run: Run, num_devices: int, num_processes: int) -> None:
    """Raises InputError if rethinking.main would refuse a run on this many devices in all."""
    asked, batch_size = run.config.num_devices, run.config.get("batch_size")
    fits = asked in (0, num_devices) if num_processes > 1 else asked <= num_devices
    require(
        fits,
        f"{run}: config.num_devices={asked}, but the run gets {num_devices} devices. Leave it at "
        "0, or change the number of devices.",
    )
    if batch_size is not None and num_processes > 1:
        require(
            batch_size % num_devices == 0,
            f"{run}: config.batch_size={batch_size} cannot be split evenly over {num_devices} "
            "devices. Choose a multiple, or another number of devices.",
        )


def _sweep_flags() -> flags.FlagValues:
    """The flags of launch.sweep that say which runs it makes."""
    values = flags.FlagValues()
    flag_types.define_paths("config", None, "configs/FILE.py,...", flag_values=values)
    flag_types.define_path("workdir", None, "the root", flag_values=values)
    flags.DEFINE_string("rows", "", "a regular expression", flag_values=values)
    flags.DEFINE_integer("seeds", 1, "their number", lower_bound=1, flag_values=values)
    return values


def _names(files: Sequence[str], overrides: Sequence[str]) -> dict[tuple[str, str], str]:
    """FILE:ROW of each row, by the experiment and the row that its config names."""
    found = {}
    for file in files:
        for row in load_file(file).ROWS:
            config = cli.parse_config([f"--config={file}:{row}", *overrides])
            found.setdefault((config.experiment, config.row), f"{file}:{row}")
    return found


def _run(
    config: ConfigDict,
    workdir: str,
    names: dict[tuple[str, str], str],
    overrides: Sequence[str],
) -> Run:
    arguments = [
        f"--config={names[config.experiment, config.row]}",
        f"--workdir={workdir}",
        *overrides,
        f"--config.seed={config.seed}",
        f"--config.randomize.seed={config.seed}",
    ]
    return Run(config, workdir, arguments)
