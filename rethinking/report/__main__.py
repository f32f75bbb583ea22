"""The command `python -m rethinking.report --runs=DIR[,DIR...] --output=DIR`; see `rethinking.report.build`."""

import sys
from collections.abc import Sequence

from absl import app, flags

from rethinking import report
from rethinking.config import ConfigError

_RUNS = flags.DEFINE_list("runs", None, "Folders in which to look for run directories, at any depth.")
_OUTPUT = flags.DEFINE_string("output", None, "The folder for the report, made if it is not there.")


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(error)
    if rest[1:] or not _RUNS.value or not _OUTPUT.value:
        _fail(f"unknown arguments: {' '.join(rest[1:])}" if rest[1:] else "needed: --runs, --output (see --help)")
    return rest


def _fail(reason: object) -> None:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


def main(_) -> None:
    """Makes the report that the flags describe, and prints its tables."""
    try:
        print(report.build(_RUNS.value, _OUTPUT.value))
    except ConfigError as error:
        _fail(error)
    print(f"The page is {_OUTPUT.value}/index.html")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
