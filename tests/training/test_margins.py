"""Norms and margins of a trained network, against their definitions."""

import numpy as np
import pytest

from rethinking.training import margins

RNG = np.random.default_rng(0)


def test_a_margin_is_the_labels_logit_minus_the_largest_other_logit():
    logits, labels = RNG.standard_normal((30, 4)), RNG.integers(0, 4, 30)
    found = margins.margins(logits, labels)
    for i, label in enumerate(labels):
        assert found[i] == logits[i, label] - np.delete(logits[i], label).max()
    quantiles = margins.margin_quantiles(logits, labels)
    assert quantiles["margin_0.5"] == np.median(found)


def test_norms_are_those_of_the_reshaped_kernels():
    params = {
        "Conv_0": {"kernel": RNG.standard_normal((5, 5, 3, 16)), "bias": np.full(16, 9.0)},
        "Dense_0": {"kernel": RNG.standard_normal((48, 7)), "bias": np.full(7, 9.0)},
    }
    flat = [params["Conv_0"]["kernel"].reshape(75, 16), params["Dense_0"]["kernel"]]
    tops = [np.linalg.svd(kernel, compute_uv=False)[0] for kernel in flat]
    assert list(margins.spectral_norms(params).values()) == pytest.approx(tops)
    norms = margins.norms(params)
    assert norms["spectral_product"] == pytest.approx(np.prod(tops))
    assert norms["weight_norm"] == pytest.approx(
        np.linalg.norm(np.concatenate([k.ravel() for k in flat]))
    )


def test_norms_cover_every_weight_and_are_unknown_without_one():
    w1, w2 = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 2))
    norms = margins.norms({"w1": w1, "w2": w2, "b": np.full(2, 9.0)})
    assert norms["weight_norm"] == pytest.approx(np.sqrt((w1**2).sum() + (w2**2).sum()))
    assert norms["spectral_product"] == pytest.approx(np.linalg.norm(w1, 2) * np.linalg.norm(w2, 2))
    assert margins.norms({"b": np.ones(2)}) == {"weight_norm": None, "spectral_product": None}
