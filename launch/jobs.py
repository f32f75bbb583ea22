"""The runs of a sweep: their configs, their folders, and which of them are left to do."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rethinking import cli, experiments, failures, runs
from rethinking.config import load_file
from rethinking.config.fields import show
from rethinking.errors import InputError, nearest, require
from rethinking.runs import folder, json_files

TO_DO, UNFINISHED, FINISHED = "to do", "unfinished", "finished"


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the sweep.

    `state` is one of the three above, "same as" an equal run, or "left out" with the reason.
    """

    config: ConfigDict
    workdir: pathlib.Path
    state: str

    @property
    def is_left(self) -> bool:
        """Whether the sweep must make or continue this run."""
        return self.state in (TO_DO, UNFINISHED)

    def __str__(self) -> str:
        return f"{self.config.row} seed {self.config.seed}"


class Planned(NamedTuple):
    """The row that has a folder, and the key of its config."""

    row: str
    key: str


def plan(
    file: str,
    root: str | os.PathLike,
    rows: str = "",
    seeds: int = 1,
    overrides: Sequence[str] = (),
) -> list[Job]:
    """Returns all runs of the sweep, in order: seed 0 of every row comes first.

    Raises InputError if one of them cannot be run.
    """
    _refuse(root, overrides)
    root = pathlib.Path(root)
    module = load_file(file)
    chosen = _matching(module.ROWS, rows)
    # The run directory that has, or will have, the result of a config.
    places = dict(_finished_runs(root))
    planned: dict[pathlib.Path, Planned] = {}
    configs = {row: cli.parse_config([f"--config={file}:{row}", *overrides]) for row in chosen}
    reasons = {row: _left_out(file, module, configs[row]) for row in chosen}
    for row in chosen:
        if not reasons[row]:
            configs[row] = _checked(configs[row])
    jobs = []
    for seed in range(seeds):
        for row in chosen:
            config = _seeded(configs[row], seed)
            key = _key(config)
            workdir = root / _folder(config) / f"seed_{seed}"
            if reasons[row]:
                jobs.append(Job(config, workdir, f"left out: {reasons[row]}"))
                continue
            same = planned.setdefault(workdir, Planned(row, key))
            if same.key != key:
                raise InputError(
                    f"--config={file}: the rows {same.row!r} and {row!r} are both named "
                    f"{config.row!r}, so they would share the folder {workdir}. Give each its own "
                    "config.row, or leave it empty: then its name is that of the file and the row."
                )
            state = _state(workdir, config)
            if state != FINISHED:
                place = places.setdefault(key, workdir)
                if place != workdir or same.row != row:
                    state = f"same as {place}"
            jobs.append(Job(config, workdir, state))
    return jobs


def _refuse(root: str | os.PathLike, overrides: Sequence[str]) -> None:
    """Raises InputError for a place or settings that no sweep can have."""
    if "://" in os.fspath(root):
        raise InputError(
            f"--workdir={root}: the folder of a sweep must be on this machine. Only single runs "
            "of rethinking.main can write to a bucket."
        )
    for override in overrides:
        if override.startswith(("--config.seed=", "--config.randomize.seed=")):
            raise InputError(
                f"{override}: a sweep sets the seeds itself. Use --seeds=3 for seeds 0, 1 and 2."
            )


def _matching(rows: Sequence[str], pattern: str) -> list[str]:
    try:
        chosen = [row for row in dict.fromkeys(rows) if re.search(pattern, row)]
    except re.error as error:
        raise InputError(f"--rows={pattern}: not a regular expression: {error}") from None
    if not chosen:
        raise InputError(f"--rows={pattern} matches no row. {nearest(pattern, rows)}")
    return chosen


def _left_out(file: str, module: ModuleType, config: ConfigDict) -> str:
    """Why a row makes no sense for its data, as `left_out` of the config file says; "" if not.

    A config file need not define that function.
    """
    if not hasattr(module, "left_out"):
        return ""
    with failures.users_code(f"--config={file}"):
        return module.left_out(config)


def _checked(config: ConfigDict) -> ConfigDict:
    experiments.check(config)
    return experiments.with_source(config)


def _seeded(config: ConfigDict, seed: int) -> ConfigDict:
    """A copy of a row's config with this seed."""
    config = config.copy_and_resolve_references()
    config.seed = config.randomize.seed = seed
    return config


def _folder(config: ConfigDict) -> pathlib.Path:
    """EXPERIMENT/ROW. Raises InputError for names that are not those of folders."""
    name = config.row.partition(":")[2] or config.row
    parts = [*config.experiment.split("/"), *name.split("/")]
    shown = f"config.experiment={show(config.experiment)}, config.row={show(config.row)}"
    try:
        is_name = all(
            part not in ("", ".", "..") and len(os.fsencode(part)) <= _LONGEST for part in parts
        )
    except UnicodeEncodeError:
        raise InputError(
            f"{shown}: a folder cannot have this name where the locale is not UTF-8. Choose ASCII "
            "names, or set LC_ALL=C.UTF-8."
        ) from None
    require(
        is_name,
        f"{shown}: no folder can have this name, and the folder of a run is named after them. "
        f"Choose names of at most {_LONGEST} bytes, none of them . or ..",
    )
    return pathlib.Path(*parts)


# A file system takes at most 255 bytes for a name.
_LONGEST = 200


def _state(workdir: pathlib.Path, config: ConfigDict) -> str:
    """The state of a run directory. Raises InputError if it holds a run of another config."""
    path = epath.Path(workdir)
    if folder.has_begun(path) and not folder.Folder(path).has_result():
        return TO_DO  # the previous run was killed before its first result
    has_config = (workdir / "config.json").exists()
    # A damaged file stops only its own run, whose message names the file.
    with contextlib.suppress(runs.DamagedFile):
        if has_config:
            runs.refuse_another(path / "config.json", config, experiments.scientific)
        if runs.read_result(workdir):
            return FINISHED
    return UNFINISHED if has_config else TO_DO


def _finished_runs(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """The key and the folder of every finished run under `root`."""
    for result in root.rglob("result.json"):
        # This leaves out damaged runs, and files of other programs. The report names them.
        with contextlib.suppress(OSError, ValueError, TypeError):
            config = json_files.read_object(result.parent / "config.json", remedy="")
            if runs.read_result(result.parent):
                yield _key(config), result.parent


def _key(config: ConfigDict | dict) -> str:
    """A text that is equal for two configs exactly when they describe the same run."""
    return json.dumps(experiments.scientific(config), sort_keys=True)
