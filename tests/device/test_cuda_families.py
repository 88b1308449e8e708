"""Every family on a real card: it trains what the CPU trains, and its adapters and their gradients are of merges."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from danceopd_core.models.registry import open_backbone
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.lora import Lora

from ..loras import merged, random_lora
from ..models.test_all_families import SAVED, SIZE, samples
from ..versions import by_family
from .card import DEVICE, gap, needs_card, told, worst
from .cases import CASES, ONCE, Family, outcome

pytestmark = [needs_card, pytest.mark.slow, pytest.mark.usefixtures("on_card")]

NEAR = {"float32": 2e-3, "float16": 2e-2, "bfloat16": 0.25}
"""How far losses and errors may be off. Half precision of a tiny random network on the CPU alone is off by a fifth."""
REPEATED = [case for case in ONCE if case != "out of memory"]


def check(family: Family, case: str) -> None:
    """Trains on the card and on the CPU; says how far they are apart."""
    found = outcome(family, case, DEVICE)
    expected = outcome(family, case, "cpu", out=str(family.root / f"{case}-reference"))
    place = torch.device(DEVICE).type
    assert (found["network"], found["optimizer"], found["vae"]) == ([place], [place], "cpu")
    kind = str(family.recipe(case, DEVICE).dtype)
    losses = worst(found["losses"], expected["losses"])
    errors = worst([found["errors"]], [expected["errors"]])
    pictures = max(abs(one - other) for one, other in zip(found["pictures"], expected["pictures"], strict=True))
    told(f"{family.name}, {case}", dtype=kind, losses=losses, errors=errors, pictures=pictures)
    assert max(losses, errors) < NEAR[kind]
    assert pictures < (1 if kind == "float32" else 8)


@pytest.mark.parametrize("name", by_family(SAVED))
def test_trainings_are_those_of_the_cpu(name, tmp_path):
    family = Family(name, tmp_path)
    for case in CASES:
        check(family, case)


@pytest.mark.parametrize("case", REPEATED)
def test_what_one_family_trains_is_what_the_cpu_trains(case, tmp_path):
    check(Family("zimage", tmp_path), case)


class Merge(nn.Module):
    """A weight with a LoRA merged into it, in autograd's sight."""

    def __init__(self, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.down, self.up, self.scale = down, up, scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * self.up @ self.down


def moved(lora: Lora) -> Lora:
    down, up = ({name: factor.to(DEVICE) for name, factor in part.items()} for part in (lora.down, lora.up))
    return Lora(down, up, lora.scale)


@pytest.mark.parametrize("name", by_family(SAVED))
def test_adapters_are_merges_and_gradients_those_of_the_merged_form(name, tmp_path):
    backbone = open_backbone(SAVED[name](tmp_path), torch.float32, DEVICE)
    base = copy.deepcopy(backbone.network)
    adapters, targets = Adapters(backbone.network), backbone.default_targets
    loras = [random_lora(adapters.shapes, 4, seed, targets, 0.5) for seed in (1, 2)]
    teacher = adapters.add_teacher(loras[0])
    adapters.start_student(loras[1])
    x = torch.randn(2, *backbone.latent_shape(SIZE, SIZE), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    sigma, cond = torch.tensor([0.8, 0.3], device=DEVICE), samples(backbone).to(DEVICE)

    with torch.no_grad():
        bare = backbone.with_network(base).velocity(x, sigma, cond)
        alone = backbone.with_network(merged(base, moved(loras[0]))).velocity(x, sigma, cond)
    shared = adapters.field(backbone.velocity, teacher)(x, sigma, cond)
    torch.testing.assert_close(shared, alone, rtol=0, atol=5e-5)
    assert (alone - bare).abs().max() > 0.05
    assert adapters.field(backbone.velocity, None)(x, sigma, cond).equal(bare)

    adapters.field(backbone.velocity, STUDENT)(x, sigma, cond).square().mean().backward()
    found = adapters.named_parameters()
    other, factors = copy.deepcopy(base).requires_grad_(False), {}
    for module, down in moved(loras[1]).down.items():
        up = loras[1].up[module].to(DEVICE)
        factors[f"{module}.lora_A"], factors[f"{module}.lora_B"] = down.requires_grad_(), up.requires_grad_()
        merge = Merge(down, up, loras[1].scale)
        parametrize.register_parametrization(other.get_submodule(module), "weight", merge, unsafe=True)
    backbone.with_network(other).velocity(x, sigma, cond).square().mean().backward()
    assert found.keys() == factors.keys()
    reached = [name for name in found if found[name].grad is not None and found[name].grad.any()]
    assert len(reached) > len(found) / 2  # some layers of a last block do not reach the output
    flat = [torch.cat([part[name].grad.flatten() for name in reached]) for part in (found, factors)]
    told(f"{name}, adapters", velocity=gap(shared, alone), gradient=gap(*flat))
    assert gap(*flat) < 1e-4
