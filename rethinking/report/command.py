"""The command that makes a run, from its config and the row of configs/ that it bears the name of."""

import shlex
from typing import Any

from rethinking import config as fields
from rethinking import experiments
from rethinking.report import catalog
from rethinking.report.collect import Run


def command(run: Run) -> str:
    """A line for a shell, which makes `run` in its own directory, or says there that it is finished.

    What its row does not say is overridden. A run whose row is not in configs/ has all its settings listed.
    """
    experiment, _, row = run.row.partition(":")
    fields = {field: value for field, value in run.settings.items() if field in experiments.SEEDS} | overrides(run)
    default = {field: 0 for field in experiments.SEEDS}
    options = [f"--config.{field}={value}" for field, value in fields.items() if value != default.get(field)]
    return shlex.join(["python", "-m", "rethinking.main", f"--config=configs/{experiment}.py:{row}",
                       f"--workdir={run.path.as_posix()}", *options])


def overrides(run: Run, row: str | None = None) -> dict[str, Any]:
    """The scientific settings, seeds aside, in which `run` differs from `row` ("table1:mlp_1x512"; None: its own) of
    configs/, or, without such a row, from the defaults of its kind."""
    base = catalog.settings(*(row or run.row).split(":", 1))
    if base is None:
        base = fields.flat(experiments.defaults(run.kind))
    skipped = {*experiments.UNSCIENTIFIC, *experiments.SEEDS}
    return {field: value for field, value in run.settings.items()
            if field not in skipped and not (field in base and base[field] == value)}
