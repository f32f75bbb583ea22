"""Parts that the commands share: configs from the command line, flags, messages on the terminal."""

import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from rethinking import experiments
from rethinking.config import load_file, require_field
from rethinking.errors import InputError

# The errors that absl and ml_collections raise when a row, a field or a value is wrong.
_BAD_CONFIG = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)


def parse_config(arguments: Sequence[str]) -> ConfigDict:
    """Returns the config that `--config=FILE:ROW --config.field=value ...` describes.

    Raises InputError for an unknown file, row or field, and names the nearest known one.
    Raises InputError for a value of the wrong type, too.
    """
    overrides, rest = split_overrides(arguments)
    for argument in rest:
        if argument.startswith("--config="):
            _require_row(argument.removeprefix("--config="))
    try:
        plain = _parse(rest)
        for override in overrides:
            flag = override.lstrip("-").partition("=")[0]
            require_field(flag.partition(".")[2], plain)
        return _parse(arguments)
    except KeyError as error:
        raise InputError(str(error.args[0])) from error
    except _BAD_CONFIG as error:
        raise InputError(str(error)) from error


def _require_row(file_and_row: str) -> None:
    """Raises InputError unless the file exists and has the row.

    ml_collections would show the same reason, but as a traceback.
    """
    file, _, row = file_and_row.partition(":")
    module = load_file(file)
    if row:
        module.get_config(row)


def _parse(arguments: Sequence[str]) -> ConfigDict:
    values = flags.FlagValues()
    command = ["", *arguments]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    values(command)
    return holder.value


def log_to_terminal(level: int = logging.INFO) -> None:
    """Shows the log of this package on stderr, without prefixes. Other libraries show warnings."""
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


def parse_flags(argv: Sequence[str], required: Sequence[str]) -> list[str]:
    """Parses absl's flags and returns the overrides.

    Ends the program for an unknown flag, a value of the wrong type, or a missing required flag.
    """
    overrides, rest = split_overrides(argv)
    try:
        unknown = flags.FLAGS(rest)[1:]
    except flags.Error as error:
        fail(error)
    if unknown:
        fail(f"unknown arguments: {' '.join(unknown)}. See --help.")
    missing = [f"--{name}" for name in required if flags.FLAGS[name].value is None]
    if missing:
        fail(f"needed: {', '.join(missing)}. See --help.")
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


def check_run(arguments: Sequence[str]) -> tuple[ConfigDict, str]:
    """Returns the config and the workdir that these arguments of rethinking.main give.

    Raises InputError if rethinking.main would refuse them.
    """
    overrides, rest = split_overrides(arguments)
    given = {}
    for argument in rest:
        if argument.startswith(("--config=", "--workdir=")):
            flag, _, value = argument.partition("=")
            given[flag] = value
    if len(given) < 2:
        raise InputError(
            "needed: -- --config=FILE:ROW --workdir=DIR. Put the arguments of rethinking.main "
            "after --."
        )
    config = parse_config([f"--config={given['--config']}", *overrides])
    experiments.check(config)
    return config, given["--workdir"]
