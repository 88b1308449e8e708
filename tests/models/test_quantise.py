"""A quantised base is one network too: LoRAs over it are exact, and only the student learns."""

from __future__ import annotations

import copy
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import Tensor, nn

from danceopd_core.errors import InputError
from danceopd_core.models import quantise
from danceopd_core.models.quantise import QUANTISATIONS, check_quantise
from danceopd_core.models.registry import open_backbone
from danceopd_core.recipe.io import parse_recipe
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Student, Teacher
from danceopd_core.runs.budget.memory import planned_memory
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.runs.training.session import open_session
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.full_checkpoints import is_quantised, load_full_checkpoint
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import read_lora, write_lora

from ..loras import merged, query, random_lora
from ..tiny_families import save_sd3

FAR = {"int8": 0.03, "fp8": 0.12, "nf4": 0.4}  # tiny random networks suffer more than trained ones


@pytest.fixture
def kind(request, monkeypatch) -> str:
    """A kind whose package is here. nf4 is proven on the CPU, where diffusers refuses it and bitsandbytes does not."""
    pytest.importorskip(QUANTISATIONS[request.param].package)
    if QUANTISATIONS[request.param].needs_gpu:
        from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer

        monkeypatch.setattr(BnB4BitDiffusersQuantizer, "validate_environment", lambda self, **settings: None)
        # Its inference-only packing for some CPUs is neither what a GPU has nor for so few features.
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
        monkeypatch.setattr(quantise, "_device_map", lambda device: {"device_map": {"": "cpu"}})
        for module in ("danceopd_core.models.registry", "danceopd_core.runs.plans.preflight"):
            monkeypatch.setattr(f"{module}.check_quantise", lambda name, device: None)
    return request.param


each_kind = pytest.mark.parametrize("kind", QUANTISATIONS, indirect=True)


@pytest.fixture(scope="module", params=["zimage", "sd3"])
def folder(request, zimage_folder, tmp_path_factory):
    return zimage_folder if request.param == "zimage" else save_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture
def recipe(zimage_folder, opened_zimage, tmp_path) -> Recipe:
    shapes = linear_shapes(opened_zimage.network)
    write_lora(tmp_path / "teacher.safetensors", random_lora(shapes, 4, seed=1))
    return Recipe(
        str(zimage_folder),
        (Route("a", "edit", Bucket(prompts=("a red cat",))),),
        {"edit": Teacher(lora=str(tmp_path / "teacher.safetensors"))},
        student=Student(rank=4),
        steps=2,
        accumulate=1,
        rollout_steps=2,
        width=32,
        height=32,
        device="cpu",
        out=str(tmp_path / "run"),
        quantise="int8",
    )


def value(p: Tensor) -> Tensor:
    """What a weight stands for."""
    if type(p) is nn.Parameter:
        return p.detach().clone()
    if type(p).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(p.data, p.quant_state)
    return p.dequantize()


def stored(p: Tensor) -> int:
    """The bytes of a weight's numbers and scales."""
    if type(p) is nn.Parameter:
        return p.nbytes
    if type(p).__name__ == "Params4bit":
        return p.nbytes + p.quant_state.absmax.nbytes + p.quant_state.state2.absmax.nbytes
    return sum(getattr(p, name).nbytes for name in p.__tensor_flatten__()[0])


