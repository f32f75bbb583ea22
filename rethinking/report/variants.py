"""Runs apart by their settings, as rows of tables and lines of figures: a mean is never over different ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from rethinking import config as fields
from rethinking import experiments
from rethinking.report import catalog
from rethinking.report.collect import Run, number
from rethinking.report.columns import Row
from rethinking.report.command import overrides
from rethinking.report.curves import grouped
from rethinking.report.differences import differing, discrepancies, listed, seeds_by

# The settings that say how large a linear system is, in words.
SIZES = {"features.num_filters": "filters", "data.num_train": "images"}


def split(experiment: str, name: str, runs: Sequence[Run], published: bool = False) -> list[Row]:
    """`runs`, those of the row `name` of an experiment, as one or more rows.

    Where they differ from each other in a setting, those that have another value than the row in configs/ has stand
    apart, named "NAME, weight_decay=0.004". What else they have that the row there has not is said in a footnote, or,
    if it would stand beside `published` numbers, in the name as well.
    """
    others = {run.path: overrides(run, f"{experiment}:{name}") for run in runs}
    known = catalog.settings(experiment, name) is not None
    varied = {*differing(runs)}.union(*others.values() if known and published else ())

    def apart(run: Run) -> dict[str, Any]:
        return {field: value for field, value in others[run.path].items() if field in varied}

    def ascending(run: Run) -> list[tuple[str, float, str]]:
        return [(field, number(value) or 0.0, str(value)) for field, value in apart(run).items()]

    def named(run: Run) -> str:
        return ", ".join([name, *(_words(field, value) for field, value in apart(run).items())])

    rest = {path: ", ".join(f"{field}={value}" for field, value in fields.items() if known and field not in varied)
            for path, fields in others.items()}
    return [Row(name, group, _notes(group, rest))
            for name, group in grouped(sorted(runs, key=ascending), named).items()]


def apart(groups: Mapping[str, Sequence[Run]], ignored: Sequence[str] = ()) -> dict[str, list[Run]]:
    """Named groups of runs, each as one or more: where runs of a group differ from each other in a setting, seeds and
    `ignored` aside, as "NAME, batch_size=64" and "NAME, batch_size=128"."""
    found = {}
    for name, runs in groups.items():
        varied = differing(runs, ignored)

        def named(run: Run, name: str = name, varied: Mapping = varied) -> str:
            settings = fields.flat(experiments.defaults(run.kind)) | run.settings
            return ", ".join([name, *(_words(field, settings.get(field)) for field in varied)])

        found |= grouped(runs, named) or {name: []}
    return found


def _words(field: str, value: Any) -> str:
    return f"{value:,} {SIZES[field]}" if field in SIZES and number(value) else f"{field}={value}"


def _notes(runs: Sequence[Run], rest: dict) -> list[str]:
    found = seeds_by([run for run in runs if rest[run.path]], lambda run: rest[run.path])
    return discrepancies(runs) + [f"Not the row's own settings: {listed(found)}."] * bool(found)
