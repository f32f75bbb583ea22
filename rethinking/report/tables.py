"""The tables: our mean, spread and number of runs beside the published numbers."""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence

from rethinking import config as configs
from rethinking.report import paper
from rethinking.report.collect import Collection, Run, Statistic, discrepancies, slug, statistic
from rethinking.report.paper import MISSING


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table and the runs behind it: none if it is missing."""

    name: str
    runs: list[Run]
    cells: list[str]  # plain text, one per column of the table's header
    notes: list[str]  # footnotes

    def count(self, status: str) -> int:
        """How many of its runs have this status."""
        return sum(run.status == status for run in self.runs)

    def statistic(self, field: str) -> Statistic | None:
        """Over the complete runs; `field` is one of result.json or of `Run`."""
        complete = [run for run in self.runs if run.status == "complete"]
        return statistic(run.fit_epoch if field == "fit_epoch" else run.value(field) for run in complete)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as plain text; `to_markdown` and `rethinking.report.page` render it."""

    name: str
    title: str
    header: list[str]
    rows: list[Row]
    legend: str

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def missing(self) -> list[str]:
        """The rows without a run."""
        return [row.name for row in self.rows if not row.runs]


def make(collection: Collection) -> list[Table]:
    """Tables 1, 3 and 4, with all their published rows, and a table of every other experiment that has runs."""
    kinds = {run.row.partition(":")[0]: run.kind for run in collection.runs}
    others = sorted(kinds.keys() - paper.TABLES.keys() - {"table3"})
    shapes = {"training": _plain, "kernels": _interpolated, "expressivity": _memorized, "complexity": _complex}
    tables = [_published(collection, "table1"), _interpolated(collection, "table3"), _published(collection, "table4")]
    return tables + [shapes[kinds[name]](collection, name) for name in others]


def _published(collection: Collection, experiment: str) -> Table:
    published = paper.TABLES[experiment]
    unpublished = [name for name in _rows_run(collection, experiment) if name not in published]
    rows = []
    for name in (*published, *unpublished):
        # A run made for another table or figure stands for this row if its config is the same.
        also = [configs.digest(configs.table_row(experiment, name))] if name in published else []
        row = Row(name, collection.of_row(f"{experiment}:{name}", also), [], [])
        numbers = published.get(name, paper.Published())
        row.cells.extend([name, _percent(row, "train_accuracy"), str(numbers.train),
                          _percent(row, "test_accuracy"), str(numbers.test), _runs(row)])
        row.notes.extend(discrepancies(row.runs))
        rows.append(row)
    header = ["row", "train, ours", "train, paper", "test, ours", "test, paper", "runs"]
    return Table(experiment, paper.TITLES[experiment], header, rows, f"{_OURS} {paper.ELSEWHERE}")


def _plain(collection: Collection, experiment: str) -> Table:
    rows = []
    for name in _rows_run(collection, experiment):
        row = Row(name, collection.of_row(f"{experiment}:{name}"), [], [])
        row.cells.extend([name, _percent(row, "train_accuracy"), _percent(row, "test_accuracy"),
                          _epochs_to_fit(row), _runs(row)])
        row.notes.extend(discrepancies(row.runs))
        rows.append(row)
    title = paper.TITLES.get(experiment, f"{experiment}: accuracy in percent")
    return Table(experiment, title, ["row", "train", "test", "epochs to fit", "runs"], rows, _OURS)


def _interpolated(collection: Collection, experiment: str) -> Table:
    published = paper.TABLE3 if experiment == "table3" else {}
    rows = []
    for name in (*published, *(name for name in _rows_run(collection, experiment) if name not in published)):
        row = Row(name, collection.of_row(f"{experiment}:{name}"), [], [])
        numbers = published.get(name, paper.Interpolated())
        row.cells.extend([name, _percent(row, "test_error"), str(numbers.error), _percent(row, "train_error"),
                          _number(row, "norm", ".4g"), numbers.norm, _number(row, "ridge", ".0e"),
                          _number(row, "residual", ".0e"), _number(row, "num_examples", ",.0f"),
                          _number(row, "seconds", ".0f"), _runs(row)])
        row.notes.extend(discrepancies(row.runs))
        rows.append(row)
    header = ["row", "test error, ours", "paper", "train error", "norm, ours", "paper", "ridge", "residual", "n",
              "seconds", "runs"]
    title = paper.TITLES.get(experiment, f"{experiment}: linear models that interpolate")
    legend = (f"{_OURS} Norm: of the function in its kernel's space. Residual: of the linear system, relative. "
              "Ridge: in units of the mean of the matrix's diagonal.")
    return Table(experiment, title, header, rows, legend)


def _memorized(collection: Collection, experiment: str) -> Table:
    rows, sizes = [], ("num_points", "num_weights", "depth", "width")
    for name in _rows_run(collection, experiment):
        row = Row(name, collection.of_row(f"{experiment}:{name}"), [], [])
        row.cells.extend([name, *(_number(row, field, ",.0f") for field in sizes),
                          _percent(row, "train_error"), _number(row, "max_residual", ".1e"),
                          _percent(row, "train_error_float32"), _number(row, "smallest_eigenvalue", ".1e"),
                          _number(row, "seconds", ".0f"), _runs(row)])
        row.notes.extend(discrepancies(row.runs))
        rows.append(row)
    header = ["row", "points", "weights", "depth", "width", "error, float64", "largest residual", "error, float32",
              "smallest eigenvalue", "seconds", "runs"]
    title = paper.TITLES.get(experiment, f"{experiment}: networks built to reproduce random labels")
    return Table(experiment, title, header, rows, f"{_OURS} Errors: of the training labels, in percent.")