def plain(network: nn.Module) -> nn.Module:
    """A network of ordinary linear layers with the weights that the quantised ones stand for."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear):
            layer = nn.Linear(module.in_features, module.out_features, module.bias is not None)
            layer.weight, layer.bias = nn.Parameter(value(module.weight)), module.bias
            network.set_submodule(name, layer)
    return network.requires_grad_(False)


@each_kind
def test_its_velocity_is_nearly_that_of_the_whole_network(kind, folder):
    whole, small = open_backbone(folder), open_backbone(folder, quantise=kind)
    x, sigma, cond = query(whole, batch=1)
    with torch.no_grad():
        exact, found = whole.velocity(x, sigma, cond), small.velocity(x, sigma, cond)
    assert is_quantised(small.network)
    assert not is_quantised(whole.network)
    error = float((found - exact).norm() / exact.norm())
    print(f"{kind}: velocity off by {100 * error:.2f} %")
    assert 0 < error < FAR[kind]


@each_kind
def test_a_lora_over_it_is_the_merge_with_what_it_stands_for(kind, folder):
    backbone = open_backbone(folder, quantise=kind)
    base = plain(backbone.network)
    adapters = Adapters(backbone.network)
    lora = random_lora(adapters.shapes, 4, seed=1)
    name = adapters.add_teacher(lora)
    adapters.start_student(random_lora(adapters.shapes, 4, seed=2))
    x, sigma, cond = query(backbone, batch=1)
    found = adapters.field(backbone.velocity, name)(x, sigma, cond)
    with torch.no_grad():
        expected = backbone.with_network(merged(base, lora)).velocity(x, sigma, cond)
        bare = backbone.with_network(base).velocity(x, sigma, cond)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - bare).abs().max() > 0.05


@each_kind
def test_its_gradients_are_those_over_the_weights_it_stands_for(kind, zimage_folder):
    backbone = open_backbone(zimage_folder, quantise=kind)
    other = plain(backbone.network)
    x, sigma, cond = query(backbone, batch=1)
    found = []
    for network in (backbone.network, other):
        adapters = Adapters(network)
        adapters.start_student(random_lora(adapters.shapes, 4, seed=2))
        backbone.with_network(network).velocity(x, sigma, cond).square().mean().backward()
        found.append([factor.grad for factor in adapters.parameters()])
    for one, two in zip(*found, strict=True):
        assert one.any()
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@each_kind
def test_two_updates_change_only_the_student_and_use_the_planned_memory(kind, recipe, tmp_path, opened_zimage):
    recipe = parse_recipe({**recipe.to_dict(), "quantise": kind, "gradient_checkpointing": True})
    planned = planned_memory(recipe)
    run = open_session(recipe)
    own = {id(factor) for factor in run.adapters.parameters()}
    named = dict(run.backbone.network.named_parameters())
    teachers = [p for name, p in named.items() if ".lora_" in name and id(p) not in own]
    bases = [p for name, p in named.items() if ".lora_" not in name]
    assert sum(map(stored, bases)) == planned.base
    assert sum(map(stored, teachers)) == planned.loras
    before = {name: value(p) for name, p in named.items()}
    assert len(list(run.trainer)) == 2
    moments = [
        m
        for state in run.trainer.state_dict()["optimizer"]["state"].values()
        for m in (state["exp_avg"], state["exp_avg_sq"])
    ]
    weights = run.adapters.parameters()
    assert {p.dtype for p in weights} == {torch.float32}
    assert (
        2 * sum(map(stored, weights)) + sum(map(stored, map(nn.Parameter, moments))) == planned.student
    )  # 2: gradients
    changed = {name for name, p in named.items() if not value(p).equal(before[name])}
    assert changed
    assert all(f".{STUDENT}." in name for name in changed)
    run.write_student(tmp_path / "student.safetensors")
    shapes = linear_shapes(opened_zimage.network)
    saved = read_lora(tmp_path / "student.safetensors", shapes)
    usual = fresh_lora(shapes, 4, 4, opened_zimage.default_targets, torch.Generator())
    assert {m: d.shape for m, d in saved.down.items()} == {m: d.shape for m, d in usual.down.items()}


@each_kind
def test_full_checkpoints_are_no_teachers_over_it(kind, zimage_folder, tmp_path):
    backbone = open_backbone(zimage_folder, quantise=kind)
    with pytest.raises(InputError, match=r"a\.safetensors cannot be a teacher of a quantised model"):
        load_full_checkpoint(backbone.network, tmp_path / "a.safetensors")


def faults(recipe: Recipe) -> str:
    with pytest.raises(InputError) as caught:
        preflight(recipe)
    return str(caught.value)


def test_an_absent_package_is_reported_with_all_other_faults_before_a_model_is_opened(recipe, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(quantise, "version", absent)
    found = faults(parse_recipe({**recipe.to_dict(), "width": 33}))
    assert "quantise: int8 needs torchao: pip install torchao, or leave quantise out" in found
    assert "width: 33" in found
    with pytest.raises(InputError, match=r"pip install torchao"):
        open_backbone(recipe.model, quantise="fp8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"pip install bitsandbytes"):
        check_quantise("nf4", "auto")


def test_a_package_that_is_too_old_and_a_kind_that_needs_a_gpu_are_errors(monkeypatch):
    monkeypatch.setattr(quantise, "version", lambda name: "0.7.0")
    with pytest.raises(InputError, match=r"torchao 0\.16\.0, not 0\.7\.0"):
        check_quantise("int8", "cpu")
    with pytest.raises(InputError, match=r"on a GPU only, and the device is cpu: use int8, fp8"):
        check_quantise("nf4", "cpu")
    with pytest.raises(InputError, match=r"no quantisation is named 'int4'.*int8, fp8, nf4"):
        check_quantise("int4", "cpu")


def test_what_is_not_quantised_is_refused_when_the_recipe_is_read(recipe, tmp_path):
    with pytest.raises(InputError, match=r"quantise: only the transformer in the model's own folder"):
        parse_recipe({**recipe.to_dict(), "components": {"transformer": "/a.safetensors"}})
    full = {"edit": {"checkpoint": "/full.safetensors"}}
    with pytest.raises(InputError, match=r"quantise: a full checkpoint \(edit\) cannot be a teacher"):
        parse_recipe({**recipe.to_dict(), "teachers": full})
    with pytest.raises(InputError, match=r"quantise: 'int4' is not one of int8, fp8, nf4"):
        parse_recipe({**recipe.to_dict(), "quantise": "int4"})
    with pytest.raises(InputError, match=r"single file, which is not quantised"):
        open_backbone(recipe.model, components={"transformer": tmp_path / "a.safetensors"}, quantise="int8")


def test_a_recipe_names_the_kinds_that_there_are_and_counts_them(recipe):
    made = [parse_recipe({**recipe.to_dict(), "quantise": kind}) for kind in (*QUANTISATIONS, None)]
    assert len({one.digest() for one in made}) == len(made)
    assert made[-1] == parse_recipe({k: v for k, v in recipe.to_dict().items() if k != "quantise"})
    sizes = {one.quantise: planned_memory(one).base for one in made}
    assert sizes["nf4"] < sizes["fp8"] < sizes["int8"] < sizes[None]
