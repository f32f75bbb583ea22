"""The run directory: everything that the run of one config writes.

    config.json     the resolved config
    metrics.jsonl   one line per evaluation
    result.json     written once, when the run ends
    checkpoints/    see rethinking.experiments.checkpoint

It is a local folder, or it lies in a bucket: gs://BUCKET/FOLDER. A local folder has a lock, so that
two processes never write to it at once. A bucket has no locks. Files appear whole or not at all.
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rethinking import provenance
from rethinking.config import flat
from rethinking.errors import InputError

_LOG = logging.getLogger(__name__)
# How long processes that read wait for the one that writes. File systems of clusters may show a
# file late.
WAIT_SECONDS = 120.0
# From a config to the fields that decide what it computes: `rethinking.experiments.scientific`.
Scientific = Callable[[ConfigDict], dict[str, Any]]


class RunDirectory:
    """One run's folder, held under a lock. `open_run` makes it.

    If several processes share a run, one of them `writes`. The others keep the same `metrics` and
    change no file.
    """

    def __init__(self, path: epath.Path, writes: bool = True):
        self.path, self.writes = path, writes
        self.metrics: list[dict[str, Any]] = read_lines(path / "metrics.jsonl")

    @property
    def result(self) -> dict[str, Any] | None:
        """The contents of result.json; None while the run is unfinished."""
        return read_result(self.path)

    def keep_metrics(self, step: int | None = None) -> None:
        """Drops the lines after `step`: a restart from its checkpoint measures them again.

        None keeps all whole lines. A last line that was cut short is dropped in any case.
        """
        if step is not None:
            self.metrics = [line for line in self.metrics if line["step"] <= step]
        self._write_metrics()

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl, which is on disk when this returns.

        Numbers that JSON does not have (nan, inf) become null.
        """
        self.metrics.append(_finite(line))
        if not _is_local(self.path):
            self._write_metrics()  # a file in a bucket can be replaced, but not extended
        elif self.writes:
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(json.dumps(self.metrics[-1]) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Writes result.json and returns its contents."""
        result = _finite(result)
        if self.writes:
            _write_atomically(self.path / "result.json", json.dumps(result, indent=2) + "\n")
        return result

    def _write_metrics(self) -> None:
        if self.writes:
            text = "".join(json.dumps(line) + "\n" for line in self.metrics)
            _write_atomically(self.path / "metrics.jsonl", text)


def read_result(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The contents of a run directory's result.json; None if it has none."""
    try:
        return json.loads((epath.Path(workdir) / "result.json").read_text())
    except FileNotFoundError:
        return None


def read_lines(file: epath.Path | pathlib.Path) -> list[dict[str, Any]]:
    """The objects in a file's lines, up to the first damaged line.

    A killed process may leave its last line half written.
    """
    texts = file.read_bytes().decode("utf-8", "replace").splitlines() if file.exists() else []
    try:
        # In one call, because then all lines share the memory of their keys.
        lines = json.loads(f"[{','.join(texts)}]")
    except ValueError:
        lines = []
        with contextlib.suppress(ValueError):
            for text in texts:
                lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]


@contextlib.contextmanager
def open_run(
    workdir: str | os.PathLike, config: ConfigDict, scientific: Scientific, writes: bool = True
) -> Iterator[RunDirectory]:
    """Gives the run directory of `config`, new or to be continued.

    With `writes=False` it waits until another process has made it. `scientific` is
    `rethinking.experiments.scientific`. Raises InputError if the folder cannot be written, if
    another process uses it, or if it holds anything else.
    """
    path = epath.Path(workdir)
    provenance.revision()  # now, because the code may change during the run
    with contextlib.ExitStack() as held:
        if writes:
            held.enter_context(_make_folder(path))
        else:
            _wait_for(path / "config.json")
        made = _keep_config(path / "config.json", config, scientific)
        try:
            yield RunDirectory(path, writes)
        except InputError:
            # Nothing was computed yet: leave the folder free for the corrected command.
            if writes and made and _only_config(path):
                (path / "config.json").unlink()
            raise


def _make_folder(path: epath.Path) -> contextlib.AbstractContextManager:
    """The lock of the folder, which is made if necessary. InputError if it holds something else."""
    try:
        is_run = (path / "config.json").exists()
        if path.is_dir() and any(path.iterdir()) and not is_run and not _only_lock(path):
            raise InputError(
                f"--workdir={path} is neither empty nor a run directory (no config.json). "
                "Choose another."
            )
        path.mkdir(parents=True, exist_ok=True)
        if not _is_local(path):
            return contextlib.nullcontext()
        lock = open(path / ".lock", "w")  # noqa: SIM115  held open as long as the run
    except ImportError as error:  # the package that reads buckets
        raise InputError(
            f"--workdir={path}: {error}. Install the extra `gcs`: pip install -e '.[gcs]'"
        ) from None
    except OSError as error:
        raise InputError(
            f"--workdir={path} cannot be written: {error.strerror or error}. Choose another."
        ) from None
    try:
        # The operating system frees the lock when the process ends, also when it is killed.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InputError(
            f"--workdir={path} is in use by another process. Wait, or choose another."
        ) from None
    except OSError as error:
        _LOG.warning(
            "--workdir=%s is on a file system without locks (%s). Take care that no other process "
            "uses it.",
            path,
            error.strerror,
        )
    return lock


def _wait_for(file: epath.Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise InputError(
                f"process 0 writes {file}, but this process cannot see it. Choose a --workdir on "
                "a file system that all processes share, or in a bucket (gs://...)."
            )
        time.sleep(0.5)


def _is_local(path: epath.Path) -> bool:
    return "://" not in os.fspath(path)


def _only_lock(path: epath.Path) -> bool:
    # A process that is killed before it has written config.json leaves only these files.
    return all(child.name in (".lock", "config.json.partial") for child in path.iterdir())


def _only_config(path: epath.Path) -> bool:
    return all(child.name in (".lock", "config.json") for child in path.iterdir())


def _keep_config(file: epath.Path, config: ConfigDict, scientific: Scientific) -> bool:
    """Whether it wrote config.json. Raises InputError if another config is there already."""
    if not file.exists():
        _write_atomically(file, config.to_json(indent=2) + "\n")
        return True
    refuse_another(file, config, scientific)
    return False


def refuse_another(file: epath.Path, config: ConfigDict, scientific: Scientific) -> None:
    """Raises InputError, with the differences, unless the config in `file` computes the same."""
    try:
        there = ConfigDict(json.loads(file.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(
            f"{file} is not JSON. Remove the folder, or choose another --workdir."
        ) from None
    old, new = flat(there), flat(config)
    fields = sorted(scientific(there).keys() | scientific(config).keys())
    if "model.source" not in old:  # from before this field existed: nobody knows
        fields = [field for field in fields if field != "model.source"]
    changed = [
        f"{field}: {old.get(field)!r} there, {new.get(field)!r} now"
        for field in fields
        if old.get(field) != new.get(field)
    ]
    if "model.source" in fields and old["model.source"] != new.get("model.source"):
        changed.append("so the code of the network has changed since")
    if changed:
        raise InputError(
            f"{file.parent} holds a run of another config ({'; '.join(changed)}). "
            "Choose another --workdir, or remove that one."
        )


def _write_atomically(file: epath.Path, text: str) -> None:
    if not _is_local(file):
        file.write_text(text)
        return
    partial = file.with_name(file.name + ".partial")
    with open(partial, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def _finite(value: Any) -> Any:
    """`value` with None in place of nan and inf, at any depth."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
