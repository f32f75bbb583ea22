"""Writes a report of runs: tables, figures and a web page.

    python -m rethinking.report --runs=DIR[,DIR...] --output=DIR [--watch]

It reads all run directories under the folders --runs. It marks missing, diverged and unfinished
runs. It prints the tables, and writes the page OUTPUT/index.html.
"""

import contextlib
import functools
import itertools

from absl import app, flags

from rethinking import cli, report
from rethinking.cli import flag_types
from rethinking.errors import InputError

_RUNS = flag_types.define_paths("runs", None, "Folders with run directories at any depth.")
_OUTPUT = flag_types.define_path("output", None, "The folder for the report; made if missing.")
_WATCH = flags.DEFINE_boolean(
    "watch", False, "Make the report again whenever run directories change, until Ctrl-C."
)


def main(_) -> None:
    """Makes the report that the flags describe, and prints its findings and tables."""
    cli.log_to_terminal()
    reports = report.watch(_RUNS.value, _OUTPUT.value)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            for text in reports if _WATCH.value else itertools.islice(reports, 1):
                print(f"{text}\nThe page is {_OUTPUT.value}/index.html", flush=True)
    except InputError as error:
        cli.fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("runs", "output")))
