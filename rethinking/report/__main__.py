"""The command `python -m rethinking.report --runs=DIR[,DIR...] --output=DIR`; see `rethinking.report.build`."""

import functools

from absl import app, flags

from rethinking import cli, report
from rethinking.config import ConfigError

_RUNS = flags.DEFINE_list("runs", None, "Folders in which to look for run directories, at any depth.")
_OUTPUT = flags.DEFINE_string("output", None, "The folder for the report, made if it is not there.")


def main(_) -> None:
    """Makes the report that the flags describe, and prints its tables."""
    try:
        print(report.build(_RUNS.value, _OUTPUT.value))
    except ConfigError as error:
        cli.fail(error)
    print(f"The page is {_OUTPUT.value}/index.html")


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("runs", "output")))
