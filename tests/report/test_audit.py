"""The answers of an audit, from made-up runs."""

import pytest

from rethinking import experiments, report, rows
from rethinking.report import audit, collect
from tests.report.runs import make_run

STEPS = {"true_labels": (90, 180), "random_labels": (1800, 1800), "corrupt=0.5": (900, 900)}
TEST = {"true_labels": 0.98, "random_labels": 0.1, "corrupt=0.5": 0.75}


def add(root, row, seed, **fields):
    """A run of the audit: 45 steps are an epoch, and the test set has 360 examples."""
    number = STEPS.get(row, (180, 180))[seed]
    numbers = {"fit_step": number, "steps": 9000, "epochs": 200, "num_test": 360, "num_classes": 10}
    numbers |= {"test": TEST.get(row, 0.1)}
    config = fields.pop("config", None) or rows.audit(row)
    return make_run(root, f"audit:{row}", seed, config=config, **numbers | fields)


def fill(root, rows_=rows.AUDIT_ROWS, **fields):
    for row in rows_:
        for seed in range(2):
            add(root, row, seed, **fields)


def answers(root):
    return {each.question: each.text for each in audit.answers(collect.collect([root]))}


def test_the_answers_of_a_complete_audit(tmp_path):
    fill(tmp_path)
    assert answers(tmp_path) == {
        "": "Audit of MLP 1x512 on handwritten digits: mean ± standard deviation over seeds 0, 1",
        "Does it fit noise?": "Yes. It reaches 100.00 ± 0.00% of the training labels when these "
        "are random, and 100.00 ± 0.00% when they are true. 99% counts as fitted.",
        "How much longer does that take?": "15.0 ± 7.1 times as long: 1,800 ± 0 steps (40.0 ± 0.0 "
        "epochs) to fit random labels, and 135 ± 64 steps (3.0 ± 1.4 epochs) to fit the true ones.",
        "What does it know when half of the labels are random?": "It is right on 75.00 ± 0.00% of "
        "the test examples after it reached 100.00 ± 0.00% of these training labels. About 45% of "
        "them are wrong. With true labels it is right on 98.00 ± 0.00%.",
        "Is the test accuracy under random labels chance?": "Yes. Of 720 predictions 72 are right, "
        "10.00 ± 0.00%. The same predictions in random order would be right in 10.0% of cases. "
        "Guesses with that chance give 7.2% to 12.9% in 99% of all audits.",
        "And with other inputs?": "Inputs shuffled by one permutation for all: fitted in 4.0 ± 0.0 "
        "epochs, test accuracy 10.00 ± 0.00%. Inputs shuffled by a permutation for each example: "
        "fitted in 4.0 ± 0.0 epochs, test accuracy 10.00 ± 0.00%. Gaussian noise as inputs: fitted "
        "in 4.0 ± 0.0 epochs, test accuracy 10.00 ± 0.00%.",
    }


@pytest.mark.parametrize(
    "accuracy, chance, start",
    [
        (0.128, None, "Yes."),
        (0.135, None, "No, it is above chance. Of 720 predictions 98 are right, 13.50"),
        (0.135, 0.131, "Yes."),  # one class is frequent, and the network names it often
        (0.05, None, "No, it is below chance."),
        (0.05, 7.0, "Unknown: the runs did not record"),  # a damaged number
    ],
)
def test_chance_is_a_range(tmp_path, accuracy, chance, start):
    fill(tmp_path, ["random_labels"], test=accuracy, chance_accuracy=chance)
    text = answers(tmp_path)["Is the test accuracy under random labels chance?"]
    assert text.startswith(start)


def test_runs_that_do_not_fit_are_no_answer_to_how_long(tmp_path):
    fill(tmp_path, ["true_labels"])
    add(tmp_path, "random_labels", 0, train=0.7, fit_step=None)
    add(tmp_path, "random_labels", 1)
    found = answers(tmp_path)
    assert found["Does it fit noise?"].startswith("In 1 of 2 runs. It reaches 85.00 ± 21.21%")
    assert found["How much longer does that take?"].startswith("Unknown: not every run fits random")


