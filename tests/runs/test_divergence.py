"""When a run is said to move away from its teachers."""

import pytest

from danceopd_core.runs.training.divergence import WARNING, divergence

# The first numbers of each are measured: the embedded quick start at the learning rates 5e-4 and 1.
START = {"text-to-image": 0.295, "edit": 0.0}


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ({"text-to-image": 0.38, "edit": 0.096}, ""),
        ({"text-to-image": 0.757, "edit": 0.743}, WARNING),
        ({"text-to-image": None, "edit": 0.0}, WARNING),
        ({"text-to-image": 0.1, "edit": 0.05}, ""),
        ({}, ""),
    ],
)
def test_only_a_run_that_diverges_is_warned_of(errors, told):
    assert divergence(START, errors) == told


def test_nothing_is_said_where_the_start_is_not_known():
    assert divergence({}, {"text-to-image": 9.0}) == ""
