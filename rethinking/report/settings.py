"""What sets runs apart: their settings, revisions and devices; and the command that makes a run.

Runs with different settings are never averaged. They become rows and lines of their own.
"""

import functools
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rethinking import experiments, own_code, rows
from rethinking.config import flat
from rethinking.report.collect import grouped, row_settings
from rethinking.report.run import Run, number

_SKIPPED = {*experiments.UNSCIENTIFIC, *experiments.SEEDS}
# The settings that say how long a run trains, and how it is evaluated on the way.
_LENGTH = {"max_epochs", "eval_epochs", "eval.num_train"}
# The settings that say how large a linear system is, in words.
SIZES = {"features.num_filters": "filters", "data.num_train": "examples"}


def command(run: Run) -> str:
    """The shell command that makes `run` in its own directory.

    It sets every field in which the run differs from its row. A run without a known row begins with
    a row of the same kind: its own config file may lie anywhere.
    """
    own_settings = row_settings(*run.row.split(":", 1))
    is_known = own_settings is not None and own_settings["kind"] == run.kind
    row = run.row if is_known else _first_row(run.kind)
    options = []
    for field in experiments.SEEDS:
        if run.settings.get(field):
            options.append(f"--config.{field}={run.settings[field]}")
    changed = _fields(run.kind, _all_settings(run))
    there = _fields(run.kind, row_settings(*row.split(":", 1)))
    names = {} if is_known else {"experiment": run.experiment, "row": run.row}
    for field, value in {**names, **changed}.items():
        if field in names or (field not in _SKIPPED and there[field] != value):
            options.append(f"--config.{field}={value}")
    experiment, _, name = row.partition(":")
    config = f"--config=configs/{experiment}.py:{name}"
    workdir = f"--workdir={run.path.as_posix()}"
    return shlex.join(["python", "-m", "rethinking.main", config, workdir, *options])


@functools.cache
def _first_row(kind: str) -> str:
    """The first row of a kind of experiments."""
    for name, experiment in rows.EXPERIMENTS.items():
        for row in experiment.rows:
            if row_settings(name, row)["kind"] == kind:
                return f"{name}:{row}"
    raise LookupError(kind)