def _complex(collection: Collection, experiment: str) -> Table:
    rows, bounds = [], ("rademacher_low", "rademacher_high")
    for name in _rows_run(collection, experiment):
        row = Row(name, collection.of_row(f"{experiment}:{name}"), [], [])
        row.cells.extend([
            name, *(_number(row, field, ".3f") for field in ("rademacher", *bounds, "linear_span", "kernel_ball")),
            *(_number(row, field, ",.0f") for field in ("num_fitted", "draws", "vc_at_least")),
            *(_number(row, field, ".3g") for field in ("max_change", "mean_change", "train_loss", "test_loss")),
            *(_number(row, field, ".3g") for field in ("weight_norm", "spectral_product", "margin_0.1")),
            _number(row, "seconds", ".0f"), _runs(row),
        ])  # fmt: skip
        row.notes.extend(discrepancies(row.runs))
        rows.append(row)
    header = ["row", "Rademacher", "at least", "at most", "linear", "kernel ball", "draws fitted", "of", "VC at least",
              "largest change of loss", "mean change", "train loss", "test loss", "weight norm",
              "product of spectral norms", "margin, 10% quantile", "seconds", "runs"]
    title = paper.TITLES.get(experiment, f"{experiment}: measures of complexity")
    legend = (f"{_OURS} Rademacher: of the network's signs, by training on random ones, with a 95% interval. Linear: "
              "of functions whose mean square is 1. Changes: of losses when one training example is replaced.")
    return Table(experiment, title, header, rows, legend)


_OURS = "Ours: mean ± sample standard deviation (number of complete runs), at the end of training."


def _rows_run(collection: Collection, experiment: str) -> list[str]:
    """The rows of an experiment that were run, in the order of the networks and settings of the paper."""
    order = [*configs.TABLE1_MODELS, *configs.SETTINGS]
    names = [row.partition(":")[2] for row in collection.digests if row.partition(":")[0] == experiment]
    return sorted(names, key=lambda name: [(order.index(part) if part in order else len(order), part)
                                           for part in name.split("+")])


def _percent(row: Row, field: str) -> str:
    value = row.statistic(field)
    return _formatted(value, 100, ".2f") if value else _no_number(row)


def _number(row: Row, field: str, form: str) -> str:
    """The mean; with its spread where that is not zero."""
    value = row.statistic(field)
    if not value:
        return _no_number(row)
    spread = f" ± {value.std:{form}}" if value.std else ""
    return f"{value.mean:{form}}{spread}"


def _epochs_to_fit(row: Row) -> str:
    value = row.statistic("fit_epoch")
    if not row.count("complete"):
        return _no_number(row)
    unfitted = row.count("complete") - (value.n if value else 0)
    texts = [_formatted(value, 1, ".1f")] if value else []
    return "; ".join(texts + [f"not fitted ({unfitted} of {row.count('complete')})"] * (unfitted > 0))


def _formatted(value: Statistic, scale: int, form: str) -> str:
    spread = "" if value.std is None else f" ± {scale * value.std:{form}}"
    return f"{scale * value.mean:{form}}{spread} ({value.n})"


def _no_number(row: Row) -> str:
    if row.count("complete"):
        return MISSING
    return _diverged(row) or ("unfinished" if row.runs else MISSING)


def _diverged(row: Row) -> str:
    return f"diverged ({row.count('diverged')} of {len(row.runs)})" if row.count("diverged") else ""


def _runs(row: Row) -> str:
    """How many runs there are, and how they ended."""
    unfinished = row.count("unfinished")
    finished = f"{len(row.runs) - unfinished} of {len(row.runs)} finished" if unfinished else str(len(row.runs))
    return "; ".join(filter(None, [finished, _diverged(row)])) if row.runs else MISSING


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, its columns aligned for reading it as plain text as well."""
    lines, footnotes = [list(map(escape, table.header))], []
    for row in table.rows:
        cells = list(map(escape, row.cells))
        for note in row.notes:
            mark = f"[^{slug(table.name)}-{len(footnotes) + 1}]"
            footnotes.append(f"{mark}: {escape(note)}\n")
            cells[-1] += mark
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    text = "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)
    parts = [f"### {escape(table.title)}\n", text + "\n", table.legend + "\n", *footnotes]
    return "\n".join(parts)


def escape(text: str) -> str:
    """`text` as Markdown that shows it literally, on one line; underscores inside words need no escape."""
    return re.sub(r"([\\`*\[\]<>|&$~])", r"\\\1", "".join(char if char.isprintable() else " " for char in text))


def to_csv(tables: Sequence[Table]) -> str:
    """All rows of all tables; accuracies in [0, 1], those of the paper included."""
    fields = ("train_accuracy", "test_accuracy", "fit_epoch", "train_error", "test_error", "norm", "seconds")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["experiment", "row", "complete", "diverged", "unfinished",
                     *(f"{field}_{part}" for field in fields for part in ("mean", "std", "n")),
                     "published_train_accuracy", "published_test_accuracy", "seeds", "revisions", "config_digests"])
    for table in tables:
        for row in table.rows:
            published = paper.TABLES.get(table.name, {}).get(row.name, paper.Published())
            values = [row.statistic(field) for field in fields]
            revisions = sorted({str(run.result.get("revision")) for run in row.runs if run.result})
            writer.writerow([
                table.name, row.name, *map(row.count, ("complete", "diverged", "unfinished")),
                *(part for value in values for part in ((value.mean, value.std, value.n) if value else ("", "", 0))),
                *("" if x.percent is None else round(x.percent / 100, 6) for x in (published.train, published.test)),
                " ".join(str(run.seed) for run in row.runs), " ".join(revisions),
                " ".join(sorted({run.digest for run in row.runs})),
            ])  # fmt: skip
    return stream.getvalue()
