"""The runs of a sweep: their configs, their folders, and which of them are left to do."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rethinking import cli, experiments, failures, runs
from rethinking.config import load_file
from rethinking.config.fields import show
from rethinking.errors import InputError, nearest, require, require_known
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


class _Row(NamedTuple):
    """A row that the sweep runs."""

    file: str
    name: str  # in `file`
    config: ConfigDict
    left_out: str  # why it is left out; "" if it is not


def plan(
    files: str | Sequence[str],
    root: str | os.PathLike,
    rows: str = "",
    seeds: int = 1,
    overrides: Sequence[str] = (),
) -> list[Job]:
    """Returns all runs of the sweep, in order: seed 0 of every row comes first.

    Without `rows`, the rows of a file's TELLING come before its others. With several files, one row
    of each file comes in turn. Of equal runs, one is made. Raises InputError if one of the runs
    cannot be made.
    """
    _refuse(root, overrides)
    root = pathlib.Path(root)
    files = [files] if isinstance(files, str) else files
    chosen = _choose(list(dict.fromkeys(files)), rows, overrides)
    jobs = []
    planned: dict[pathlib.Path, tuple[_Row, str]] = {}
    for seed in range(seeds):
        for row in chosen:
            config = _seeded(row.config, seed)
            workdir = root / _folder(config) / f"seed_{seed}"
            if row.left_out:
                jobs.append(Job(config, workdir, f"left out: {row.left_out}"))
                continue
            key = _key(config)
            same, its_key = planned.setdefault(workdir, (row, key))
            if its_key != key:
                raise InputError(
                    f"--config={row.file}: the rows {same.name!r} and {row.name!r} are both named "
                    f"{config.row!r}, so they would share the folder {workdir}. Give each its own "
                    "config.row, or leave it empty: then its name is that of the file and the row."
                )
            state = _state(workdir, config)
            if same is not row and state != FINISHED:
                state = f"same as {workdir}"
            jobs.append(Job(config, workdir, state))
    return _made_once(jobs, root)


def _choose(files: Sequence[str], pattern: str, overrides: Sequence[str]) -> list[_Row]:
    """The rows that `pattern` matches, in the order of `plan`."""
    modules = {file: load_file(file) for file in files}
    chosen = _matching({file: _in_order(file, modules[file], pattern) for file in files}, pattern)
    found = []
    for turn in itertools.zip_longest(*chosen.values()):
        for file, name in zip(files, turn, strict=True):
            if name is None:  # this file has no more rows
                continue
            config = cli.parse_config([f"--config={file}:{name}", *overrides])
            left_out = _left_out(file, modules[file], config)
            found.append(_Row(file, name, config if left_out else _checked(config), left_out))
    return found


def _in_order(file: str, module: ModuleType, pattern: str) -> list[str]:
    """The rows of a config file. Without `pattern`, those in the file's TELLING come first.

    TELLING is optional. It lists the most important rows, in order.
    """
    if pattern:
        return list(dict.fromkeys(module.ROWS))
    telling = getattr(module, "TELLING", ())
    for row in telling:
        require_known(row, module.ROWS, f"--config={file}: TELLING: unknown row")
    return list(dict.fromkeys((*telling, *module.ROWS)))


def _made_once(jobs: Sequence[Job], root: pathlib.Path) -> list[Job]:
    """The jobs. Of equal runs, one keeps its state, and the others become "same as" that one.

    The first choice is a finished run, then one that has begun, then the first one.
    """
    finished = dict(_finished_runs(root))
    places: dict[str, pathlib.Path] = {}
    for state in (UNFINISHED, TO_DO):
        for job in jobs:
            if job.state == state:
                key = _key(job.config)
                places.setdefault(key, finished.get(key, job.workdir))
    found = []
    for job in jobs:
        place = places[_key(job.config)] if job.is_left else job.workdir
        same = dataclasses.replace(job, state=f"same as {place}")
        found.append(job if place == job.workdir else same)
    return found


def _refuse(root: str | os.PathLike, overrides: Sequence[str]) -> None:
    """Raises InputError for a root in a bucket, and for overrides of the seeds."""
    if "://" in os.fspath(root):
        raise InputError(
            f"--workdir={root}: the folder of a sweep must be on this machine. To write to a "
            "bucket, make single runs with rethinking.main."
        )
    for override in overrides:
        if override.startswith(("--config.seed=", "--config.randomize.seed=")):
            raise InputError(
                f"{override}: a sweep sets the seeds itself. Use --seeds=3 for seeds 0, 1 and 2."
            )


def _matching(rows: Mapping[str, Sequence[str]], pattern: str) -> dict[str, list[str]]:
    """The rows of each file that `pattern` matches somewhere."""
    try:
        chosen = {
            file: [row for row in names if re.search(pattern, row)] for file, names in rows.items()
        }
    except re.error as error:
        raise InputError(f"--rows={pattern}: not a regular expression: {error}") from None
    if not any(chosen.values()):
        known = [name for names in rows.values() for name in names]
        raise InputError(f"--rows={pattern} matches no row. {nearest(pattern, known)}")
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
            if experiments.lengthens(runs.read_config(path / "config.json"), config):
                return UNFINISHED
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
