"""The same network in Flax Linen, in Flax NNX and as pure functions makes the same run."""

import pytest

from rethinking import experiments
from rethinking.experiments.loop import Loop
from tests.experiments.trained import lines, quickstart, untimed


def config(name):
    return quickstart(
        "random_labels",
        model__name=f"tests.models.kinds:{name}",
        model__options="{'width': 17}",
        data__num_train=128,
        data__num_test=32,
        eval_batch_size=128,
        weight_decay=0.01,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The lines and the result of the Linen network, from a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return experiments.run(config("LinenNet"), folder), lines(folder)


@pytest.mark.parametrize("name", ["NnxNet", "PureNet"])
def test_the_same_network_makes_the_same_run_also_when_it_is_continued(
    name, whole, tmp_path, monkeypatch
):
    expected, measured = whole
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_must_stop", lambda self, *_: self.epoch == 1)
        assert experiments.run(config(name), tmp_path) is None
    assert len(lines(tmp_path)) == 2
    result = experiments.run(config(name), tmp_path)
    # To the last bit: losses, accuracies, norms and margins.
    assert list(map(untimed, lines(tmp_path))) == list(map(untimed, measured))
    assert len(measured) == 4
    for field in ("weight_norm", "margin_0.5", "num_params", "train_loss"):
        assert result[field] == expected[field]
    assert result["network_source"] == expected["network_source"] != ""
