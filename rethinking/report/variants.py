"""The runs of a row of a table, apart by their settings: a mean is never over different ones."""

from collections.abc import Iterable, Sequence
from typing import Any

from rethinking.report.collect import Run, number
from rethinking.report.columns import Row
from rethinking.report.command import overrides, row_settings
from rethinking.report.curves import grouped
from rethinking.report.differences import differing, discrepancies, listed, seeds_by

# The settings that say how large a linear system is: runs of another size never stand beside the paper's numbers.
SIZES = {"features.num_filters": "filters", "data.num_train": "images"}


def split(experiment: str, name: str, runs: Sequence[Run], always: Iterable[str] = ()) -> list[Row]:
    """`runs`, those of the row `name` of an experiment, as one or more rows.

    Where they differ from each other in a setting, or if it is one of `always`, those that have another value than the
    row in configs/ has stand apart, named "NAME, weight_decay=0.004". What else they have that the row there has not is
    said in a footnote.
    """
    varied = {*differing(runs), *always}
    others = {run.path: overrides(run, f"{experiment}:{name}") for run in runs}

    def apart(run: Run) -> dict[str, Any]:
        return {field: value for field, value in others[run.path].items() if field in varied}

    def ascending(run: Run) -> list[tuple[str, float, str]]:
        return [(field, number(value) or 0.0, str(value)) for field, value in apart(run).items()]

    def named(run: Run) -> str:
        return ", ".join([name, *(_words(field, value) for field, value in apart(run).items())])

    known = row_settings(experiment, name) is not None
    rest = {path: ", ".join(f"{field}={value}" for field, value in fields.items() if known and field not in varied)
            for path, fields in others.items()}
    return [Row(name, group, _notes(group, rest))
            for name, group in grouped(sorted(runs, key=ascending), named).items()]


def _words(field: str, value: Any) -> str:
    return f"{value:,} {SIZES[field]}" if field in SIZES and number(value) else f"{field}={value}"


def _notes(runs: Sequence[Run], rest: dict) -> list[str]:
    found = seeds_by([run for run in runs if rest[run.path]], lambda run: rest[run.path])
    return discrepancies(runs) + [f"Not the row's own settings: {listed(found)}."] * bool(found)
