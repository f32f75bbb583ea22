"""What the columns of the tables say of a row's runs."""

import dataclasses
from collections.abc import Callable

from rethinking.report.collect import Run, Statistic, statistic
from rethinking.report.paper import MISSING, Number, Published

DIFFERENCES = ("Difference: ours less the paper's; ≈ it lies within one standard deviation of ours, ≠ it does not; "
               "unmarked where one run shows no spread.")  # fmt: skip
_ROUNDING = 0.005  # of the published percentages


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table and the runs behind it: none if it is missing."""

    name: str
    runs: list[Run]
    notes: list[str]  # footnotes

    def count(self, status: str) -> int:
        """How many of its runs have this status."""
        return sum(run.status == status for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a table says of a row in one column."""

    text: str
    ours: bool = False  # computed from the row's runs
    within: bool | None = None  # of a difference: whether it lies within our spread, None where that cannot be said


def _always(run: Run) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its header and its cells; and, if it summarizes a number of each run, which, of which runs."""

    header: str
    cell: Callable[[Row], Cell]
    field: str = ""  # of result.json, or "fit_epoch"
    where: Callable[[Run], bool] = _always
    show: Callable[[float], str] = str  # a single run's number
    published: Callable[[Row], Number] = lambda row: Number()

    def value(self, run: Run) -> float | None:
        """A run's number; None where it has none."""
        return _value(run, self.field) if self.where(run) else None

    def statistic(self, row: Row) -> Statistic | None:
        """The number's statistic over the complete runs."""
        return _statistic(row, self.field, self.where)


def _value(run: Run, field: str) -> float | None:
    return run.fit_epoch if field == "fit_epoch" else run.value(field)


def _statistic(row: Row, field: str, where: Callable[[Run], bool] = _always) -> Statistic | None:
    return statistic(_value(run, field) for run in row.runs if run.status == "complete" and where(run))


def percent(header: str, field: str, where: Callable[[Run], bool] = _always, best_too: bool = False) -> Column:
    """A fraction as percent: mean ± standard deviation (number of runs), of the runs `where` holds.

    In brackets, if `best_too`, the mean of the best on the way, the field `best_FIELD`, where there is one.
    """
    def cell(row: Row) -> Cell:
        value = _statistic(row, field, where)
        best = _statistic(row, f"best_{field}", where) if best_too else None
        bracket = f" [{100 * best.mean:.2f}]" if best else ""
        return Cell(_formatted(value, 100, ".2f") + bracket, ours=True) if value else _no_number(row, where)

    return Column(header, cell, field, where, lambda value: f"{100 * value:.2f}")


def number(header: str, field: str, form: str) -> Column:
    """The mean; with its standard deviation where that is not zero."""
    def cell(row: Row) -> Cell:
        value = _statistic(row, field)
        if not value:
            return _no_number(row)
        spread = f" ± {value.std:{form}}" if value.std else ""
        return Cell(f"{value.mean:{form}}{spread}", ours=True)

    return Column(header, cell, field, show=lambda value: f"{value:{form}}")


def published(header: str, field: str, table: dict[str, Published]) -> Column:
    """The paper's number."""
    return Column(header, lambda row: Cell(str(table.get(row.name, {}).get(field, Number()))))


def beside_paper(label: str, field: str, table: dict[str, Published], best_too: bool = False) -> list[Column]:
    """Our percentages, the paper's, and their difference; ours alone where nothing is published."""
    if not table:
        return [percent(label, field)]

    def paper(row: Row) -> Number:
        return table.get(row.name, {}).get(field, Number())

    def difference(row: Row) -> Cell:
        value, theirs = _statistic(row, field), paper(row).percent
        if value is None or theirs is None:
            return Cell(MISSING)
        distance = 100 * value.mean - theirs
        within = None if value.std is None else abs(distance) <= 100 * value.std + _ROUNDING
        return Cell({None: "", True: "≈ ", False: "≠ "}[within] + f"{distance:+z.2f}", within=within)

    ours = dataclasses.replace(percent(f"{label}, ours", field, best_too=best_too), published=paper)
    return [ours, published(f"{label}, paper", field, table), Column("difference", difference)]


def _name(row: Row) -> Cell:
    return Cell(row.name)


def _runs(row: Row) -> Cell:
    """How many runs there are, and how they ended."""
    unfinished = row.count("unfinished")
    finished = f"{len(row.runs) - unfinished} of {len(row.runs)} finished" if unfinished else str(len(row.runs))
    return Cell("; ".join(filter(None, [finished, _diverged(row)])) if row.runs else MISSING, ours=bool(row.runs))


def _epochs_to_fit(row: Row) -> Cell:
    value = _statistic(row, "fit_epoch")
    if not row.count("complete"):
        return _no_number(row)
    unfitted = row.count("complete") - (value.n if value else 0)
    texts = [_formatted(value, 1, ".1f")] if value else []
    return Cell("; ".join(texts + [f"not fitted ({unfitted} of {row.count('complete')})"] * (unfitted > 0)), ours=True)


NAME = Column("row", _name)
RUNS = Column("runs", _runs)
EPOCHS_TO_FIT = Column("epochs to fit", _epochs_to_fit, "fit_epoch", show=lambda value: f"{value:.1f}")


def loss(header: str, field: str, first: Callable[[Run], bool], second: Callable[[Run], bool]) -> Column:
    """By how much the mean of a fraction falls from the runs `first` to the runs `second`, in percent."""
    def cell(row: Row) -> Cell:
        means = [_statistic(row, field, where) for where in (first, second)]
        return Cell(f"{100 * (means[0].mean - means[1].mean):z.2f}", ours=True) if all(means) else Cell(MISSING)

    return Column(header, cell)


def _formatted(value: Statistic, scale: int, form: str) -> str:
    spread = "" if value.std is None else f" ± {scale * value.std:{form}}"
    return f"{scale * value.mean:{form}}{spread} ({value.n})"


def _no_number(row: Row, where: Callable[[Run], bool] = _always) -> Cell:
    row = dataclasses.replace(row, runs=[run for run in row.runs if where(run)])
    if not row.runs or row.count("complete"):
        return Cell(MISSING)
    return Cell(_diverged(row) or "unfinished", ours=True)


def _diverged(row: Row) -> str:
    return f"diverged ({row.count('diverged')} of {len(row.runs)})" if row.count("diverged") else ""
