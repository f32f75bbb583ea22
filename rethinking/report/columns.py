"""The columns of the tables, and what they say about a row's runs."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence

from rethinking.report.kinds import Shown
from rethinking.report.paper import MISSING, Number, Published
from rethinking.report.run import Run

DIFFERENCES = (
    "Difference: ours minus the paper's. ≈: within one standard deviation of ours. "
    "≠: further away. A single run has no mark."
)


@dataclasses.dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (divisor n - 1; None for n = 1) of n values."""

    mean: float
    std: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table and its runs; no runs if it is missing."""

    name: str
    runs: list[Run]
    notes: list[str]  # footnotes
    published: Published = dataclasses.field(default_factory=dict)  # the paper's numbers

    def paper(self, field: str) -> Number:
        """The published number of a field; an empty one if the paper has none."""
        return self.published.get(field, Number())

    def count(self, status: str) -> int:
        """How many of its runs have this status."""
        return sum(run.status == status for run in self.runs)

    @property
    def diverged(self) -> str:
        """How many of its runs diverged, in words; empty if none did."""
        count = self.count("diverged")
        return f"diverged ({count} of {len(self.runs)})" if count else ""


def _always(run: Run) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Column:
    """A header and its cells. A column with a `field` summarizes that number of the runs."""

    header: str
    cell: Callable[[Row], str]
    field: str = ""  # a number of the runs: see `Run.value`
    where: Callable[[Run], bool] = _always  # which runs count
    form: str = ""  # the format of a number
    scale: int = 1  # 100 for a fraction that is shown in percent

    def value(self, run: Run) -> float | None:
        """A run's number, or None."""
        return run.value(self.field) if self.where(run) else None

    def show(self, value: float) -> str:
        """A single run's number as text."""
        return f"{self.scale * value:{self.form}}"

    def statistic(self, row: Row) -> Statistic | None:
        """The number's statistic over the complete runs."""
        return row_statistic(row, self.field, self.where)


def statistic(values: Iterable[float | None]) -> Statistic | None:
    """The statistic of the values that are not None; None if there are none."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    std = statistics.stdev(there) if len(there) > 1 else None
    return Statistic(statistics.fmean(there), std, len(there))


def row_statistic(row: Row, field: str, where: Callable[[Run], bool] = _always) -> Statistic | None:
    """The statistic of a field over the complete runs that count."""
    runs = [run for run in row.runs if run.status == "complete" and where(run)]
    return statistic(run.value(field) for run in runs)


def make(shown: Shown, rows: Sequence[Row]) -> list[Column]:
    """The columns for one number of a kind, with the paper's beside it where a row has one."""
    field, header, form = shown
    if form == "epochs":
        return [EPOCHS_TO_FIT]
    published = [row.published[field] for row in rows if field in row.published]
    paper = Column(f"{header}, paper", lambda row: str(row.paper(field)))
    if form != "percent":
        ours = number(header, field, form)
        return [ours, paper] if published else [ours]
    if not published:
        return [percent(header, field)]
    has_best = any(one.best for one in published)
    return [percent(f"{header}, ours", field, has_best=has_best), paper, _difference(field)]


def percent(
    header: str, field: str, where: Callable[[Run], bool] = _always, has_best: bool = False
) -> Column:
    """A fraction as percent: mean ± standard deviation (number of runs).

    With `has_best`, the best value during training follows in brackets.
    """

    def cell(row: Row) -> str:
        value = row_statistic(row, field, where)
        if not value:
            return _none(row, where)
        text = _formatted(value, 100, ".2f")
        best = row_statistic(row, f"best_{field}") if has_best else None
        return f"{text} [{100 * best.mean:.2f}]" if best else text

    return Column(header, cell, field, where, ".2f", scale=100)


def number(header: str, field: str, form: str) -> Column:
    """The mean, with its standard deviation unless that is zero."""

    def cell(row: Row) -> str:
        value = row_statistic(row, field)
        if not value:
            return _none(row)
        spread = f" ± {value.std:{form}}" if value.std else ""
        return f"{value.mean:{form}}{spread}"

    return Column(header, cell, field, form=form)


def _difference(field: str) -> Column:
    def cell(row: Row) -> str:
        ours = row_statistic(row, field)
        theirs = row.paper(field)
        if ours is None or theirs.percent is None:
            return MISSING
        distance = 100 * ours.mean - theirs.percent
        if ours.std is None:
            return f"{distance:+z.2f}"
        within = abs(distance) <= 100 * ours.std + theirs.rounding
        return f"{'≈' if within else '≠'} {distance:+z.2f}"

    return Column("difference", cell)


def _runs(row: Row) -> str:
    """How many runs there are, and how they ended."""
    if not row.runs:
        return MISSING
    unfinished = row.count("unfinished")
    text = str(len(row.runs))
    if unfinished:
        text = f"{len(row.runs) - unfinished} of {len(row.runs)} finished"
    return "; ".join(filter(None, [text, row.diverged]))


def _epochs_to_fit(row: Row) -> str:
    complete = row.count("complete")
    if not complete:
        return _none(row)
    value = row_statistic(row, "fit_epoch")
    texts = [_formatted(value, 1, ".1f")] if value else []
    unfitted = complete - (value.n if value else 0)
    if unfitted:
        texts.append(f"not fitted ({unfitted} of {complete})")
    return "; ".join(texts)


NAME = Column("row", lambda row: row.name)
RUNS = Column("runs", _runs)
EPOCHS_TO_FIT = Column("epochs to fit", _epochs_to_fit, "fit_epoch", form=".1f")


def _formatted(value: Statistic, scale: int, form: str) -> str:
    spread = "" if value.std is None else f" ± {scale * value.std:{form}}"
    return f"{scale * value.mean:{form}}{spread} ({value.n})"


def _none(row: Row, where: Callable[[Run], bool] = _always) -> str:
    """The cell of a row without a number: how its runs ended."""
    row = dataclasses.replace(row, runs=[run for run in row.runs if where(run)])
    if not row.runs or row.count("complete"):
        return MISSING
    return row.diverged or "unfinished"
