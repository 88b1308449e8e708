"""Gradients pass over weights that stay where they are: what ComfyUI streams is made resident first, or refused."""

from contextlib import ExitStack, contextmanager
from functools import cache

import comfy.memory_management
import comfy.model_management as management
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher, ModelPatcherDynamic
from comfy.ops import fp8_ops
from comfy_aimdo import host_buffer
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.weights.adapters import STUDENT, Adapters
from pack.danceopd_core.weights.lora import fresh_lora
from pack.nodes.native import opening
from pack.nodes.native.lora_names import native_tensors
from pack_laws.gradients import loaded
from pack_laws.loras import far, random_lora
from pack_laws.tiny_models import backbone_of, prompts, state, tiny_backbone, tiny_model

CPU = torch.device("cpu")


@cache
def stock_lora(name):
    return native_tensors(random_lora(tiny_backbone(name)))


def given(name, patched=False):
    """A MODEL as loader nodes give it, with a stock LoRA on it or none."""
    with torch.inference_mode():
        model = tiny_model(name)
        if patched:
            model, _ = comfy.sd.load_lora_for_models(model, None, stock_lora(name), 1.0, 0.0)
    return model


def gradients(backbone, name, disturb=lambda patcher: None):
    """The student's, at one state; `disturb` is done to the MODEL between opening and training."""
    torch.manual_seed(0)
    adapters = Adapters(backbone.network, CPU, torch.float32)
    lora = fresh_lora(adapters.shapes, 3, 3.0, backbone.default_targets, torch.Generator().manual_seed(1))
    adapters.start_student(lora)
    generator = torch.Generator().manual_seed(2)
    for factor in adapters.parameters():
        factor.data.copy_(0.1 * torch.randn(factor.shape, generator=generator))
    x, sigma = state(backbone)
    disturb(backbone.patcher)
    management.in_training = True
    try:
        adapters.field(backbone.velocity, STUDENT)(x, sigma, prompts(name)).square().mean().backward()
    finally:
        management.in_training = False
    return [factor.grad.clone() for factor in adapters.parameters()]


def refusal(model):
    try:
        backbone_of(model)
    except InputError as error:
        return str(error)
    raise AssertionError("it was taken")


def equal(one, other):
    assert any(gradient.any() for gradient in other)
    return all(far(a, b) < 1e-5 if b.any() else not a.any() for a, b in zip(one, other, strict=True))


@contextmanager
def replaced(**attributes):
    """Names of comfy.model_management, for the time of a block."""
    with ExitStack() as stack:
        for name, value in attributes.items():
            stack.callback(setattr, management, name, vars(management)[name])
            setattr(management, name, value)
        yield


def on_a_small_device(state):
    """ComfyUI's decisions as on a device of its own with hardly any memory, in the state that its flags set.

    Attention then works in chunks, with operations that write into `out`.
    """

    def free(device=None, torch_free_too=False):
        return (1, 1) if torch_free_too else 1

    return replaced(is_device_cpu=lambda device: False, vram_state=state, get_free_memory=free)


def test_weights_that_comfyui_took_away_come_back_before_gradients():
    for name in ("SD3", "Flux2"):
        for patched in (False, True):
            resident = gradients(backbone_of(given(name, patched)), name)

            def unloaded(patcher):
                assert patcher.partially_unload(CPU, 10**9) > 0
                assert opening.misplaced(patcher)

            def streamed(patcher):
                patcher.detach()
                patcher.load(CPU, lowvram_model_memory=1)
                assert opening.misplaced(patcher)

            def gone(patcher):
                management.unload_all_models()
                patcher.detach()

            for disturb in (unloaded, streamed, gone):
                backbone = backbone_of(given(name, patched))
                assert equal(gradients(backbone, name, disturb), resident), (name, patched, disturb.__name__)
                assert not opening.misplaced(backbone.patcher)


def test_lowvram_is_made_resident():
    resident = gradients(backbone_of(given("SD3", True)), "SD3")
    with on_a_small_device(management.VRAMState.LOW_VRAM):
        model = given("SD3", True)
        management.load_models_gpu([model])
        assert model.model.model_lowvram, "this is not what --lowvram does"
        backbone = backbone_of(model)
        assert not opening.misplaced(backbone.patcher)
        assert equal(gradients(backbone, "SD3"), resident)


