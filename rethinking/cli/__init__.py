"""Parts that the commands share: configs from the command line, flags, messages on the terminal."""

import ast
import copy
import logging
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from rethinking import experiments
from rethinking.cli import flag_types
from rethinking.cli.output import outlive_terminal
from rethinking.config import fields, get, load, require_field, with_types
from rethinking.errors import InputError, require

flags.disclaim_key_flags()  # --help lists the flags of `define_run_flags` with the command
# A launcher gives these flags to each process itself.
_PLACE = ("distributed", "coordinator_address", "num_processes", "process_id")


def parse_config(arguments: Sequence[str]) -> ConfigDict:
    """Returns the config that `--config=FILE:ROW --config.field=value ...` describes.

    Raises InputError for an unknown file, row or field, and names the nearest known one.
    Raises InputError for a value of the wrong type, and for a mistake in the file, too.
    """
    overrides, rest = split_overrides(arguments)
    (file_and_row,) = [argument.removeprefix("--config=") for argument in rest]
    config = load(file_and_row)
    if isinstance(config, FrozenConfigDict):
        config = ConfigDict(config)
    config = with_types(config, _fields(config))
    _name(config, *file_and_row.partition(":")[::2])
    for number, override in enumerate(overrides):
        for earlier in overrides[:number]:
            require(
                not earlier.startswith(f"{override.partition('=')[0]}."),
                f"{earlier} has no effect before {override}. Change their order.",
            )
        _apply(override, config)
    return config.lock()


def _name(config: ConfigDict, file: str, row: str) -> None:
    """Names a config after its file and row, unless its file does that."""
    if config.get("experiment") == "":
        experiment, colon, _ = str(config.get("row")).partition(":")
        config.experiment = experiment if colon else pathlib.Path(file).stem
    if config.get("row") == "":
        config.row = f"{config.experiment}:{row or 'default'}"


def _apply(override: str, config: ConfigDict) -> None:
    """Sets the field that --config.field=value names. The value has the type of the old one."""
    path = override.lstrip("-").partition("=")[0].partition(".")[2]
    require_field(path, config)
    require(
        path != "kind",
        f"{override}: the row decides the kind, which is {config.get('kind')!r}. Choose another "
        "row: docs/config_fields.md lists the kinds.",
    )
    field, old = _fields(config).get(path), get(config, path)
    if field is None and isinstance(old, ConfigDict):
        raise InputError(
            f"{_shorten(override)}: {path} is a group of fields. Set its fields one by one, as in "
            f"--config.{path}.{_first(override, old)}"
        )
    command, values = ["", override], flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command)
        values(command)
    except (flags.Error, AttributeError, TypeError, ValueError) as error:
        reason = f"must be of the type of {fields.show(old)}."
        if field is not None:
            reason = f"must be {field.words}, as in --config.{path}={field.shell_example}."
        raise InputError(f"{_shorten(override)}: {reason}") from error


def _fields(config: ConfigDict) -> fields.Fields:
    """The fields of the config's kind; those of training if it has none that is known."""
    kind = config.get("kind")
    known = isinstance(kind, str) and kind in experiments.KINDS
    return experiments.KINDS[kind if known else "training"].FIELDS


def _first(override: str, group: ConfigDict) -> str:
    """FIELD=VALUE: the first setting of --config.group={...}, or else of `group` itself."""
    try:
        given = ast.literal_eval(override.partition("=")[2])
    except (MemoryError, RecursionError, SyntaxError, ValueError):
        given = None
    if not isinstance(given, dict) or not given:
        given = group
    name, value = next(iter(given.items()))
    return f"{name}={value}"


def _shorten(argument: str) -> str:
    return argument if len(argument) <= 100 else f"{argument[:100]}..."


def log_to_terminal(level: int = logging.INFO) -> None:
    """Shows the log of this package on stderr, without prefixes. Other libraries show warnings.

    The program goes on when the terminal is gone: see `outlive_terminal`.
    """
    outlive_terminal()
    absl_logging.set_verbosity(absl_logging.WARNING)
    logger = logging.getLogger("rethinking")
    logger.setLevel(level)
    logger.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]


