"""What runs that should be alike do not have in common: revisions of the code, numbers of devices, and settings."""

import json
from collections.abc import Callable, Iterable, Sequence

from rethinking import config as fields
from rethinking import experiments
from rethinking.report.collect import Run


def discrepancies(runs: Sequence[Run]) -> list[str]:
    """Sentences on what `runs`, the seeds of one row, do not have in common but should: revision, devices, config."""
    sentences = []
    revisions = seeds_by([run for run in runs if run.result], lambda run: run.revision)
    if len(revisions) > 1:
        sentences.append(f"Made with different revisions of the code: {listed(revisions)}.")
    trained = [run for run in runs if run.kind == "training" and run.value("num_devices")]
    devices = seeds_by(trained, lambda run: f"{run.value('num_devices'):.0f}")
    if len(devices) > 1:
        sentences.append(f"Made on different numbers of devices, which batch norm and dropout depend on: "
                         f"{listed(devices)}.")
    digests = seeds_by(runs, lambda run: run.digest)
    if len(digests) > 1:
        fields = "; ".join(f"{field} {listed(seeds)}" for field, seeds in differing(runs).items())
        sentences.append(f"Made with different configs: {fields or listed(digests)}.")
    return sentences


def differing(runs: Sequence[Run], ignored: Sequence[str] = ()) -> dict[str, dict[str, list[int]]]:
    """The scientific settings in which `runs` differ, seeds and `ignored` aside: field -> value -> seeds."""
    defaults = {kind: fields.flat(experiments.defaults(kind)) for kind in {run.kind for run in runs}}
    settings = {run.path: defaults[run.kind] | run.settings for run in runs}  # some fields are younger than some runs
    skipped = {*experiments.UNSCIENTIFIC, *experiments.SEEDS, *ignored}
    values = {field: seeds_by(runs, lambda run, field=field: json.dumps(settings[run.path].get(field)))
              for field in sorted({field for fields in settings.values() for field in fields} - skipped)}
    return {field: seeds for field, seeds in values.items() if len(seeds) > 1}


def seeds_by(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, list[int]]:
    """The seeds of `runs`, grouped."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(key(run), []).append(run.seed)
    return seeds


def listed(groups: dict[str, list[int]]) -> str:
    """Groups of seeds in words."""
    return ", ".join(f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(set(seeds))))})"
                     for name, seeds in groups.items())