def test_novram_is_refused_with_a_sentence():
    with on_a_small_device(management.VRAMState.NO_VRAM):
        told = refusal(given("SD3"))
    assert "does not fit" in told
    assert "--novram" in told


def dynamic_model(name, disable_dynamic=False):
    """A MODEL under dynamic VRAM; ComfyUI makes none on a CPU, so the class is made past its own check."""
    patcher = tiny_model(name)
    if not disable_dynamic:
        host_buffer.HostBuffer = lambda *sizes: None  # comfy-aimdo has none without a GPU
        dynamic = object.__new__(ModelPatcherDynamic)
        dynamic.__init__(patcher.model, CPU, CPU)
        patcher = dynamic
    patcher.cached_patcher_init = (dynamic_model, (name,))
    return patcher


def test_a_model_under_dynamic_vram_is_loaded_anew_without():
    resident = gradients(backbone_of(given("SD3")), "SD3")
    with torch.inference_mode():
        model = dynamic_model("SD3")
    assert model.is_dynamic()
    backbone = backbone_of(model)
    assert type(backbone.patcher) is ModelPatcher
    assert equal(gradients(backbone, "SD3"), resident)


def test_a_copy_has_the_precision_of_its_network():
    """Where dynamic VRAM is on, ComfyUI leaves weights as the file has them until they are streamed."""
    file = given("SD3").model.diffusion_model.state_dict()
    before, comfy.memory_management.aimdo_enabled = comfy.memory_management.aimdo_enabled, True
    try:
        with torch.inference_mode():
            model = loaded(file, torch.bfloat16)
        if torch.float32 not in {weight.dtype for weight in model.model.diffusion_model.parameters()}:
            return  # as ComfyUI 0.28, which casts them while it loads
        backbone = backbone_of(model)
    finally:
        comfy.memory_management.aimdo_enabled = before
    assert {weight.dtype for weight in backbone.network.parameters()} == {torch.bfloat16}
    exact = torch.cat([part.flatten() for part in gradients(backbone_of(given("SD3")), "SD3")])
    assert far(torch.cat([part.flatten() for part in gradients(backbone, "SD3")]), exact) < 0.05


def test_a_loader_that_streams_all_the_same_or_fails_is_refused():
    def error(factory):
        with torch.inference_mode():
            model = tiny_model("SD3")
        model.cached_patcher_init = (factory, ("SD3",))
        return refusal(model)

    assert "--disable-dynamic-vram" in error(lambda name, disable_dynamic: dynamic_model(name))
    assert "cannot be loaded a second time" in error(lambda name: tiny_model(name))

    def gone(name, disable_dynamic):
        raise FileNotFoundError("no such file: a.safetensors")

    assert "a.safetensors" in error(gone)


def test_a_wrapper_of_a_weight_is_no_streaming():
    """Other nodes put functions on weights that are resident; they are part of the MODEL."""
    model = given("SD3")
    name = next(name for name, _ in model.model.diffusion_model.named_parameters() if name.endswith("qkv.weight"))
    model.add_weight_wrapper(f"diffusion_model.{name}", lambda weight: weight * 0.5)
    halved = backbone_of(model)
    x, sigma = state(halved)
    with torch.no_grad():
        plain = tiny_backbone("SD3").velocity(x, sigma, prompts("SD3"))
        assert far(halved.velocity(x, sigma, prompts("SD3")), plain) > 1e-4


def test_layers_that_multiply_in_float8_have_gradients():
    """Of the loader's option fp8_e4m3fn_fast, whose products only some GPUs have: its layers become those without."""
    file = given("SD3").model.diffusion_model.state_dict()
    with torch.inference_mode():
        model = loaded(file, custom_operations=fp8_ops)
    assert fp8_ops.Linear in {type(module) for module in model.model.diffusion_model.modules()}
    backbone = backbone_of(model)
    assert fp8_ops.Linear not in {type(module) for module in backbone.network.modules()}
    assert fp8_ops.Linear in {type(module) for module in model.model.diffusion_model.modules()}
    assert equal(gradients(backbone, "SD3"), gradients(backbone_of(given("SD3")), "SD3"))