def fail(reason: object, exit_code: int = 2) -> NoReturn:
    """Prints the reason on stderr and ends the program. Exit code 2 means bad input."""
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(exit_code)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (overrides, rest): the arguments --config.field=value, and all others."""
    overrides: list[str] = []
    rest: list[str] = []
    for argument in argv:
        is_override = argument.startswith(("--config.", "--noconfig."))
        (overrides if is_override else rest).append(argument)
    return overrides, rest


def define_run_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of rethinking.main."""
    flag_types.define_path(
        "config",
        None,
        "configs/FILE.py:ROW. --config.field=value overrides any field.",
        flag_values=values,
    )
    flag_types.define_path(
        "workdir",
        None,
        "The run directory, created if missing. It may be in a bucket: gs://...",
        flag_values=values,
    )
    flag_types.define_seconds(
        "time_budget",
        math.inf,
        "Seconds after which the run is saved and stops.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "profile",
        0,
        "Steps to profile after the first epoch; streamed data: after the first step. 0: none.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "debug_nans",
        False,
        "If a loss is not finite, name the step and the layer. Keeps a copy of the state.",
        flag_values=values,
    )
    define_place_flags(values)


def define_place_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags that say which of several processes this one is."""
    flags.DEFINE_boolean(
        "distributed",
        False,
        "This is one of several processes that make the run.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of process 0. Not needed on Slurm and TPU pods.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes",
        None,
        "Number of processes. Not needed on Slurm and TPU pods.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "process_id",
        None,
        "Number of this process, from 0. Not needed on Slurm and TPU pods.",
        flag_values=values,
    )
    flag_types.define_seconds(
        "rendezvous_timeout",
        300.0,
        "Seconds to wait until all processes have started.",
        most=1e6,
        flag_values=values,
    )


def parse_flags(argv: Sequence[str], required: Sequence[str]) -> list[str]:
    """Parses absl's flags and returns the overrides.

    Ends the program for an unknown flag, a value of the wrong type, or a missing required flag.
    """
    # A terminal that cannot show a character gets its code instead.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return parse_into(argv, flags.FLAGS, required)
    except InputError as error:
        fail(f"{error} See --help.")


def parse_into(argv: Sequence[str], values: flags.FlagValues, required: Sequence[str]) -> list[str]:
    """Parses `argv`, the program's name first, into `values`; returns the overrides.

    Raises InputError for what does not fit.
    """
    for argument, following in zip(argv, (*argv[1:], "--"), strict=True):
        is_override = argument.startswith("--config.")
        if is_override and "=" not in argument and not following.startswith("-"):
            raise InputError(
                f"{argument} {following}: a value comes after =. Write {argument}={following}"
            )
    overrides, rest = split_overrides(argv)
    try:
        unknown = values(rest)[1:]
    except flags.Error as error:
        raise InputError(f"{str(error).rstrip('.')}.") from None
    require(not unknown, f"unknown arguments: {' '.join(unknown)}.")
    missing = [f"--{name}" for name in required if values[name].value is None]
    require(not missing, f"needed: {', '.join(missing)}.")
    return overrides


def parse_launcher_flags(argv: Sequence[str], required: Sequence[str] = ()) -> list[str]:
    """Parses the flags before `--`, and returns the arguments after it unchanged.

    The arguments after `--` are for rethinking.main.
    """
    own, arguments = list(argv), []
    if "--" in own:
        end = own.index("--")
        own, arguments = own[:end], own[end + 1 :]
    overrides = parse_flags(own, required)
    if overrides:
        fail(f"{overrides[0]}: put the arguments of rethinking.main after --")
    return arguments


def check_forwarded(arguments: Sequence[str]) -> tuple[ConfigDict, str]:
    """Returns the config and the workdir that these arguments of rethinking.main give.

    A `~` in the workdir is expanded as on this machine. Raises InputError if rethinking.main would
    refuse the arguments, or if the launcher itself gives one of them.
    """
    values = flags.FlagValues()
    define_run_flags(values)
    for module, known in flags.FLAGS.flags_by_module_dict().items():
        if module == "absl.logging":
            for flag in known:
                values[flag.name] = copy.deepcopy(flag)
    overrides = parse_into(["rethinking.main", *arguments], values, ())
    require(
        values.config is not None and values.workdir is not None,
        "needed: -- --config=FILE:ROW --workdir=DIR. Put the arguments of rethinking.main "
        "after --.",
    )
    for name in _PLACE:
        require(
            not values[name].present,
            f"--{name}: the launcher gives this flag to each process itself. Leave it out.",
        )
    config = parse_config([f"--config={values.config}", *overrides])
    experiments.check(config)
    return config, values.workdir
