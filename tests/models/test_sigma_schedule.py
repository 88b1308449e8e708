"""Laws of the grids of sigmas."""

import pytest
import torch

from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.errors import InputError
from danceopd_core.models.sigma_schedule import SIGMA_SCHEDULES, path_sigmas

OWN = torch.tensor([1.0, 0.9, 0.1, 0.0])


def test_the_models_grid_is_the_models():
    assert path_sigmas("model", 3, lambda: OWN) is OWN


@pytest.mark.parametrize("chosen", ["paper", 3.0])
def test_a_shift_does_not_use_the_models_schedule(chosen):
    def never():
        raise AssertionError

    sigmas = path_sigmas(chosen, 16, never)
    assert sigmas.equal(linear_sigmas(16, 3.0))
    assert [round(float(sigma), 3) for sigma in sigmas[11:]] == [0.577, 0.5, 0.409, 0.3, 0.167, 0.0]


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(InputError, match=", ".join(SIGMA_SCHEDULES)):
        path_sigmas("own", 3, lambda: OWN)
