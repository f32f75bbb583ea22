"""What the runs found: a few sentences, and which networks fit true and random labels."""

from collections.abc import Iterable, Sequence

from rethinking.report import columns, curves, paper
from rethinking.report.collect import Collection, grouped
from rethinking.report.columns import Row, Statistic, row_statistic
from rethinking.report.paper import LABEL_TITLES, DataSet
from rethinking.report.run import Run
from rethinking.report.settings import differing, discrepancies
from rethinking.report.tables import OURS, Table


def table(collection: Collection) -> Table:
    """Train and test accuracy of each network, on true and on random labels, without regularizers.

    Where a network has runs with several settings, the most frequent one counts.
    """
    rows = []
    for data, runs in curves.by_data_set(curves.plain(collection.runs)).items():
        for model, group in curves.by_model(runs).items():
            chosen = _chosen(group)
            if any(run.status == "complete" for run in chosen):
                rows.append(Row(f"{paper.title(model)}, {data}", chosen, _notes(chosen)))
    shown = [columns.NAME]
    for p, name in LABEL_TITLES.items():
        for part in ("train", "test"):
            shown.append(columns.percent(f"{name}: {part}", f"{part}_accuracy", _has_labels(p)))
    title = "Fitting random labels: accuracy in percent"
    legend = (
        f"{OURS} No weight decay, no augmentation. A network fits its labels if "
        "its training accuracy reaches config.fit_accuracy, 0.99 by default."
    )
    return Table("findings", title, [*shown, columns.RUNS], rows, legend)


def sentences(found: Table, collection: Collection) -> list[str]:
    """What `found`, the table of findings, and the other experiments say in words."""
    texts = []
    for data, rows in grouped(found.rows, lambda row: row.runs[0].data).items():
        texts += _fits(data, [row for row in rows if all(_accuracy(row, p) for p in LABEL_TITLES)])
    if not texts:
        texts.append("No network has complete runs on both true and random labels yet.")
    runs = collection.runs
    return texts + _linear(runs) + _solutions(runs) + _construction(runs)


def _has_labels(p: float):
    return lambda run: run.labels == p


def _chosen(runs: Sequence[Run]) -> list[Run]:
    """The runs on true pixels with true or random labels; of several configs, the most frequent."""
    chosen = []
    for p in LABEL_TITLES:
        there = [run for run in runs if run.labels == p and run.pixels == "none"]
        there.sort(key=lambda run: (run.digest, run.seed))
        by_config = grouped(there, lambda run: run.digest)
        chosen += max(by_config.values(), key=_num_complete, default=[])
    return chosen


def _num_complete(runs: Sequence[Run]) -> int:
    return sum(run.status == "complete" for run in runs)


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    for p in LABEL_TITLES:
        notes += discrepancies([run for run in runs if run.labels == p])
    fields = differing(runs, ("randomize.labels",))
    if fields:
        texts = [f"{field} ({' and '.join(values)})" for field, values in fields.items()]
        notes.append(f"True and random labels differ in other settings too: {', '.join(texts)}.")
    return list(dict.fromkeys(notes))


def _accuracy(row: Row, p: float) -> Statistic | None:
    """The row's test accuracy after training on labels corrupted with probability p."""
    return row_statistic(row, "test_accuracy", _has_labels(p))


def _is_fitted(row: Row, p: float) -> bool:
    """Whether every complete run fits its training set."""
    complete = [run for run in row.runs if run.labels == p and run.status == "complete"]
    return all(run.value("fit_step") is not None for run in complete)


def _fits(data: DataSet, rows: Sequence[Row]) -> list[str]:
    """Which networks fit true and random labels, and the range of their test accuracies."""
    words = {
        (True, True): "fit both the true labels and random labels",
        (True, False): "fit the true labels but not random labels",
        (False, True): "fit random labels but not the true labels",
        (False, False): "fit neither the true labels nor random labels",
    }
    texts = []
    for outcome, group in grouped(
        rows, lambda row: (_is_fitted(row, 0.0), _is_fitted(row, 1.0))
    ).items():
        names = _listed(row.name.partition(", ")[0] for row in group)
        ranges = {p: _range([_accuracy(row, p).mean for row in group]) for p in LABEL_TITLES}
        verb = words[outcome]
        if len(group) == 1:
            verb = verb.replace("fit", "fits", 1)
        texts.append(
            f"On {data}, {names} {verb}. Test accuracy is {ranges[0.0]} after training on true "
            f"labels and {ranges[1.0]} after training on random labels."
        )
    return texts


def _linear(runs: Sequence[Run]) -> list[str]:
    """The best linear model that fits its training set, for each data set."""
    exact = [run for run in _exact(runs, "kernels", "test_error") if _on_whole_test_set(run)]
    texts = []
    for name, group in sorted(grouped(exact, lambda run: run.data.name).items()):
        best = min(group, key=lambda run: (run.value("test_error"), str(run.path)))
        size = f" ({best.data.num_train:,} training examples)" if best.data.num_train else ""
        error = f"{100 * best.value('test_error'):.2f}%"
        texts.append(f"{error} on {DataSet(name, 0)}{size}")
    if not texts:
        return []
    return [
        "The best linear models that fit all training labels have a test error of "
        f"{_listed(texts)}."
    ]


def _solutions(runs: Sequence[Run]) -> list[str]:
    """The solution that SGD finds from zero beside others that fit all training labels.

    Of several runs on true labels, the one with the smallest such test error counts.
    """
    found = []
    for run in runs:
        solutions = run.solutions
        exact = _exact([*solutions.values()], "linear", "norm", "test_error")
        exact.sort(key=lambda solution: solution.value("norm"))
        if run.labels == 0 and len(exact) > 1 and exact[0] is solutions.get("minimum_norm"):
            distance = exact[0].value("sgd_distance")
            if distance is not None and distance < 0.001:
                found.append((run.data, [solution.value("test_error") for solution in exact]))
    if not found:
        return []
    data, (first, *others) = min(found, key=lambda pair: pair[1][0])
    return [
        f"On {data}, SGD from zero finds the linear model of minimum norm, with a test error "
        f"of {100 * first:.1f}%. Other linear models that fit all training labels have "
        f"{_listed(f'{100 * other:.1f}%' for other in others)}."
    ]


def _construction(runs: Sequence[Run]) -> list[str]:
    """The largest training set whose random labels Theorem 1's network reproduces."""
    exact = _exact(runs, "expressivity", "num_points", "num_weights")
    exact = [run for run in exact if run.labels == 1 and run.value("depth") == 2]
    if not exact:
        return []
    best = max(exact, key=lambda run: (run.value("num_points"), -run.value("num_weights")))
    points, weights = best.value("num_points"), best.value("num_weights")
    return [
        f"A network built as in Theorem 1 reproduces random labels of {points:,.0f} examples "
        f"without an error. It has {weights:,.0f} weights."
    ]


def _on_whole_test_set(run: Run) -> bool:
    """Whether a run was evaluated on all test examples of its data set."""
    fields = ("data.num_test", "data.test_fraction", "data.eval_split")
    return not any(run.settings.get(field) for field in fields)


def _exact(runs: Sequence[Run], kind: str, *fields: str) -> list[Run]:
    """The complete runs of a kind that fit all training labels and have all `fields`."""
    exact = []
    for run in runs:
        is_exact = run.status == "complete" and run.value("train_error") == 0
        if run.kind == kind and is_exact and all(run.value(field) is not None for field in fields):
            exact.append(run)
    return exact


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _range(values: Sequence[float]) -> str:
    low, high = (f"{100 * value:.1f}%" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
