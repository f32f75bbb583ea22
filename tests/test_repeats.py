"""Repeated examples, found by value."""

import numpy as np

from rethinking.repeats import first_occurrences


def test_first_occurrences_compare_values():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.5], [2.0, 3.0], [0.0, 1.0]])
    np.testing.assert_array_equal(first_occurrences(points), [0, 1, 0, 3, 1, 0])
