"""The run directory: everything that the run of one config writes.

    config.json     the resolved config
    metrics.jsonl   one line per evaluation
    result.json     written once, when the run ends
    checkpoints/    see rethinking.experiments.checkpoint

It is a local folder, or it lies in a bucket: gs://BUCKET/FOLDER. A local folder has a lock, so that
two processes never write to it at once. A bucket has no locks. Files appear whole or not at all.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rethinking import own_code, provenance
from rethinking.config import flat
from rethinking.errors import InputError
from rethinking.runs.folder import Folder, InUse, has_begun, hold, is_local
from rethinking.runs.json_files import (
    DamagedFile,
    check_metrics,
    digest_of_lines,
    finite,
    read_each,
    read_lines,
    read_object,
    read_result,
    seal,
)

__all__ = [
    "DamagedFile",
    "InUse",
    "RunDirectory",
    "check_metrics",
    "open_run",
    "read_config",
    "read_lines",
    "read_result",
    "refuse_another",
]

# How long processes that read wait for the one that writes. File systems of clusters may show a
# file late.
WAIT_SECONDS = 120.0
REPLACE_SECONDS = 10.0
# From a config to the fields that decide what it computes: `rethinking.experiments.scientific`.
Scientific = Callable[[ConfigDict], dict[str, Any]]
# Whether the second config only adds epochs to the first: `rethinking.experiments.lengthens`.
Lengthens = Callable[[ConfigDict, ConfigDict], bool]


class RunDirectory:
    """One run's folder, held under a lock. `open_run` makes it.

    If several processes share a run, one of them `writes`. The others keep the same `metrics` and
    change no file.
    """

    def __init__(self, folder: Folder, writes: bool = True, longer: ConfigDict | None = None):
        """`longer` is a config with more epochs than that of the folder, which it will replace."""
        self.path, self.writes, self._folder, self._longer = folder.path, writes, folder, longer
        self.metrics: list[dict[str, Any]] = []
        self.read_again()

    @property
    def result(self) -> dict[str, Any] | None:
        """The contents of result.json; None while the run is unfinished."""
        return None if self._longer is not None else read_result(self.path)

    def keep_metrics(self, step: int | None = None) -> None:
        """Drops the lines after `step`: a restart from its checkpoint measures them again.

        None keeps all whole lines. A last line that was cut short is dropped in any case.
        """
        if step is not None:
            self.metrics = [line for line in self.metrics if line["step"] <= step]
        self._write_metrics()

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Replaces all lines by `lines`."""
        self.metrics = lines
        self._write_metrics()

    def read_all(self) -> list[Any]:
        """The value of each whole line of metrics.jsonl; None for a line that is not JSON."""
        return read_each(self.path / "metrics.jsonl")

    def read_again(self) -> None:
        """Reads metrics.jsonl again, which another process may have written since."""
        self.metrics = read_lines(self.path / "metrics.jsonl")

    def require_there(self) -> None:
        """Raises InputError if the folder was removed while the run used it."""
        if self.writes:
            self._folder.require_there()

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl, which is on disk when this returns.

        Numbers that JSON does not have (nan, inf) become null.
        """
        self._begin()
        self.metrics.append(finite(line))
        if not is_local(self.path):
            self._write_metrics()  # a file in a bucket can be replaced, but not extended
        elif self.writes:
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(json.dumps(self.metrics[-1]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        if len(self.metrics) == 1 and self.writes:
            self._folder.note(has_result=True)

    def sealed(self, result: dict[str, Any]) -> dict[str, Any]:
        """`result` with digests, by which damage to it and to metrics.jsonl is noticed later."""
        if self.metrics:
            result = result | {"metrics_sha256": digest_of_lines(self.metrics)}
        return seal(result)

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Writes result.json and returns its contents."""
        self._begin()
        result = finite(result)
        if self.writes:
            _write_atomically(self.path / "result.json", json.dumps(result, indent=2) + "\n")
            if is_local(self.path):
                self._folder.remove_solve()
        return result

    def _begin(self) -> None:
        """Comes before all that is written. A shorter run is finished until then."""
        self.require_there()
        if self._longer is not None and self.writes:
            # First this: a process that is killed in between leaves the shorter run unfinished.
            (self.path / "result.json").unlink(missing_ok=True)
            _write_config(self.path, self._longer)
        self._longer = None

    def _write_metrics(self) -> None:
        self._begin()
        if self.writes:
            text = "".join(json.dumps(line) + "\n" for line in self.metrics)
            _write_atomically(self.path / "metrics.jsonl", text)


