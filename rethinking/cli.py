"""What the commands share: reading configs from the command line, refusing bad input, running an experiment."""

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

BAD_INPUT = (InputError, flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)


def parse_config(arguments: Sequence[str]) -> ConfigDict:
    """The config that `--config=FILE:ROW --config.field=value ...` describes.

    Raises InputError for an unknown file, row or field, with the nearest known one, and for an ill-typed value.
    """
    overrides, rest = split_overrides(arguments)
    for argument in arguments:
        if argument.startswith("--config="):
            file, _, row = argument.removeprefix("--config=").partition(":")
            module = load_file(file)
            if row:  # here, because ml_collections makes a traceback of the reason
                module.get_config(row)
    try:
        plain = _parse(rest)
        for override in overrides:
            require_field(override.lstrip("-").partition("=")[0].partition(".")[2], plain)
        return _parse(arguments)
    except BAD_INPUT as error:
        raise InputError(str(error.args[0] if isinstance(error, KeyError) else error)) from error


def _parse(arguments: Sequence[str]) -> ConfigDict:
    values = flags.FlagValues()
    command = ["", *arguments]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    values(command)
    return holder.value


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
    """The config and the workdir that arguments of rethinking.main name; raises InputError if it would refuse them."""
    overrides, rest = split_overrides(arguments)
    given = dict(
        argument.split("=", 1)
        for argument in rest
        if argument.startswith(("--config=", "--workdir="))
    )
    if len(given) < 2:
        raise InputError(
            "needed: -- --config=FILE:ROW --workdir=DIR, and other arguments of rethinking.main, if any"
        )
    config = parse_config([f"--config={given['--config']}", *overrides])
    experiments.check(config)
    return config, given["--workdir"]
