"""What the commands share: reading configs from the command line, refusing bad input, running an experiment."""

import importlib
import logging
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from rethinking import config as configs
from rethinking import runs
from rethinking.config import ConfigError, load_file

# What `config.kind` names: the module whose run(config, run_directory, deadline) computes it.
EXPERIMENTS = {
    "training": "rethinking.training.loop",
    "kernels": "rethinking.kernels.experiment",
    "expressivity": "rethinking.theory.experiment",
    "complexity": "rethinking.theory.complexity_experiment",
}
_LOG = logging.getLogger(__name__)
BAD_INPUT = (ConfigError, flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)


def parse_config(arguments: Sequence[str]) -> ConfigDict:
    """The config that `--config=FILE:ROW --config.field=value ...` describes.

    Raises ConfigError for an unknown file, row or field, with the nearest known one, and for an ill-typed value.
    """
    for argument in arguments:
        if argument.startswith("--config="):
            load_file(argument.removeprefix("--config=").partition(":")[0])
    overrides, rest = split_overrides(arguments)
    try:
        plain = _parse(rest)
        for override in overrides:
            configs.check_field(override.lstrip("-").partition("=")[0].partition(".")[2], plain)
        return _parse(arguments)
    except BAD_INPUT as error:
        raise ConfigError(str(error.args[0] if isinstance(error, KeyError) else error)) from error


def _parse(arguments: Sequence[str]) -> ConfigDict:
    values = flags.FlagValues()
    command = ["", *arguments]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    values(command)
    return holder.value


def run(
    config: ConfigDict, workdir: str | os.PathLike, deadline: float = math.inf, writes: bool = True
) -> dict[str, Any] | None:
    """Runs the experiment that `config` describes, in `workdir`; returns the contents of result.json.

    Returns None if `deadline` (of time.time()) came first: the run is saved then, and the same call continues it.
    Of several processes that make one run, one `writes` to `workdir`, which all of them see.
    Raises ConfigError for whatever cannot work, before any time is spent.
    """
    configs.check(config)
    with runs.open_run(workdir, config, writes) as run_directory:
        if run_directory.result is not None:
            _LOG.info("%s is finished already.", workdir)
            return run_directory.result
        use_compilation_cache()
        return importlib.import_module(EXPERIMENTS[config.kind]).run(config, run_directory, deadline)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another place.

    There is a folder for each number of cores: XLA divides a CPU program's loops among the cores that the process may
    use, but takes no account of them when it looks a program up (one made for a single core ran 15% slower on two).
    """
    import jax  # here, so that a mistyped flag is answered at once

    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rethinking"
        jax.config.update("jax_compilation_cache_dir", str(cache / f"xla_{runs.usable_cores()}_cores"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def log_to_terminal(level: int = logging.INFO) -> None:
    """Shows what this package logs on stderr, plainly; libraries (Orbax is talkative) show warnings only."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    logger = logging.getLogger("rethinking")
    logger.setLevel(level)
    logger.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]


def fail(reason: object, exit_code: int = 2) -> NoReturn:
    """Ends the program with the reason on stderr; exit code 2 says that the input was bad."""
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(exit_code)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates --config.field=value from the rest of the command line: (overrides, rest)."""
    overrides = [argument for argument in argv if argument.startswith(("--config.", "--noconfig."))]
    return overrides, [argument for argument in argv if argument not in overrides]


def parse_flags(argv: Sequence[str], required: Sequence[str]) -> list[str]:
    """Parses absl's flags and returns the overrides; ends the program for unknown, ill-typed or missing ones."""
    overrides, rest = split_overrides(argv)
    try:
        unknown = flags.FLAGS(rest)[1:]
    except flags.Error as error:
        fail(error)
    if unknown:
        fail(f"unknown arguments: {' '.join(unknown)}")
    missing = [f"--{name}" for name in required if flags.FLAGS[name].value is None]
    if missing:
        fail(f"needed: {', '.join(missing)} (see --help)")
    return overrides


def parse_launcher_flags(argv: Sequence[str], required: Sequence[str] = ()) -> list[str]:
    """Parses the flags before `--` and returns what comes after it, the arguments of rethinking.main, untouched."""
    own, arguments = list(argv), []
    if "--" in own:
        arguments = own[own.index("--") + 1 :]
        own = own[: own.index("--")]
    if overrides := parse_flags(own, required):
        fail(f"{overrides[0]}: the arguments of rethinking.main come after --")
    return arguments


def check_run(arguments: Sequence[str]) -> tuple[ConfigDict, str]:
    """The config and the workdir that arguments of rethinking.main name; raises ConfigError if it would refuse them."""
    overrides, rest = split_overrides(arguments)
    given = dict(argument.split("=", 1) for argument in rest if argument.startswith(("--config=", "--workdir=")))
    if len(given) < 2:
        raise ConfigError("needed: -- --config=FILE:ROW --workdir=DIR, and other arguments of rethinking.main, if any")
    config = parse_config([f"--config={given['--config']}", *overrides])
    configs.check(config)
    return config, given["--workdir"]
