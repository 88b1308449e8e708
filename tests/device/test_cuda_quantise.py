"""Quantised bases on a real card: near the whole network, exact gradients of the student, trained."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.errors import InputError
from danceopd_core.models.quantise import QUANTISATIONS, check_quantise
from danceopd_core.models.registry import open_backbone
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.full_checkpoints import is_quantised

from ..loras import query, random_lora
from ..models.test_all_families import SAVED
from ..models.test_quantise import FAR, plain, value
from .card import DEVICE, gap, needs_card, told
from .cases import Family, Watcher, train

pytestmark = [
    needs_card,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_card"),
    pytest.mark.parametrize("kind", QUANTISATIONS),
]


@pytest.fixture(autouse=True)
def _loads(kind: str) -> None:
    try:
        check_quantise(kind, DEVICE)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["zimage", "sd3"])
def test_it_is_near_the_whole_network_and_the_student_learns_through_it(kind, name, tmp_path):
    folder = SAVED[name](tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        whole, small = (open_backbone(folder, dtype, DEVICE, quantise=one) for one in (None, kind))
        x, sigma, cond = (one.to(DEVICE) for one in query(whole, batch=1))
        with torch.no_grad():
            error = gap(small.velocity(x, sigma, cond), whole.velocity(x, sigma, cond))
        assert is_quantised(small.network)
        other, gradients = plain(small.network).to(DEVICE), []
        for network in (small.network, other):
            adapters = Adapters(network)
            adapters.start_student(random_lora(adapters.shapes, 4, seed=2))
            field = adapters.field(small.with_network(network).velocity, STUDENT)
            field(x, sigma, cond).square().mean().backward()
            factors = [factor.grad for factor in adapters.parameters() if factor.grad is not None]
            gradients.append(torch.cat([one.flatten() for one in factors]))
        assert all(one.isfinite().all() and one.any() for one in gradients)
        apart = gap(*gradients)
        told(f"{name} in {kind}", dtype=str(dtype), velocity=error, gradient=apart)
        assert 0 < error < FAR[kind]
        assert apart < (2e-3 if dtype == torch.float32 else 0.1)


def test_a_run_over_it_changes_only_the_student(kind, tmp_path):
    family, watcher = Family("zimage", tmp_path), Watcher()
    recipe = family.recipe("diffusionopd", DEVICE, quantise=kind, gradient_checkpointing=True, steps=1)
    session = train(recipe, watcher)
    own = {id(factor) for factor in session.adapters.parameters()}
    frozen = {n: p for n, p in session.backbone.network.named_parameters() if id(p) not in own}
    before = {name: value(p) for name, p in frozen.items()}
    student = {name: factor.clone() for name, factor in session.adapters.state_dict().items()}
    more = family.recipe("diffusionopd", DEVICE, quantise=kind, gradient_checkpointing=True, steps=3)
    again = train(more, watcher, resume=True)
    assert len(watcher.losses) == 3
    later = {n: p for n, p in again.backbone.network.named_parameters() if n in before}
    assert all(value(p).equal(before[name]) for name, p in later.items())
    assert any(not factor.equal(student[name]) for name, factor in again.adapters.state_dict().items())
    told(f"a run in {kind}", losses=[sum(one.values()) for one in watcher.losses])
