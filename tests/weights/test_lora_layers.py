"""LoRA layers by forward hooks are peft's, to rounding, and they fit linear layers that are no nn.Linear."""

import copy

import pytest
import torch
from torch import nn

from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.linear_like import is_linear_like, linear_shapes
from danceopd_core.weights.lora import Lora
from danceopd_core.weights.lora_layers import add_lora, has_adapters


class PackedLinear(nn.Module):
    """A linear layer as quantised models have it: integers and a scale, and no nn.Linear."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        weight = torch.randint(-127, 128, (outputs, inputs), generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) / 200)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_experts, self.in_features, self.out_features = 4, 6, 6


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), PackedLinear(8, 8), nn.GELU(), nn.Linear(8, 5))


def lora(shapes, rank=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    down = {name: torch.randn(rank, inputs, generator=generator) for name, (_, inputs) in shapes.items()}
    up = {name: torch.randn(outputs, rank, generator=generator) for name, (outputs, _) in shapes.items()}
    return Lora(down, up, 0.7)


def activate(layers, *names):
    for layer in layers.values():
        layer.active = names


def test_what_takes_a_lora():
    assert linear_shapes(network()) == {"0": (8, 6), "2": (8, 8), "4": (5, 8)}
    assert not is_linear_like(Experts())
    assert not is_linear_like(nn.Conv2d(3, 3, 1))
    assert not is_linear_like(nn.Embedding(3, 3))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_values_and_gradients_are_those_of_peft(dtype, tolerance):
    plain = network()
    del plain[2]
    plain = plain.to(dtype)
    hooked, x = copy.deepcopy(plain), torch.randn(2, 4, 6).to(dtype)
    change = lora({"0": (8, 6), "3": (5, 8)})

    theirs = peft_layers(plain, change)
    expected = plain(x)
    expected.float().square().sum().backward()

    adapters = Adapters(hooked)
    adapters.start_student(change)
    answer = hooked(x)
    answer.float().square().sum().backward()
    assert near(answer, expected, tolerance)
    assert len(theirs) == 4
    for ours, factor in zip(adapters.parameters(), theirs, strict=True):
        assert torch.equal(ours, factor)
        assert near(ours.grad, factor.grad, tolerance)
    with torch.no_grad():
        assert near(hooked(x), expected, tolerance)


def near(one, other, tolerance):
    return (one.double() - other.double()).norm() <= tolerance * other.double().norm()


def test_bfloat16_rounds_no_worse_than_peft():
    """The sum is rounded once, where peft rounds the product, its multiple and the sum."""
    torch.manual_seed(0)
    exact = nn.Linear(64, 64).double()
    plain = nn.Sequential(copy.deepcopy(exact).bfloat16())
    exact.load_state_dict(plain[0].state_dict())
    hooked, x = copy.deepcopy(plain), torch.randn(256, 64).bfloat16()
    change = lora({"0": (64, 64)}, rank=8)
    adapters = Adapters(hooked)
    adapters.start_student(change)
    down, up = (factor.bfloat16().double() for factor in (change.down["0"], change.up["0"]))
    reference = exact(x.double()) + x.double() @ down.T @ up.T * change.scale
    peft_layers(plain, change)
    ours, theirs = ((model(x).double() - reference).norm() for model in (hooked, plain))
    assert 0 < ours < theirs


def test_a_rollout_casts_each_factor_once_and_again_after_an_update():
    model = nn.Sequential(nn.Linear(6, 8)).bfloat16()
    adapters = Adapters(model)
    adapters.start_student(lora({"0": (8, 6)}))
    (layer,) = adapters._layers.values()
    x = torch.randn(2, 6).bfloat16()
    with torch.no_grad():
        first = model(x)
        kept = {key: copied for key, (_, copied) in layer._casts.items()}
        assert torch.equal(model(x), first)
        assert len(kept) == 2
        assert all(layer._casts[key][1] is copied for key, copied in kept.items())
        adapters.parameters()[1].mul_(2)
        assert not torch.equal(model(x), first)
    model(x)
    assert not layer._casts


def peft_layers(model, change):
    """peft's own layers with these factors, which multiply in the dtype of their input as ours do."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=3 * change.scale, target_modules=list(change.down)), model)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    factors = []
    for name, layer in layers.items():
        layer.cast_input_dtype_enabled = False
        for part, values in ((layer.lora_A, change.down), (layer.lora_B, change.up)):
            part["default"].weight = nn.Parameter(values[name].clone())
            part["default"].forward = lambda x, linear=part["default"]: nn.functional.linear(
                x, linear.weight.to(x.dtype)
            )
            factors.append(part["default"].weight)
    return factors


def test_a_lora_over_packed_weights_is_the_sum():
    model, x = network().requires_grad_(False), torch.randn(3, 8)
    layers, change = {}, lora({"2": (8, 8)})
    bare = model[2](x)
    add_lora(model, layers, "a", change)
    assert torch.equal(model[2](x), bare)  # not active yet
    activate(layers, "a")
    delta = change.scale * change.up["2"] @ change.down["2"]
    assert torch.allclose(model[2](x), bare + x @ delta.T, atol=1e-5)
    assert has_adapters(model)
    layers["2"].remove()
    assert torch.equal(model[2](x), bare)
    assert not has_adapters(model)


def test_layers_are_in_the_networks_order():
    model, layers = network(), {}
    shapes = linear_shapes(model)
    for names in (("4", "0"), ("2",)):
        add_lora(model, layers, names[0], lora({n: shapes[n] for n in names}))
    assert list(layers) == ["0", "2", "4"]


def test_names_and_weights_of_the_network_stay():
    model = network()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    add_lora(model, {}, "a", lora(linear_shapes(model)))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'9'"):
        add_lora(network(), {}, "a", lora({"9": (8, 8)}))
