"""The tables: our mean, spread and number of runs beside the published numbers."""

import dataclasses
import re
from collections.abc import Container

from rethinking.report import columns, paper
from rethinking.report.catalog import DataSet
from rethinking.report.collect import Collection, Run
from rethinking.report.columns import Cell, Column, Row
from rethinking.report.curves import plain
from rethinking.report.differences import discrepancies
from rethinking.report.variants import apart, split
from rethinking.rows import SETTINGS, TABLE1_MODELS


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; `rethinking.report.formats` and `rethinking.report.page` render it."""

    name: str
    title: str
    columns: list[Column]
    rows: list[Row]
    legend: str

    def cells(self, row: Row) -> list[Cell]:
        """What stands in `row`, one cell per column."""
        return [column.cell(row) for column in self.columns]

    @property
    def notes(self) -> dict[str, int]:
        """The footnotes of all rows, numbered from 1."""
        texts = dict.fromkeys(note for row in self.rows for note in row.notes)
        return {text: number for number, text in enumerate(texts, 1)}

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def missing(self) -> list[str]:
        """The rows without a run."""
        return [row.name for row in self.rows if not row.runs]


def make(collection: Collection) -> list[Table]:
    """Tables 1 to 4, with all their published rows, a table of every other experiment that has runs, one of what the
    networks' bias is worth, and one of runs on shifted test sets, if there are any.

    Runs of Tables 1, 2 and 4 on other data than the paper's have tables of their own, without published numbers.
    """
    kinds = {run.row.partition(":")[0]: run.kind for run in collection.runs}
    shapes = {"training": _accuracies, "kernels": _interpolated, "expressivity": _memorized, "complexity": _complex}
    tables = [_interpolated(collection, name) if name == "table3" else _published(collection, name)
              for name in sorted(paper.TABLES)]
    for name in sorted(kinds):
        if name in paper.DATA:
            others = {run.data for run in collection.runs if run.row.partition(":")[0] == name} - {paper.DATA[name]}
            tables += [_accuracies(collection, name, data) for data in sorted(others)]
        elif name not in paper.TABLES:
            tables.append(shapes[kinds[name]](collection, name))
    return [*tables, _inductive_bias(collection), *_shifts(collection)]


def _published(collection: Collection, experiment: str) -> Table:
    data, published = paper.DATA[experiment], paper.TABLES[experiment]
    rows = []
    for name in dict.fromkeys((*published, *_names(collection, experiment, data))):
        runs = [run for run in collection.of_row(f"{experiment}:{name}") if run.data == data]
        rows += _beside_published(name, published, split(experiment, name, runs, name in published))
    shown = _TOP5 if experiment == "table2" else _TOP1
    legend = f"{_OURS} {columns.DIFFERENCES} "
    legend += _BEST + paper.ALEXNET_2012 if experiment == "table2" else paper.ELSEWHERE
    header = [columns.NAME, *(column for field, label in shown.items()
                              for column in columns.beside_paper(label, field, published, experiment == "table2")),
              columns.RUNS]
    return Table(experiment, paper.TITLES[experiment], header, rows, legend)


def _beside_published(name: str, published: Container[str], found: list[Row]) -> list[Row]:
    """The rows found for a name, after a missing one where a published row has no run with its own settings."""
    return [Row(name, [], [])] * (name in published and name not in {row.name for row in found}) + found


def _accuracies(collection: Collection, experiment: str, data: DataSet | None = None) -> Table:
    rows = _rows(collection, experiment, data)
    shown = _TOP5 if experiment == "table2" else _TOP1
    header = [columns.NAME, *(columns.percent(label, field, best_too=experiment == "table2")
                              for field, label in shown.items()),
              columns.EPOCHS_TO_FIT, columns.RUNS]
    title = paper.TITLES.get(experiment, f"{experiment}: accuracy in percent")
    if data:
        title = f"{experiment.capitalize()}'s rows on {data}: accuracy in percent"
    name = experiment if data is None else f"{experiment}_{data.name}" + f"_{data.num_train}" * (data.num_train > 0)
    return Table(name, title, header, rows, _OURS + (" " + _BEST if experiment == "table2" else ""))


def _interpolated(collection: Collection, experiment: str) -> Table:
    published = paper.TABLES["table3"] if experiment == "table3" else {}
    rows = []
    for name in dict.fromkeys((*published, *_names(collection, experiment))):
        found = split(experiment, name, collection.of_row(f"{experiment}:{name}"), published=name in published)
        rows += _beside_published(name, published, found)
    header = [
        columns.NAME, *columns.beside_paper("test error", "test_error", published),
        columns.percent("train error", "train_error"), columns.number("norm, ours", "norm", ".4g"),
        *([columns.published("norm, paper", "norm", published)] if published else []),
        columns.number("ridge", "ridge", ".0e"), columns.number("residual", "residual", ".0e"),
        columns.number("n", "num_examples", ",.0f"), columns.number("seconds", "seconds", ".0f"), columns.RUNS,
    ]  # fmt: skip
    title = paper.TITLES.get(experiment, f"{experiment}: linear models that interpolate")
    legend = (f"{_OURS} {columns.DIFFERENCES} Norm: of the function in its kernel's space. Residual: of the linear "
              "system, relative. Ridge: in units of the mean of the matrix's diagonal.")
    return Table(experiment, title, header, rows, legend)


def _memorized(collection: Collection, experiment: str) -> Table:
    sizes = {"num_points": "points", "num_weights": "weights", "depth": "depth", "width": "width"}
    header = [
        columns.NAME, *(columns.number(label, field, ",.0f") for field, label in sizes.items()),
        columns.percent("error, float64", "train_error"), columns.number("largest residual", "max_residual", ".1e"),
        columns.percent("error, float32", "train_error_float32"),
        columns.number("smallest eigenvalue", "smallest_eigenvalue", ".1e"),
        columns.number("seconds", "seconds", ".0f"), columns.RUNS,
    ]  # fmt: skip
    title = paper.TITLES.get(experiment, f"{experiment}: networks built to reproduce random labels")
    legend = f"{_OURS} Errors: of the training labels, in percent."
    return Table(experiment, title, header, _rows(collection, experiment), legend)


def _complex(collection: Collection, experiment: str) -> Table:
    forms = {
        ".3f": {"rademacher": "Rademacher", "rademacher_low": "at least", "rademacher_high": "at most",
                "linear_span": "linear", "kernel_ball": "kernel ball"},
        ",.0f": {"num_fitted": "draws fitted", "draws": "of", "vc_at_least": "VC at least"},
        ".3g": {"max_change": "largest change of loss", "mean_change": "mean change",
                "repeat_mean_change": "mean change, none replaced", "train_loss": "train loss",
                "test_loss": "test loss", "weight_norm": "weight norm",
                "spectral_product": "product of spectral norms", "margin_0.1": "margin, 10% quantile"},
    }  # fmt: skip
    header = [columns.NAME, *(columns.number(label, field, form) for form, fields in forms.items()
                              for field, label in fields.items()),
              columns.number("seconds", "seconds", ".0f"), columns.RUNS]
    title = paper.TITLES.get(experiment, f"{experiment}: measures of complexity")
    legend = (f"{_OURS} Rademacher: of the network's signs, by training on random ones, with a 95% interval. Linear: "
              "of functions whose mean square is 1. Changes: of losses when one training example is replaced; none "
              "replaced: when the same training is repeated, whose additions some devices do in another order.")
    return Table(experiment, title, header, _rows(collection, experiment), legend)


def _inductive_bias(collection: Collection) -> Table:
    """What the convolutions' bias is worth: test accuracy on true pixels, and on pixels that all images have permuted
    alike, which takes nothing from a network that knows no neighbours."""
    runs = [run for run in plain(collection.runs) if not run.settings.get("randomize.labels")]
    of = {name: (lambda run, name=name: run.settings.get("randomize.pixels", "none") == name)
          for name in ("none", "shuffled")}
    cifar10 = paper.DATA["table1"]
    data_sets = {run.data for run in runs if of["shuffled"](run) or run.data == cifar10} or {cifar10}
    rows = []
    for data in sorted(data_sets):
        groups = {model: [] for model in TABLE1_MODELS if data == cifar10}
        for run in runs:
            if run.data == data and (of["none"](run) or of["shuffled"](run)):
                groups.setdefault(str(run.settings.get("model.name")), []).append(run)
        names = {f"{paper.title(model)}, {data}": those for model, those in groups.items()}
        for name, those in apart(names, ("randomize.pixels",)).items():
            notes = [note for where in of.values() for note in discrepancies(list(filter(where, those)))]
            rows.append(Row(name, those, list(dict.fromkeys(notes))))
    header = [columns.NAME, columns.percent("true pixels", "test_accuracy", of["none"]),
              columns.percent("shuffled pixels", "test_accuracy", of["shuffled"]),
              columns.loss("lost by shuffling", "test_accuracy", *of.values()), columns.RUNS]
    legend = (f"{_OURS} One permutation of the pixels, the same for all images of training and test: what is lost is "
              "what the network owes to knowing which pixels are neighbours.")
    title = "Inductive bias: test accuracy with true and with shuffled pixels, in percent"
    return Table("inductive_bias", title, header, rows, legend)


def _shifts(collection: Collection) -> list[Table]:
    """Test accuracy on the test sets of `config.eval.shifts`, of all rows that have any."""
    runs = [run for run in collection.runs if run.shifts]
    names = list(dict.fromkeys(name for run in runs for name in run.shifts))
    rows = [dataclasses.replace(row, name=f"{experiment}:{row.name}")
            for experiment, name in sorted({tuple(run.row.split(":", 1)) for run in runs})
            for row in split(experiment, name, [run for run in runs if run.row == f"{experiment}:{name}"])]
    header = [columns.NAME, columns.percent("test", "test_accuracy"),
              *(columns.percent(name, f"shifts.{name}") for name in names), columns.RUNS]
    legend = (f"{_OURS} Distortions of the test set, at strengths 1 to 3, or other test sets of the same classes; see "
              "rethinking/data/shifts.py.")
    return [Table("shifts", "Distribution shift: test accuracy in percent", header, rows, legend)] * bool(rows)


_OURS = "Ours: mean ± sample standard deviation (number of complete runs), at the end of training."
_BEST = "In brackets: the best test accuracy on the way. "
_TOP1 = {"train_accuracy": "train", "test_accuracy": "test"}
_TOP5 = {"train_accuracy": "train", "train_accuracy_top5": "train top-5",
         "test_accuracy": "test", "test_accuracy_top5": "test top-5"}  # fmt: skip


def _rows(collection: Collection, experiment: str, data: DataSet | None = None) -> list[Row]:
    """The rows of an experiment that were run; with `data`, those that were run on it."""
    rows = []
    for name in _names(collection, experiment, data):
        runs = [run for run in collection.of_row(f"{experiment}:{name}") if data in (None, run.data)]
        rows += split(experiment, name, runs)
    return rows


def _names(collection: Collection, experiment: str, data: DataSet | None = None) -> list[str]:
    """The names of `_rows`, as in the paper, then in the order of its networks and settings, then by number."""
    order = {part: place for place, part in enumerate((*TABLE1_MODELS, *SETTINGS))}
    published = {name: place for place, name in enumerate(paper.TABLES.get(experiment, {}))}

    def natural(part: str) -> list[tuple[str, int]]:
        return [(letters, int(digits or 0)) for letters, digits in re.findall(r"([^0-9]*)([0-9]{0,9})", part)]

    def key(name: str) -> tuple:
        parts = [(order.get(part, len(order)), natural(part)) for part in name.split("+")]
        return published.get(name, len(published)), parts

    return sorted((row.partition(":")[2] for row in collection.digests if row.partition(":")[0] == experiment
                   and any(data in (None, run.data) for run in collection.of_row(row))), key=key)
