"""One update of the trainer at the size of released models, on tensors without memory: simulated, never measured.

The real network with the project's LoRA layers, the real rollout, teacher, backward pass and optimiser run on PyTorch's
meta device; bytes alive, FLOPs, copies and reads by the host are counted.
"""

from __future__ import annotations

import pytest

from danceopd_core.research.peaks.update import simulated
from danceopd_core.runs.budget.memory import GIB
from danceopd_core.runs.budget.released import released_estimate

# (model, rank, checkpointing, edit): GiB at the peak, TFLOP of an update, and small tensors that go to the device:
# noise, what the prompt is encoded to, and what diffusers' networks make for themselves.
STORED = {
    ("sd35m", 16, True, False): (5.42, 74.06, 3),
    ("sd35m", 16, False, False): (12.11, 62.75, 3),
    ("zimage", 128, True, False): (18.65, 375.4, 5),
    ("zimage", 128, False, False): (51.54, 314.8, 5),
    ("zimage", 128, True, True): (20.96, 866.7, 8),
}


@pytest.mark.parametrize(
    "of",
    [
        ("sd35m", 16, True, False),
        pytest.param(("zimage", 128, True, False), marks=pytest.mark.slow),
        *(pytest.param(of, marks=pytest.mark.long) for of in STORED if of[2:] != (True, False)),
    ],
)
def test_an_update_at_real_size(of):
    name, rank, checkpointing, edit = of
    peak, tflop, sent = STORED[of]
    estimate = released_estimate(name, rank, edit)
    found = simulated(estimate.of, rank, checkpointing)
    assert found.peak / GIB == pytest.approx(peak, rel=0.02)
    assert found.flops / 1e12 == pytest.approx(tflop, rel=0.02)
    assert found.peak == pytest.approx(estimate.memory(estimate.recipe, checkpointing, 1).update, rel=0.03)
    assert set(found.kernels) == {"flash"}  # no mask, which would send attention to slower kernels
    # Losses, errors, indices and the norm travel once; nothing else is waited for.
    assert found.counted == {"meta to cpu": 1, "cpu to meta": sent}
