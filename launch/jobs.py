"""The runs of a sweep: their configs, their folders, and which of them are left to do."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from etils import epath
from ml_collections import ConfigDict

from rethinking import cli, experiments, runs
from rethinking.config import load_file
from rethinking.errors import InputError, nearest

TO_DO, UNFINISHED, FINISHED = "to do", "unfinished", "finished"


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the sweep. `state` is one of the three above, or "same as" an equal run."""

    config: ConfigDict
    workdir: pathlib.Path
    state: str

    @property
    def is_left(self) -> bool:
        """Whether the sweep must make or continue this run."""
        return self.state in (TO_DO, UNFINISHED)

    def __str__(self) -> str:
        return f"{self.config.row} seed {self.config.seed}"


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
    root = pathlib.Path(root)
    chosen = _matching(load_file(file).ROWS, rows)
    # The run directory that has, or will have, the result of a config.
    places = dict(_finished_runs(root))
    jobs = []
    for seed in range(seeds):
        for row in chosen:
            config = _config(file, row, seed, overrides)
            workdir = root / config.experiment / config.row.partition(":")[2] / f"seed_{seed}"
            state = _state(workdir, config)
            if state != FINISHED:
                place = places.setdefault(_key(config), workdir)
                if place != workdir:
                    state = f"same as {place}"
            jobs.append(Job(config, workdir, state))
    return jobs


def _matching(rows: Sequence[str], pattern: str) -> list[str]:
    try:
        chosen = [row for row in rows if re.search(pattern, row)]
    except re.error as error:
        raise InputError(f"--rows={pattern}: not a regular expression: {error}") from None
    if not chosen:
        raise InputError(f"--rows={pattern} matches no row. {nearest(pattern, rows)}")
    return chosen


def _config(file: str, row: str, seed: int, overrides: Sequence[str]) -> ConfigDict:
    seeds = [f"--config.seed={seed}", f"--config.randomize.seed={seed}"]
    config = cli.parse_config([f"--config={file}:{row}", *overrides, *seeds])
    experiments.check(config)
    return experiments.with_source(config)


def _state(workdir: pathlib.Path, config: ConfigDict) -> str:
    """The state of a run directory. Raises InputError if it holds a run of another config."""
    has_config = (workdir / "config.json").exists()
    if has_config:
        file = epath.Path(workdir / "config.json")
        runs.refuse_another(file, config, experiments.scientific)
    if runs.read_result(workdir):
        return FINISHED
    return UNFINISHED if has_config else TO_DO


def _finished_runs(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """The key and the folder of every finished run under `root`."""
    for result in root.rglob("result.json"):
        # A folder that is not a run directory is left out here. The report names it.
        with contextlib.suppress(OSError, ValueError):
            config = json.loads((result.parent / "config.json").read_text())
            yield _key(config), result.parent


def _key(config: ConfigDict | dict) -> str:
    """A text that is equal for two configs exactly when they describe the same run."""
    return json.dumps(experiments.scientific(config), sort_keys=True)
