"""The work of a run, against counts by hand and programs compiled for an H200."""

import json

import pytest

from rethinking import cli
from rethinking.chips import FULL_FLOAT32
from rethinking.errors import InputError
from rethinking.experiments import lowered, work
from tests.experiments.trained import quickstart


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/rethinking/work"


def config(row, *overrides):
    # No set is prepared there: the paper's sets are known.
    nowhere = "--config.data.data_dir=/nowhere"
    return cli.parse_config([f"--config=configs/{row}", nowhere, *overrides])


def parts(row, *overrides):
    return {part.what: part for part in work.count(config(row, *overrides))}


def test_a_training_step_and_an_evaluation_are_those_of_the_network():
    found = parts("table1.py:mlp_1x512", "--config.eval_batch_size=500")
    # Three channels of 28 x 28 pixels to 512 units to 10 classes. A weight takes a multiplication
    # and an addition for an image in the forward pass, as many for its gradient, and, except in the
    # first layer, as many for the gradient of its input.
    first, second = 3 * 28 * 28 * 512, 512 * 10
    step, evaluation = found["training"], found["evaluation"]
    assert step.flops == pytest.approx(2 * 128 * (2 * first + 3 * second), rel=0.01)
    assert step.times == 100 * 390
    assert evaluation.flops == pytest.approx(2 * 500 * (first + second), rel=0.01)
    # Before training and after each epoch, and once more the logits of the end.
    assert evaluation.times * 500 == 101 * 60_000 + 50_000
    assert not step.convolves
    random = parts("table1.py:mlp_1x512+random_labels", "--config.eval_batch_size=500")
    assert random["evaluation"].times * 500 == 101 * 60_000 + 60_000
    assert random["training"] == step


@pytest.mark.parametrize(
    "model, dtype, kernels, gigabytes",
    [
        ("mlp_1x512", "float32", 23, 0.06),
        ("mlp_3x512", "bfloat16", 41, 0.08),
        ("alexnet", "float32", 54, 0.41),
        pytest.param("inception", "float32", 264, 3.96, marks=pytest.mark.slow),
        pytest.param("inception", "bfloat16", 282, 2.04, marks=pytest.mark.slow),
        pytest.param("inception_no_bn", "bfloat16", 206, 1.52, marks=pytest.mark.slow),
    ],
)
def test_kernels_and_bytes_are_about_those_of_the_program_compiled_for_an_h200(
    model, dtype, kernels, gigabytes
):
    """The table of benchmarks/README.md."""
    step = parts(f"table1.py:{model}", f"--config.dtype={dtype}")["training"]
    assert step.kernels == pytest.approx(kernels, rel=0.3)
    assert step.bytes / 1e9 == pytest.approx(gigabytes, rel=0.4)
    assert step.convolves == (model not in ("mlp_1x512", "mlp_3x512"))


def test_other_kinds_are_counted_by_their_sizes():
    mnist = parts("table3.py:mnist+ridge")
    assert mnist["factor"].flops == 60_000**3 / 3
    assert (mnist["ridge"].times, mnist["ridge"].flops) == (11, 8000**3 / 3)
    # 32,000 filters of 6 x 6 x 3 at 27 x 27 places; 18 features of each filter.
    random_conv = parts("table3.py:cifar10+random_conv")
    assert random_conv["features"].flops == 2 * 27**2 * 108 * 32_000
    assert random_conv["gram"].flops == pytest.approx(50_000**2 * 18 * 32_000, rel=0.02)
    # At full precision, which is not the devices' default. The system itself is in float64.
    assert random_conv["features"].dtype == FULL_FLOAT32
    assert (random_conv["gram"].dtype, mnist["factor"].dtype) == ("float64", "float64")
    in_float32 = parts("table3.py:cifar10+random_conv", "--config.dtype=float32")
    assert (in_float32["gram"].dtype, in_float32["factor"].dtype) == (FULL_FLOAT32, FULL_FLOAT32)
    mixed = parts("table3.py:cifar10+random_conv", "--config.features.product_dtype=float32")
    assert (mixed["gram"].dtype, mixed["factor"].dtype) == (FULL_FLOAT32, "float64")
    # Each of 50,000 units at each of 50,000 points.
    built = parts("expressivity.py:cifar10")["evaluation in float64"]
    assert built.flops * built.times == pytest.approx(4 * 50_000**2, rel=0.05)
    sgd = parts("linear.py:mnist")["sgd"]
    assert (sgd.times, sgd.flops) == (400_000, 5 * 784 * 10)


PROGRAM = lowered.Program(flops=1.0, bytes=2.0, kernels=3.0, convolves=True)
PROGRAMS = lowered.Programs(PROGRAM, PROGRAM, evaluation_batch=100)


def test_steps_and_evaluated_examples_of_many_trainings_and_of_streamed_data(monkeypatch):
    monkeypatch.setattr(lowered, "count", lambda *_: PROGRAMS)
    # 8,000 signs, halved six times, in five draws; the last batch of a size is left out.
    rademacher = parts("complexity.py:rademacher+mlp_1x512")
    assert rademacher["training"].times == 100 * 5 * sum((8000 >> i) // 32 for i in range(7))
    assert rademacher["evaluation"].times * 100 == 101 * 5 * sum(8000 >> i for i in range(7))
    stability = parts("complexity.py:stability+mlp_1x512")["training"]
    assert stability.times == 100 * 7 * (5000 // 32)
    table2 = parts("table2.py:none")
    assert table2["training"].times == pytest.approx(100 * 1_281_167 / 1024)
    # 50,000 of the training images, and all of them at the end.
    assert table2["evaluation"].times * 100 == 100 * 100_000 + 1_281_167 + 50_000


def test_programs_are_counted_once_for_all_rows_with_the_same_network(cache, monkeypatch):
    calls = []

    def note(*arguments):
        calls.append(arguments)
        return PROGRAMS

    monkeypatch.setattr(lowered, "count", note)
    first = work.count(quickstart())
    for row, fields in (("random_labels", {"seed": 3}), ("gaussian", {"learning_rate": 0.5})):
        assert work.count(quickstart(row, **fields))[0] == first[0]
    assert len(calls) == 1
    (file,) = cache.iterdir()
    for damage in ("", "[]", "{}", '{"step'):
        file.write_text(damage)
        assert work.count(quickstart()) == first
    assert len(calls) == 5
    assert json.loads(file.read_text())["evaluation_batch"] == 100
    work.count(quickstart(batch_size=64))
    assert len(calls) == 6


def test_what_is_not_known_is_refused():
    with pytest.raises(InputError, match="Did you mean 'digits'"):
        work.count(quickstart(data__name="digit"))
    with pytest.raises(InputError, match="nowhere"):
        work.count(config("table1.py:mlp_1x512", "--config.data.test_fraction=0.1"))