def _fields(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The declared fields of a flat config; a field that is a dictionary has all its settings."""
    found = {}
    for path, field in experiments.KINDS[kind].FIELDS.items():
        found[path] = settings.get(path, field.default)
        if field.type is dict:
            found[path] = _nested(settings, f"{path}.")
    return found


def _nested(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The flat settings below `prefix` as a dictionary."""
    found = {}
    for path, value in settings.items():
        if path.startswith(prefix):
            *groups, name = path.removeprefix(prefix).split(".")
            group = found
            for key in groups:
                group = group.setdefault(key, {})
            group[name] = value
    return found


def overrides(run: Run, row: str | None = None) -> dict[str, Any]:
    """The settings, seeds aside, in which `run` differs from `row` ("table1:mlp_1x512").

    Without `row`, its own row counts; for an unknown row, the defaults of the run's kind.
    """
    base = row_settings(*(row or run.row).split(":", 1))
    if base is None:
        base = _defaults(run.kind)
    own = _all_settings(run)
    found = {}
    for field in [*run.settings, *sorted(base.keys() - run.settings.keys())]:
        if field not in _SKIPPED and own.get(field) != base.get(field):
            found[field] = own.get(field)
    return found


def differing(runs: Sequence[Run], ignored: Sequence[str] = ()) -> dict[str, dict[str, list[int]]]:
    """The settings in which `runs` differ, seeds and `ignored` aside: field -> value -> seeds."""
    settings = {run.path: _all_settings(run) for run in runs}
    fields = {field for values in settings.values() for field in values}
    found = {}
    for field in sorted(fields - {*_SKIPPED, *ignored}):
        values = [values.get(field) for values in settings.values()]
        if all(value == values[0] and type(value) is type(values[0]) for value in values):
            continue
        seeds = seeds_by(runs, lambda run, field=field: json.dumps(settings[run.path].get(field)))
        if len(seeds) > 1:
            found[field] = seeds
    return found


def discrepancies(runs: Sequence[Run]) -> list[str]:
    """Sentences on what sets `runs`, seeds of one row, apart.

    These are revisions, numbers of devices, precisions and configs.
    """
    sentences = []
    revisions = seeds_by([run for run in runs if run.result], lambda run: run.revision)
    if len(revisions) > 1:
        sentences.append(f"Made with different revisions of the code: {listed(revisions)}.")
    trained = [run for run in runs if run.kind == "training" and run.value("num_devices")]
    devices = seeds_by(trained, lambda run: f"{run.value('num_devices'):.0f}")
    if len(devices) > 1:
        sentences.append(
            "Made on different numbers of devices, on which batch norm and dropout depend: "
            f"{listed(devices)}."
        )
    # The other kinds of experiments always multiply with full precision.
    multiplied = [run for run in runs if run.kind in ("training", "complexity") and run.products]
    precisions = seeds_by(multiplied, lambda run: run.products)
    if len(precisions) > 1:
        sentences.append(
            f"Made with different precisions of products of float32 numbers: {listed(precisions)}."
        )
    digests = seeds_by(runs, lambda run: run.digest)
    if len(digests) > 1:
        fields = "; ".join(f"{field} {listed(seeds)}" for field, seeds in differing(runs).items())
        sentences.append(f"Made with different configs: {fields or listed(digests)}.")
    return sentences


def divided_batches(runs: Sequence[Run]) -> list[str]:
    """A sentence on the runs whose batch norm saw a part of each batch, if there are any."""
    trained = [run for run in runs if run.kind == "training" and run.result]
    found = seeds_by(trained, _divided)
    found.pop("", None)
    return [f"{listed(found)}."] if found else []


def _divided(run: Run) -> str:
    """That a run's batch norm saw a part of each batch, in words; "" if it saw whole batches."""
    batch_size, devices = number(run.settings.get("batch_size")), run.value("num_devices")
    subject, seen = "Batch norm averages", run.value("batch_norm_examples")
    if "batch_norm_examples" not in run.result and not run.settings.get("model.sync_batch_norm"):
        # An older run does not say whether its network has batch norm.
        subject = "Batch norm, if the network has it, averages"
        seen = (batch_size or 0) // (devices or 1)
    if not (seen and batch_size and devices) or seen >= batch_size:
        return ""
    return (
        f"{subject} over {seen:,.0f} of the {batch_size:,.0f} examples of a batch, because "
        f"{devices:.0f} devices share it"
    )


def split(
    experiment: str, name: str, runs: Sequence[Run], published: bool = False
) -> dict[str, tuple[list[Run], list[str]]]:
    """The runs of one row as one or more rows: name -> runs, footnotes.

    Runs that differ from each other and from the row's config stand apart, named "NAME,
    weight_decay=0.004". A footnote lists the other settings that differ from the row's config.
    Beside `published` numbers these settings are part of the name too.
    """
    others = {run.path: overrides(run, f"{experiment}:{name}") for run in runs}
    known = row_settings(experiment, name) is not None
    varied = {*differing(runs)}
    if known and published:
        varied = varied.union(*others.values()) - ({*own_code.PLACES} - varied)

    def apart(run: Run) -> dict[str, Any]:
        return {field: value for field, value in others[run.path].items() if field in varied}

    def ascending(run: Run) -> list[tuple[str, float, str]]:
        return [(field, number(value) or 0.0, str(value)) for field, value in apart(run).items()]

    def title(run: Run) -> str:
        return ", ".join([name, *(_words(*setting) for setting in apart(run).items())])

    def rest(run: Run) -> str:
        fields = others[run.path].items()
        return ", ".join(f"{field}={value}" for field, value in fields if field not in varied)

    found = {}
    for key, group in grouped(sorted(runs, key=ascending), title).items():
        notes = discrepancies(group) + divided_batches(group)
        for field, place in own_code.PLACES.items():
            if field in varied:
                notes.append(f"The {place.what} differs between rows: {field} is a digest of it.")
        own = seeds_by([run for run in group if known and rest(run)], rest)
        if own:
            notes.append(f"Not the row's own settings: {listed(own)}.")
        found[key] = group, notes
    return found


def longest(
    experiment: str, name: str, parts: Mapping[str, tuple[list[Run], list[str]]]
) -> tuple[str, str]:
    """Which of the parts of a row trained as the row does for the most epochs, but too few.

    Also a footnote with its epochs. Both are "" if there is none.
    """
    whole = row_settings(experiment, name).get("max_epochs")
    best, found, note = 0, "", ""
    for part, (runs, _) in parts.items():
        changed = overrides(runs[0], f"{experiment}:{name}")
        epochs = number(changed.get("max_epochs"))
        if whole and epochs and best < epochs < whole and changed.keys() <= _LENGTH:
            best, found = epochs, part
            note = f"After {epochs:.0f} epochs instead of {whole:.0f}."
    return found, note


def apart(groups: Mapping[str, Sequence[Run]], ignored: Sequence[str] = ()) -> dict[str, list[Run]]:
    """Named groups of runs, each as one or more.

    Where runs of a group differ in a setting other than seeds and `ignored`, the group becomes
    "NAME, batch_size=64" and "NAME, batch_size=128".
    """
    found = {}
    for name, runs in groups.items():
        varied = differing(runs, ignored)

        def title(run: Run, name: str = name, varied: Iterable[str] = varied) -> str:
            settings = _all_settings(run)
            return ", ".join([name, *(_words(field, settings.get(field)) for field in varied)])

        found |= grouped(runs, title) or {name: []}
    return found


def seeds_by(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, list[int]]:
    """The seeds of `runs`, grouped by key."""
    return {name: [run.seed for run in group] for name, group in grouped(runs, key).items()}


def listed(groups: Mapping[str, Sequence[int]]) -> str:
    """Groups of seeds in words: "abc (seeds 0, 1), def (seed 2)"."""
    texts = []
    for name, seeds in groups.items():
        word = "seeds" if len(seeds) > 1 else "seed"
        texts.append(f"{name} ({word} {', '.join(map(str, sorted({*seeds})))})")
    return ", ".join(texts)


@functools.cache
def _defaults(kind: str) -> dict[str, Any]:
    return flat(experiments.defaults(kind))


def _all_settings(run: Run) -> dict[str, Any]:
    """A run's settings. A field that is younger than the run has its default."""
    return _defaults(run.kind) | run.settings


def _words(field: str, value: Any) -> str:
    return f"{value:,} {SIZES[field]}" if field in SIZES and number(value) else f"{field}={value}"
