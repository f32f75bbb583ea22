"""The questions of an audit (configs/audit.py), answered in words from its runs.

An audit trains one network on true and on randomized data. Each set of runs that differ in nothing
but the randomization and the seed is an audit of its own.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rethinking.report import paper
from rethinking.report.collect import Collection, grouped
from rethinking.report.curves import RANDOMIZED
from rethinking.report.run import Run, number
from rethinking.report.settings import apart

EXPERIMENT = "audit"
TRUE, RANDOM, HALF = "true_labels", "random_labels", "corrupt=0.5"
# The rows with other inputs, in words.
INPUTS = {
    "shuffled_pixels": "inputs shuffled by one permutation for all",
    "random_pixels": "inputs shuffled by a permutation for each example",
    "gaussian": "Gaussian noise as inputs",
}
# Guessing is outside of the stated range in one of 100 cases.
LEVEL = 0.99
# A test set that is larger than this is a damaged number.
MOST = 10**10


class Answer(NamedTuple):
    """A question with its answer; or, without a question, the title of an audit."""

    question: str
    text: str

    def __str__(self) -> str:
        return f"{self.question} {self.text}".strip()


Rows = Mapping[str, Sequence[Run]]  # the runs of each row of one audit, by seed


def answers(collection: Collection) -> list[Answer]:
    """The answers of every audit, each under its title; none if there is no audit."""
    runs = collection.of_experiment(EXPERIMENT)
    names = grouped(runs, lambda run: f"{paper.title(run.model)} on {run.data}")
    found = []
    for title, group in apart(names, RANDOMIZED).items():
        one_per_seed = {(_row(run), run.seed): run for run in group}
        rows = grouped([one_per_seed[key] for key in sorted(one_per_seed)], _row)
        seeds = {run.seed for run in group}
        spread = "mean ± standard deviation over " if len(seeds) > 1 else ""
        found.append(Answer("", f"Audit of {title}: {spread}{_words('seed', seeds)}"))
        found += [_fits(rows), _takes(rows), _knows(rows), _is_chance(rows), _inputs(rows)]
    return found


def _row(run: Run) -> str:
    """The row that a run belongs to, by what it randomizes."""
    if run.pixels == "none":
        return {0.0: TRUE, 0.5: HALF, 1.0: RANDOM}.get(run.labels, f"corrupt={run.labels}")
    return run.pixels if run.pixels in INPUTS else f"{run.pixels}_pixels"


def _fits(rows: Rows) -> Answer:
    question = "Does it fit noise?"
    missing = _missing(rows, TRUE, RANDOM)
    if missing:
        return Answer(question, missing)
    runs = rows[RANDOM]
    fitted = [run for run in runs if _is_fitted(run)]
    if len(fitted) == len(runs):
        word = "Yes."
    elif fitted:
        word = f"In {len(fitted)} of {len(runs)} runs."
    else:
        epochs = max(run.value("epochs") or 0 for run in runs)
        word = f"No, not in {epochs:,.0f} epochs."
        if not any(map(_is_fitted, rows[TRUE])):
            word = (
                f"Unknown: in {epochs:,.0f} epochs it does not fit even the true labels. Train for "
                "longer, or change the learning rate."
            )
    enough = runs[0].settings.get("fit_accuracy", 0.99)
    text = (
        f"{word} It reaches {_percent(runs, 'train_accuracy')} of the training labels when these "
        f"are random, and {_percent(rows[TRUE], 'train_accuracy')} when they are true. "
        f"{100 * enough:.4g}% counts as fitted."
    )
    return Answer(question, text)


def _takes(rows: Rows) -> Answer:
    question = "How much longer does that take?"
    missing = _missing(rows, TRUE, RANDOM)
    if missing:
        return Answer(question, missing)
    for row, words in ((TRUE, "the true labels"), (RANDOM, "random labels")):
        if not all(map(_is_fitted, rows[row])):
            return Answer(question, f"Unknown: not every run fits {words}. Train for longer.")
    steps = {row: [run.value("fit_step") for run in rows[row]] for row in (TRUE, RANDOM)}
    ratios = [noise / max(true, 1) for noise, true in zip(steps[RANDOM], steps[TRUE], strict=True)]
    text = (
        f"{_spread(ratios, '.1f')} times as long: {_spread(steps[RANDOM], ',.0f')} steps "
        f"({_epochs(rows[RANDOM])}) to fit random labels, and {_spread(steps[TRUE], ',.0f')} steps "
        f"({_epochs(rows[TRUE])}) to fit the true ones."
    )
    first = number(rows[TRUE][0].settings.get("eval_epochs")) or 1
    if any((run.value("fit_epoch") or 0) <= first for run in rows[TRUE]):
        text += (
            " That ratio is a lower bound. The true labels were fitted at the first evaluation, "
            "perhaps long before it."
        )
    return Answer(question, text)


def _knows(rows: Rows) -> Answer:
    question = "What does it know when half of the labels are random?"
    missing = _missing(rows, TRUE, HALF)
    if missing:
        return Answer(question, missing)
    runs = rows[HALF]
    text = (
        f"It is right on {_percent(runs, 'test_accuracy')} of the test examples after it reached "
        f"{_percent(runs, 'train_accuracy')} of these training labels. "
    )
    classes = runs[0].value("num_classes")
    if classes:
        text += f"About {0.5 * (1 - 1 / classes):.0%} of them are wrong. "
    text += f"With true labels it is right on {_percent(rows[TRUE], 'test_accuracy')}."
    return Answer(question, text)


def _is_chance(rows: Rows) -> Answer:
    question = "Is the test accuracy under random labels chance?"
    missing = _missing(rows, RANDOM)
    if missing:
        return Answer(question, missing)
    runs = rows[RANDOM]
    sizes = [run.value("num_test") or 0 for run in runs]
    chances = [_chance(run) for run in runs]
    if not all(0 < size < MOST for size in sizes) or not all(0 < each < 1 for each in chances):
        return Answer(question, "Unknown: the runs did not record the size of the test set.")
    accuracies = [run.value("test_accuracy") for run in runs]
    right = sum(round(size * each) for size, each in zip(sizes, accuracies, strict=True))
    total, chance = int(sum(sizes)), statistics.fmean(chances)
    low, high = _range_of_guesses(total, chance)
    share = right / total
    word = "Yes."
    if not low <= share <= high:
        word = f"No, it is {'above' if share > high else 'below'} chance."
    text = (
        f"{word} Of {total:,} predictions {right:,} are right, {_percent(runs, 'test_accuracy')}. "
        f"The same predictions in random order would be right in {chance:.1%} of cases. Guesses "
        f"with that chance give {low:.1%} to {high:.1%} in {LEVEL:.0%} of all audits."
    )
    if share > high:
        text += " So the network learned something true. Were all training labels replaced?"
    return Answer(question, text)


def _chance(run: Run) -> float:
    """The accuracy of the run's predictions in random order; for a streamed set 1 / classes.

    0 if it is not known.
    """
    chance, classes = run.value("chance_accuracy"), run.value("num_classes")
    if chance is None and classes:
        return 1 / classes
    return chance or 0.0


def _range_of_guesses(total: int, chance: float) -> tuple[float, float]:
    """The range of the share of right guesses among `total`, outside of which one in 100 lies."""
    from scipy.stats import binom  # here: it imports slowly, and most reports have no audit

    low, high = binom.interval(LEVEL, total, chance)
    return float(low) / total, float(high) / total


def _inputs(rows: Rows) -> Answer:
    texts = []
    for row, words in INPUTS.items():
        if row not in rows:
            continue
        missing = _missing(rows, row)
        if missing:
            texts.append(f"{words}: {missing[0].lower()}{missing[1:]}")
            continue
        fitted = sum(map(_is_fitted, rows[row]))
        fits = "not fitted"
        if fitted == len(rows[row]):
            fits = f"fitted in {_epochs(rows[row])}"
        elif fitted:
            fits = f"fitted in {fitted} of {len(rows[row])} runs"
        texts.append(f"{words}: {fits}, test accuracy {_percent(rows[row], 'test_accuracy')}.")
    if not texts:
        return Answer("And with other inputs?", "No such row has a run.")
    text = " ".join(f"{text[0].upper()}{text[1:]}" for text in texts)
    return Answer("And with other inputs?", text)


def _missing(rows: Rows, *needed: str) -> str:
    """Why a question that needs these rows has no answer yet; "" if it has one."""
    seeds = {run.seed for runs in rows.values() for run in runs}
    problems = []
    for row in needed:
        problems += _problems(row, rows.get(row, ()), seeds)
    if not problems:
        return ""
    remedy = "The same sweep command continues."
    if any(run.status == "diverged" for row in needed for run in rows.get(row, ())):
        remedy = "Choose a smaller config.learning_rate, and another folder."
    return f"Not answered yet: {', '.join(problems)}. {remedy}"


def _problems(row: str, runs: Sequence[Run], seeds: set[int]) -> list[str]:
    """What keeps the runs of a row from being complete for all `seeds`."""
    if not runs:
        return [f"{row} has no run"]
    found = {
        "has no run with": seeds - {run.seed for run in runs},
        "is unfinished with": {run.seed for run in runs if run.status == "unfinished"},
        "diverged with": {run.seed for run in runs if run.status == "diverged"},
        "has no accuracy with": {run.seed for run in runs if _has_no_accuracy(run)},
    }
    return [f"{row} {what} {_words('seed', those)}" for what, those in found.items() if those]


def _has_no_accuracy(run: Run) -> bool:
    accuracies = [run.value("train_accuracy"), run.value("test_accuracy")]
    return run.status == "complete" and None in accuracies


def _words(noun: str, numbers: Iterable[int]) -> str:
    ordered = [str(number) for number in sorted(numbers)]
    return f"{noun}{'s' if len(ordered) > 1 else ''} {', '.join(ordered)}"


def _is_fitted(run: Run) -> bool:
    return run.value("fit_step") is not None


def _epochs(runs: Sequence[Run]) -> str:
    return f"{_spread([run.value('fit_epoch') for run in runs], '.1f')} epochs"


def _percent(runs: Sequence[Run], field: str) -> str:
    return f"{_spread([100 * run.value(field) for run in runs], '.2f')}%"


def _spread(values: Iterable[float | None], form: str) -> str:
    """The mean, and the sample standard deviation if there are several values."""
    there = [value for value in values if value is not None]
    if not there:
        return paper.MISSING
    mean = f"{statistics.fmean(there):{form}}"
    return f"{mean} ± {statistics.stdev(there):{form}}" if len(there) > 1 else mean
