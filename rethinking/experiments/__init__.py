"""The kinds of experiments, and running one: from a checked config to a finished run directory.

Each kind is a module with

    FIELDS                                 field path -> `rethinking.config.Field`
    check(config)                          raises InputError for values that do not go together
    run(config, run_directory, deadline)   the fields of result.json, or None if it had to stop

Importing this package does not import JAX: each `run` does that.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from rethinking import config as _config
from rethinking import own_code, provenance, runs
from rethinking.data import source
from rethinking.errors import require, require_known
from rethinking.experiments import complexity, expressivity, kernels, linear, training
from rethinking.experiments.inspection import NOTHING, Inspection
from rethinking.runs.disk import explain_disk_errors

_LOG = logging.getLogger(__name__)

# The modules that `config.kind` chooses from.
KINDS = {
    "training": training,
    "expressivity": expressivity,
    "kernels": kernels,
    "complexity": complexity,
    "linear": linear,
}
# The fields that change where or how fast a run computes, but not its results.
UNSCIENTIFIC = {
    path for kind in KINDS.values() for path, field in kind.FIELDS.items() if not field.scientific
}
# The fields in which the repetitions of one experiment differ.
SEEDS = ("seed", "randomize.seed")


def defaults(kind: str) -> ConfigDict:
    """The default config of a kind of experiment. Raises InputError for an unknown kind."""
    require_known(kind, KINDS, "unknown kind of experiment")
    return _config.defaults(KINDS[kind].FIELDS)


def check(config: ConfigDict) -> None:
    """Raises InputError for values that no run can have. Data are checked where they are read."""
    _config.COMMON["kind"].check("kind", config.get("kind"))
    require_known(config.kind, KINDS, "config.kind: unknown kind")
    from rethinking.experiments import data_set  # here: a program that only lists rows has no data

    kind = KINDS[config.kind]
    _config.check_fields(config, kind.FIELDS)
    kind.check(config)
    data_set.check(config)


def run(
    config: ConfigDict,
    workdir: str | os.PathLike,
    deadline: float = math.inf,
    writes: bool = True,
    inspection: Inspection = NOTHING,
) -> dict[str, Any] | None:
    """Runs the experiment of `config` in `workdir`; returns the contents of result.json.

    Returns None if `deadline` (of time.monotonic()) came first, or SIGTERM, which training runs and
    solves notice. What is done is saved, and the same call continues. A call with a larger
    `max_epochs` continues a finished run: see `lengthens`.
    After a noticed SIGTERM, further calls return None, too, so that the program can end.
    Of several processes that make one run, only one `writes` to `workdir`, which all of them see.
    `inspection` is for networks that train.
    Raises InputError for anything that cannot work, before any time is spent. During the run, it
    raises InputError for a full disk, a damaged file and a folder that is removed.
    """
    check(config)
    require(
        inspection == NOTHING or config.kind == "training",
        f"--profile and --debug_nans are for training, but the row's kind is {config.kind}. Leave "
        "them out.",
    )
    config = with_source(config, own_code.loaded_digest)
    with (
        explain_disk_errors(workdir),
        runs.open_run(workdir, config, scientific, writes, lengthens) as run_directory,
    ):
        result = run_directory.result
        if result is not None:
            _LOG.info("%s is finished already.", workdir)
            problem = runs.check_metrics(workdir, result)
            if problem is not None:
                _LOG.warning("%s. result.json is intact.", problem)
            return result
        from rethinking import sharding  # here: JAX imports slowly, and a typo should fail fast

        sharding.use_compilation_cache(with_scopes=inspection.profile > 0)
        more = () if inspection == NOTHING else (inspection,)
        measured = KINDS[config.kind].run(config, run_directory, deadline, *more)
        if measured is None:
            return None
        return run_directory.finish(run_directory.sealed(_provenance(config) | measured))


def with_source(config: ConfigDict, digest: Callable[[str], str] = own_code.digest) -> ConfigDict:
    """A copy of `config` with the present versions of the user's own code and data.

    `own_code.PLACES` has the fields, `digest` gives the version of code, and `data.source.version`
    that of files. Raises InputError if the config asks for another version.
    """
    config = config.copy_and_resolve_references()
    for field, place in own_code.PLACES.items():
        *group, key = field.split(".")
        holder = config.get(group[0], {}) if group else config
        if key not in holder:  # this kind of experiment has no such code
            continue
        name = _config.get(config, place.field)
        now = digest(name)
        if field == "data.source":
            now = now or source.version(name)
        own_code.require_current(field, name, holder[key], now)
        holder[key] = now
    return config


def _provenance(config: ConfigDict) -> dict[str, Any]:
    """The fields of result.json that every experiment has: what was run, and where."""
    import jax

    from rethinking.experiments import devices

    return {
        "experiment": config.experiment,
        "row": config.row,
        "seed": config.seed,
        "device": provenance.device_name(),
        "num_devices": devices.count(config),
        "devices": devices.names(config),
        "jax": jax.__version__,
        **provenance.numerics(),
        "revision": provenance.revision(),
        "network_source": config.get("model", {}).get("source") or None,
        "optimizer_source": config.get("optimizer_source") or None,
        "data_source": config.data.get("source") or None,
        "config_digest": digest(config),
    }


def scientific(config: ConfigDict | dict) -> dict[str, Any]:
    """The fields that decide what a run computes and differ from their defaults: path -> value.

    Defaults are left out. So a new field that is off by default does not change the digests of old
    runs. The meaning of a default must therefore never change.
    """
    kind = KINDS.get(config.get("kind"), training)
    # "training" for every kind: two kinds with nothing but defaults must differ in this field.
    plain = {path: field.default for path, field in kind.FIELDS.items()} | {"kind": "training"}
    fields = {}
    for path, value in _config.flat(config).items():
        is_default = path in plain and value == plain[path]
        if path not in UNSCIENTIFIC and not is_default:
            fields[path] = value
    # Without corruption, its seed has no effect.
    if kind is training and {"randomize.labels", "randomize.pixels"}.isdisjoint(fields):
        fields.pop("randomize.seed", None)
    return fields


def lengthens(there: ConfigDict | dict, config: ConfigDict) -> bool:
    """Whether `config` is that of the run `there` with more epochs at its end, and no other change.

    This is so for networks that train, unless a cosine schedule or an optimizer of the user's own
    depends on the number of epochs.
    """
    old, new = scientific(there), scientific(config)
    last = training.FIELDS["max_epochs"].default
    before, now = (fields.pop("max_epochs", last) for fields in (old, new))
    return old == new and now > before and config.kind == "training" and training.can_grow(config)


def digest(config: ConfigDict | dict) -> str:
    """Twelve hex digits, equal if and only if two configs describe the same experiment.

    Seeds do not count.
    """
    fields = {path: value for path, value in scientific(config).items() if path not in SEEDS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