def test_inputs_that_are_not_always_fitted_are_counted(tmp_path):
    fill(tmp_path, ["gaussian"], train=0.4, fit_step=None)
    add(tmp_path, "random_pixels", 0, train=0.7, fit_step=None)
    add(tmp_path, "random_pixels", 1)
    text = answers(tmp_path)["And with other inputs?"]
    assert "for each example: fitted in 1 of 2 runs, test accuracy 10.00" in text
    assert "Gaussian noise as inputs: not fitted, test accuracy 10.00" in text


def test_a_network_that_fits_nothing_is_no_answer_to_whether_it_fits_noise(tmp_path):
    fill(tmp_path, ["true_labels", "random_labels"], train=0.4, fit_step=None)
    text = answers(tmp_path)["Does it fit noise?"]
    assert text.startswith("Unknown: in 200 epochs it does not fit even the true labels.")


def test_a_fit_at_the_first_evaluation_gives_a_lower_bound(tmp_path):
    fill(tmp_path, ["random_labels"])
    fill(tmp_path, ["true_labels"], fit_step=45)
    text = answers(tmp_path)["How much longer does that take?"]
    assert text.startswith("40.0 ± 0.0 times")
    assert "lower bound" in text


def test_missing_and_unfinished_runs_are_named_in_place_of_an_answer(tmp_path):
    fill(tmp_path, ["true_labels", "corrupt=0.5"])
    add(tmp_path, "random_labels", 1, status="unfinished")
    add(tmp_path, "gaussian", 0, status="diverged")
    add(tmp_path, "gaussian", 1)
    found = answers(tmp_path)
    reason = (
        "Not answered yet: random_labels has no run with seed 0, random_labels is unfinished with "
        "seed 1. The same sweep command continues."
    )
    for question in list(found)[1:3]:
        assert found[question] == reason
    assert found["What does it know when half of the labels are random?"].startswith("It is right")
    assert "gaussian diverged with seed 0. Choose a smaller" in found["And with other inputs?"]


def test_no_run_at_all_of_a_row(tmp_path):
    add(tmp_path, "true_labels", 0)
    found = answers(tmp_path)
    assert found["Does it fit noise?"].startswith("Not answered yet: random_labels has no run.")
    assert found["And with other inputs?"] == "No such row has a run."


def test_audits_of_several_recipes_are_answered_apart(tmp_path):
    for rate, train in ((0.001, 1.0), (0.01, 0.5)):
        for row in ("true_labels", "random_labels"):
            config = rows.audit(row)
            config.learning_rate = rate
            add(tmp_path / str(rate), row, 0, config=config, train=train)
    found = audit.answers(collect.collect([tmp_path]))
    titles = [each.text for each in found if not each.question]
    assert titles == [  # one seed, so there is no standard deviation
        f"Audit of MLP 1x512 on handwritten digits, learning_rate={rate}: seed 0"
        for rate in (0.001, 0.01)
    ]
    assert "±" not in str(found)


def test_the_page_begins_with_the_answers_and_the_terminal_ends_with_them(tmp_path):
    fill(tmp_path / "runs", ["true_labels", "random_labels"])
    printed = report.build([tmp_path / "runs"], tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    first = page.index("<h3>Audit of MLP 1x512 on handwritten digits")
    assert first < page.index("<b>Does it fit noise?</b> Yes.") < page.index("both the true labels")
    assert printed.rpartition("\n")[2].startswith("And with other inputs?")
    written = (tmp_path / "report" / "report.md").read_text()
    assert "**Does it fit noise?** Yes." in written
    assert "### Audit: accuracy in percent" in written


def test_all_rows_differ_from_the_first_in_the_randomization_alone():
    first = experiments.scientific(rows.audit("true_labels"))
    for row in rows.AUDIT_ROWS:
        other = experiments.scientific(rows.audit(row))
        differing = {path for path in first | other if first.get(path) != other.get(path)}
        assert differing <= {"row", "randomize.labels", "randomize.pixels"}, row