@contextlib.contextmanager
def open_run(
    workdir: str | os.PathLike,
    config: ConfigDict,
    scientific: Scientific,
    writes: bool = True,
    lengthens: Lengthens = lambda there, config: False,
) -> Iterator[RunDirectory]:
    """Gives the run directory of `config`, new or to be continued.

    A finished run is unfinished again if `config` has more epochs and is otherwise the same. Its
    result stays until the first line is written. With `writes=False` it waits until another process
    has made it. `scientific` and `lengthens` are those of `rethinking.experiments`.

    Raises InputError if the folder cannot be written, if another process uses it, or if it holds
    anything else. Also if a finished run that gets more epochs has no checkpoint of its end.
    """
    path = epath.Path(workdir)
    # Both now, because the code may change during the run.
    provenance.revision()
    provenance.source_digest()
    if not writes:
        _wait_for(path / "config.json")
        is_longer = lengthens(read_config(path / "config.json"), config)
        if not is_longer:
            _refuse_another_in_time(path, config, scientific)
        yield RunDirectory(Folder(path), writes, config if is_longer else None)
        return
    with hold(path) as folder:
        folder.remove_litter()
        is_longer = _is_run(folder) and lengthens(read_config(path / "config.json"), config)
        if is_longer:
            _require_last_checkpoint(path, config)
        else:
            _keep_config(folder, config, scientific)
        folder.note(folder.has_result())
        try:
            yield RunDirectory(folder, writes, config if is_longer else None)
        except BaseException:
            _leave_usable(folder)
            raise
        folder.note(has_result=True)


def _leave_usable(folder: Folder) -> None:
    """After an error before the first result, frees the folder for a corrected command."""
    with contextlib.suppress(OSError, InputError):
        folder.require_there()
        if not folder.has_result():
            folder.clear()
            (folder.path / "config.json").unlink()
            folder.note(has_result=True)


def _wait_for(file: epath.Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise InputError(
                f"process 0 writes {file}, but this process cannot see it. Choose a --workdir on "
                "a file system that all processes share, or in a bucket (gs://...)."
            )
        time.sleep(0.5)


def _refuse_another_in_time(path: epath.Path, config: ConfigDict, scientific: Scientific) -> None:
    """`refuse_another`, but first waits a little if process 0 may be about to replace the config.

    Process 0 does that if the previous run was killed before its first result.
    """
    deadline = time.monotonic() + REPLACE_SECONDS
    while has_begun(path) and time.monotonic() < deadline:
        with contextlib.suppress(InputError):
            return refuse_another(path / "config.json", config, scientific)
        time.sleep(0.1)
    refuse_another(path / "config.json", config, scientific)


def _is_run(folder: Folder) -> bool:
    """Whether the folder holds a run. One that was killed before its first result is none."""
    return (folder.path / "config.json").exists() and not folder.is_abandoned


def _keep_config(folder: Folder, config: ConfigDict, scientific: Scientific) -> None:
    """Writes config.json, unless it is there. Raises InputError if it is that of another run."""
    if _is_run(folder):
        refuse_another(folder.path / "config.json", config, scientific)
        return
    # A run that was killed before its first result leaves the folder to any other.
    _write_config(folder.path, config)
    folder.clear()


def _write_config(path: epath.Path, config: ConfigDict) -> None:
    _write_atomically(path / "config.json", config.to_json(indent=2) + "\n")


def _require_last_checkpoint(path: epath.Path, config: ConfigDict) -> None:
    """Raises InputError if a finished run has no checkpoint of its last step."""
    result = read_result(path)
    if result is not None and not (path / "checkpoints" / str(result["steps"])).is_dir():
        raise InputError(
            f"{path} holds a finished run of {result['epochs']} epochs without the checkpoint of "
            f"its last step, so it cannot go on to config.max_epochs={config.max_epochs}. Choose "
            "another --workdir."
        )


def refuse_another(file: epath.Path, config: ConfigDict, scientific: Scientific) -> None:
    """Raises InputError, with the differences, unless the config in `file` computes the same."""
    there = read_config(file)
    old, new = flat(there), flat(config)
    fields = sorted(scientific(there).keys() | scientific(config).keys())
    # In a config from before a version was recorded, nobody knows it.
    fields = [field for field in fields if old.get(field) or field not in own_code.PLACES]
    changed = [
        f"{field}: {old.get(field)!r} there, {new.get(field)!r} now"
        for field in fields
        if old.get(field) != new.get(field)
    ]
    for field, place in own_code.PLACES.items():
        if field in fields and old[field] != new.get(field):
            changed.append(f"so the {place.what} has changed since")
    if changed:
        raise InputError(
            f"{file.parent} holds a run of another config ({'; '.join(changed)}). "
            "Choose another --workdir, or remove that one."
        )


def read_config(file: epath.Path) -> ConfigDict:
    """The config in a run's config.json. Raises DamagedFile if it is not that of a run."""
    remedy = "Remove the folder, or choose another --workdir."
    there = read_object(file, remedy)
    if not isinstance(there.get("row"), str) or type(there.get("seed")) is not int:
        raise DamagedFile(f"{file} is damaged: it has no row or no seed. {remedy}")
    if not isinstance(there.get("kind", ""), str):
        raise DamagedFile(f"{file} is damaged: kind is not a text. {remedy}")
    try:
        return ConfigDict(there)
    except Exception as error:  # names that a ConfigDict cannot have
        raise DamagedFile(f"{file} is damaged: {error}. {remedy}") from None


def _write_atomically(file: epath.Path, text: str) -> None:
    if not is_local(file):
        file.write_text(text)
        return
    partial = file.with_name(file.name + ".partial")
    with open(partial, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)
