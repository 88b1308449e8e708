"""Verdicts on LoRAs of which it is known what is wrong with them."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.doctor.health import SPIKE_FACTOR, examine
from danceopd_core.doctor.lora_file import read_for_examination
from danceopd_core.doctor.spectrum import layer_spectrum
from danceopd_core.shapes import embedded
from danceopd_core.weights.lora import Lora, fresh_lora

SHAPES = {f"layers.{number}.to_q": (24, 16) for number in range(20)}
LORAS = {name: path for name, path in embedded().items() if name not in ("shapes", "shapes:realism")}


def trained(rank: int = 8) -> Lora:
    generator = torch.Generator().manual_seed(1)
    fresh = fresh_lora(SHAPES, rank, rank, ["to_q"], generator)
    return Lora(
        fresh.down, {module: 0.1 * torch.randn(up.shape, generator=generator) for module, up in fresh.up.items()}
    )


def changed(lora: Lora, module: str, up: torch.Tensor) -> Lora:
    return Lora(lora.down, {**lora.up, module: up}, lora.scale)


@pytest.mark.parametrize(("shape", "rank"), [((24, 16), 4), ((3, 16), 8), ((24, 5), 8)])
def test_the_spectrum_is_that_of_the_product(shape, rank):
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(rank, shape[1], generator=generator), torch.randn(shape[0], rank, generator=generator)
    product = 0.5 * up.double() @ down.double()
    layer = layer_spectrum("layer", down, up, -0.5)
    expected = torch.linalg.svdvals(product)
    found = torch.tensor(layer.values, dtype=torch.float64)
    assert torch.allclose(found[: len(expected)], expected[: len(found)], atol=1e-12)
    assert layer.norm == pytest.approx(float(product.norm()))
    assert layer.used == min(rank, *shape)


@pytest.mark.parametrize("name", LORAS)
def test_the_embedded_loras_are_healthy(name):
    health = read_for_examination(LORAS[name]).health()
    assert health.state == "healthy"
    tops = sorted(layer.top for layer in health.layers)
    assert tops[-1] < SPIKE_FACTOR * tops[len(tops) // 2]


def test_an_untrained_lora_is_dead():
    health = examine(fresh_lora(SHAPES, 8, 8, ["to_q"], torch.Generator().manual_seed(0)))
    assert health.state == "dead"
    assert "20 layers change nothing" in health.verdict()


def test_a_lora_of_scale_zero_is_dead():
    lora = trained()
    assert examine(Lora(lora.down, lora.up, 0.0)).state == "dead"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_named_with_its_layer(value):
    lora = trained()
    lora.up["layers.3.to_q"][0, 0] = value
    health = examine(lora)
    assert (health.state, health.broken) == ("broken", ("layers.3.to_q",))
    assert "layers.3.to_q" in health.verdict()


@pytest.mark.parametrize(("dead", "state"), [(2, "healthy"), (3, "doubtful")])
def test_many_dead_layers_are_a_reason_for_doubt(dead, state):
    lora = trained()
    for number in range(dead):
        lora = changed(lora, f"layers.{number}.to_q", torch.zeros(24, 8))
    health = examine(lora)
    assert health.state == state
    assert health.dead == tuple(f"layers.{number}.to_q" for number in range(dead))


def test_a_direction_that_carries_its_layer_is_a_spike_only_if_it_is_stronger_than_the_others():
    lora, module = trained(), "layers.7.to_q"
    weak, strong = torch.zeros(24, 8), torch.zeros(24, 8)
    weak[:, 0], strong[:, 0] = 0.1, 10.0
    assert examine(changed(lora, module, weak)).state == "healthy"
    health = examine(changed(lora, module, strong))
    assert (health.state, health.spikes) == ("doubtful", (module,))
    assert module in health.verdict()
    # As strong in every direction, it is a strong layer and no spike.
    assert examine(changed(lora, module, 100 * lora.up[module])).state == "healthy"


def test_what_was_found_can_be_written_as_json():
    import json

    told = json.loads(json.dumps(examine(trained()).to_dict()))
    assert (told["state"], told["layers"], told["rank"]) == ("healthy", 20, 8)
