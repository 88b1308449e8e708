# ruff: noqa: PT017 (run without pytest)
"""What only a card can tell of training over MODELs: dynamic VRAM, memory, kernels of quantised weights, start options.

The MODELs are files of random weights, loaded by the stock loader: "small" ones for numbers; "large" and "medium" for
memory, in bfloat16: sixteen blocks in 1.3 GB, and the 24 blocks of Stable Diffusion 3.5 Medium at its width. Figures
are printed as JSON.
"""

import atexit
import gc
import json
import shutil
import tempfile
import weakref
from functools import cache
from pathlib import Path

import comfy.memory_management
import comfy.model_management as management
import comfy.sample
import comfy.sd
import comfy_aimdo.control
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.algorithm.methods import method
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.weights.adapters import STUDENT
from pack.nodes._comfy import workspace
from pack.nodes.native import opening
from pack.nodes.native.checkpointing import enable_checkpointing
from pack.nodes.native.conditioning import conditioning_of
from pack.nodes.native.lora_names import native_tensors
from pack.nodes.native.memory import training_memory
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack.nodes.native.source import NativeModel, NativeTeacher, NativeWeights
from pack_laws import gguf_models
from pack_laws.gradients import far, flat, gradients, quantised, student
from pack_laws.loras import GENERATOR, random_lora
from pack_laws.memory import digest, session_over
from pack_laws.tiny_models import DEVICE, backbone_of, prompts, randomize, state, tiny_model
from pack_laws.training import distilled, remaining
from safetensors.torch import save_file

DYNAMIC = comfy.memory_management.aimdo_enabled
CARD = DEVICE.type == "cuda"


def sized(depth, text, **more):
    """Stable Diffusion 3's settings for so many blocks, of 64 times that width, and texts of that width."""
    layer = {"in_features": text, "out_features": 64 * depth}
    embedder = {"context_embedder_config": {"target": "torch.nn.Linear", "params": layer}}
    return {"depth": depth, "num_blocks": depth, **embedder, **more}


SMALL = sized(6, 48)
WIDTHS = {"large": 16, "medium": 24} if CARD else {"large": 4, "medium": 4}
MORE = {"adm_in_channels": 2048, "num_patches": 4096, "pos_embed_max_size": 64}
SIDE = 1024
"""Pixels of the pictures that memory is measured at."""
SLACK = 192 * 2**20
"""Bytes that may stay: cuBLAS keeps a workspace for every thread."""
VELOCITIES = {"fp8_scaled": 0.1, "int8": 0.1, "fp8": 0.05, "fp8_fast": 0.15, "gguf": 1e-3}
GRADIENTS = {"fp8_scaled": 0.15, "int8": 0.15, "fp8": 0.1, "fp8_fast": 0.3, "gguf": 1e-3}
"""How far an answer or a gradient may be from that of a resident float32 run over the same weights."""


@cache
def folder():
    made = Path(tempfile.mkdtemp(prefix="danceopd-cuda-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def file_of(size):
    """A file of random weights: "small" in float32, of `tiny_model`'s numbers; the others in bfloat16."""
    path = folder() / f"{size}.safetensors"
    with torch.inference_mode(False), torch.no_grad():
        if size == "small":
            network = tiny_model("SD3", more=tuple(SMALL.items())).model.diffusion_model
        else:
            settings = sized(WIDTHS[size], 4096, **MORE)
            network = tiny_model(
                "SD3", torch.bfloat16, more=tuple(settings.items()), filled=False
            ).model.diffusion_model
            randomize(network, device=DEVICE)
        save_file({name: weight.contiguous() for name, weight in network.state_dict().items()}, str(path))
    return str(path)


def given(size, dtype=None):
    """The MODEL of a file as Load Diffusion Model gives it, in the file's precision or another one."""
    dtype = dtype or (torch.float32 if size == "small" else torch.bfloat16)
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(file_of(size), {"dtype": dtype})
    assert model.is_dynamic() == DYNAMIC
    return model


def resident(dtype=torch.float32):
    """The small MODEL with all of its weights on the device, never streamed."""
    with torch.inference_mode():
        model = tiny_model("SD3", dtype, more=tuple(SMALL.items()))
    assert not model.is_dynamic()
    return model


def asked(size, count=2):
    if size == "small":
        return prompts("SD3", count)
    generator = torch.Generator().manual_seed(1)
    shapes = {"text": (77, 4096), "pooled_output": (1, 2048)}
    drawn = ({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()} for _ in range(count))
    return Conditioning(tuple(Sample(values) for values in drawn)).to(DEVICE)


def sampled(model, size, side=256):
    """The latents that a KSampler draws, on the CPU."""
    with torch.inference_mode():
        ((embedded, extras),) = conditioning_of(asked(size, 1).samples[0])
        text = [[embedded.clone(), extras]]
        empty = torch.zeros(1, 16, side // 8, side // 8)
        noise = comfy.sample.prepare_noise(empty, 7)
        return comfy.sample.sample(
            model, noise, 4, 1.0, "euler", "simple", text, text, empty, disable_pbar=True, seed=7
        ).cpu()  # fmt: skip


def side_of(size):
    return (256, 256) if size == "small" or not CARD else (SIDE, SIDE)


def held():
    """Bytes that this process has on the card once all models are unloaded: torch's, and those of dynamic VRAM."""
    gc.collect()
    management.unload_all_models()
    management.cleanup_models_gc()
    gc.collect()
    management.soft_empty_cache()
    if not CARD:
        return {"torch": 0, "dynamic": 0, "free": 0}
    torch.cuda.synchronize()
    streamed = comfy_aimdo.control.get_total_vram_usage() if DYNAMIC else 0
    return {"torch": torch.cuda.memory_allocated(), "dynamic": streamed, "free": management.get_free_memory(DEVICE)}


def told(**figures):
    print("\n" + json.dumps({"figures": figures, "dynamic": DYNAMIC, "vram": management.vram_state.name}), flush=True)


def trained(model, size, steps=2, checkpointing=False, lr=1e-2):
    """A training over the MODEL as a node does it: the LoRA, its losses, how far it still is, and weak references."""
    with workspace(True):
        backbone = backbone_of(model)
        cond = asked(size)
        adapters, teacher, losses = distilled(
            backbone, random_lora(backbone), cond, steps, method("danceopd"), checkpointing, lr=lr, size=side_of(size)
        )
        left = remaining(backbone, adapters, teacher, cond, size=side_of(size))
        lora = native_tensors(adapters.student())
        return (
            lora,
            losses,
            left,
            [weakref.ref(part) for part in (backbone, backbone.model, backbone.patcher, adapters)],
        )


def test_gradients_over_streamed_weights_are_those_over_resident_ones():
    """Under dynamic VRAM the MODEL given has no weights of its own on the device; sampling it changes nothing."""
    expected = gradients_of(backbone_of(resident()))
    model = given("small")
    sampled(model, "small")
    backbone = backbone_of(model)
    assert not backbone.patcher.is_dynamic()
    found = gradients_of(backbone)
    sampled(model, "small")
    management.unload_all_models()
    again = gradients_of(backbone)
    assert not opening.misplaced(backbone.patcher)
    told(gradients=far(found, expected), after_sampling=far(again, expected))
    assert far(found, expected) < 1e-4
    assert far(again, expected) < 1e-4
    enable_checkpointing(backbone.network)
    assert far(gradients_of(backbone), expected) < 1e-4


def gradients_of(backbone):
    with torch.inference_mode(False), torch.enable_grad():
        lora = random_lora_of(backbone)
        adapters = student(backbone, lora)
        found = flat(gradients(backbone, "SD3", adapters))
        adapters.remove()
    return found


def random_lora_of(backbone):
    GENERATOR.manual_seed(0)
    return random_lora(backbone)


def test_a_file_in_another_precision_trains():
    """Dynamic VRAM keeps weights as the file has them and casts them in use; the copy has them cast."""
    for dtype, tolerance in ((torch.bfloat16, 0.03), (torch.float16, 0.01)):
        model = given("small", dtype)
        sampled(model, "small")
        backbone = backbone_of(model)
        assert {weight.dtype for weight in backbone.network.parameters()} == {dtype}
        apart = far(gradients_of(backbone), gradients_of(backbone_of(resident())))
        told(dtype=str(dtype), gradients=apart)
        assert apart < tolerance


def test_it_trains_or_is_refused_in_one_sentence():
    """Under whatever options ComfyUI was started with; without room for any weight it cannot."""
    model = given("small")
    try:
        _, losses, _, _ = trained(model, "small", steps=3)
    except InputError as error:
        told(refused=str(error))
        assert management.vram_state is management.VRAMState.NO_VRAM, error
        assert "--novram" in str(error)
        return
    told(losses=losses)
    assert management.vram_state is not management.VRAMState.NO_VRAM
    assert all(0 < loss < 1e4 for loss in losses)
    with workspace(True):
        assert far(gradients_of(backbone_of(model)), gradients_of(backbone_of(resident()))) < 1e-4


def test_a_training_leaves_the_model_and_the_memory_as_they_were():
    model = given("large")
    trained(given("small"), "small")  # what libraries keep for themselves is there from now on
    weights, before = digest(model), sampled(model, "large")
    start = held()
    for checkpointing in (False, True):
        _, losses, _, made = trained(model, "large", checkpointing=checkpointing)
        assert all(0 < loss < 1e4 for loss in losses), losses
        end = held()
        told(checkpointing=checkpointing, start=start, end=end)
        assert not [part() for part in made if part() is not None]
        assert end["torch"] - start["torch"] < SLACK
        assert end["dynamic"] - start["dynamic"] < SLACK
    assert digest(model) == weights
    after = sampled(model, "large")
    told(picture=far(after, before), the_same=torch.equal(after, before))
    assert far(after, before) < 1e-3


def in_8_bits(kind):
    """A MODEL in 8 bits, as its loader gives it, and one of the same weights in float32."""
    more = tuple(SMALL.items())
    with torch.inference_mode():
        if kind == "gguf":
            return gguf_models.both("SD3", more)
        if kind in ("fp8_scaled", "int8"):
            packed, plain = quantised({"fp8_scaled": "float8_e4m3fn", "int8": "int8_tensorwise"}[kind], more)
            return loaded(packed), loaded(plain, dtype=torch.float32)
        source = tiny_model("SD3", more=more).model.diffusion_model.state_dict()
        packed = {name: weight.to(torch.float8_e4m3fn) for name, weight in source.items()}
        fast = {"fp8_optimizations": True} if kind == "fp8_fast" else {}
        plain = {name: weight.float() for name, weight in packed.items()}
        return loaded(packed, dtype=torch.float8_e4m3fn, **fast), loaded(plain, dtype=torch.float32)


def loaded(state_dict, disable_dynamic=False, **options):
    model = comfy.sd.load_diffusion_model_state_dict(dict(state_dict), options, disable_dynamic=disable_dynamic)

    def again(disable_dynamic=False):
        return loaded(state_dict, disable_dynamic, **options)

    model.cached_patcher_init = (again, ())
    return model


def check_8_bits(kind):
    """Its velocities and gradients are nearly those of its weights in float32, and a student learns over it."""
    model, plain = in_8_bits(kind)
    with workspace(True):
        backbone, exact = backbone_of(model), backbone_of(plain)
        x, sigma = state(exact)
        with torch.no_grad():
            velocity = far(backbone.velocity(x, sigma, prompts("SD3")), exact.velocity(x, sigma, prompts("SD3")))
        gradient = far(gradients_of(backbone), gradients_of(exact))
        del backbone, exact
    _, losses, left, _ = trained(model, "small", steps=30, lr=3e-3)
    told(kind=kind, velocity=velocity, gradient=gradient, losses=[losses[0], losses[-1]], left=left)
    assert velocity < VELOCITIES[kind]
    assert gradient < GRADIENTS[kind]
    assert left < 0.95


def test_a_scaled_fp8_model_trains():
    check_8_bits("fp8_scaled")


def test_a_plain_fp8_model_trains():
    check_8_bits("fp8")


def test_a_plain_fp8_model_with_fast_kernels_trains():
    check_8_bits("fp8_fast")


def test_an_int8_model_trains():
    check_8_bits("int8")


def test_a_gguf_model_trains():
    check_8_bits("gguf")


def test_the_file_on_the_model_is_the_student():
    """By the stock loader on the MODEL given, as ComfyUI streams and patches it."""
    model = given("small")
    with workspace(True):
        backbone = backbone_of(model)
        adapters, _, _ = distilled(
            backbone, random_lora_of(backbone), asked("small"), 30, method("danceopd"), lr=3e-3, size=side_of("small")
        )
        x, sigma = state(backbone)
        with torch.no_grad():
            ours, bare = (
                adapters.field(backbone.velocity, name)(x, sigma, prompts("SD3")).clone() for name in (STUDENT, None)
            )
        file = native_tensors(adapters.student())
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(model, None, file, 1.0, 0.0)
    assert len(patched.patches) == len(file) // 2
    with workspace(False), torch.no_grad():
        base = backbone_of(resident())
        live = NativeWeights({"comfyui:SD3:x": NativeTeacher(patched, "x")}).checkpoint("comfyui:SD3:x", base)
        theirs = live.velocity(x, sigma, prompts("SD3"))
    told(student_to_file=far(theirs - bare, ours - bare), change=far(ours, bare))
    assert far(ours, bare) > 1e-3
    assert far(theirs - bare, ours - bare) < 0.01


def test_the_embedded_model_trains_and_nothing_stays():
    """A whole session with text encoder, VAE and edits, in every precision that Load Shapes has."""
    with torch.inference_mode():
        clip, vae = shapes_clip(), shapes_vae()
    for weights in ("float32", "bfloat16", "fp8"):
        with torch.inference_mode():
            model = shapes_model(weights=weights)
        native = NativeModel(model, clip, vae, weights)
        before, start = digest(model), held()
        with tempfile.TemporaryDirectory() as out, workspace(True):
            session = session_over(native, out)
            losses = [loss for result in session.trainer for loss in result.losses.values()]
            needed = session.backbone.room.bytes
            made = [weakref.ref(part) for part in (session.backbone, session.backbone.model, session.trainer)]
            del session
        end = held()
        told(weights=weights, losses=losses, needed=needed, start=start, end=end)
        assert all(loss > 0 for loss in losses)
        assert not [part() for part in made if part() is not None]
        assert digest(model) == before
        assert end["torch"] - start["torch"] < SLACK


def test_the_peak_is_below_what_comfyui_is_asked_for():
    """Of whole updates with AdamW, batch 1, rank 4."""
    for checkpointing in (False, True):
        with workspace(True):
            backbone = backbone_of(given("medium"))
            shape = backbone.latent_shape(*side_of("medium"))
            lora = random_lora(backbone, 4)
            count = sum(factor.numel() for part in (lora.down, lora.up) for factor in part.values())
            needed = training_memory(backbone.patcher, count, False, 1, shape, 0, checkpointing)
            opening.load_fully(backbone.patcher, needed.total)
            if CARD:
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if CARD else 0
            chosen, cond = method("danceopd"), asked("medium")
            distilled(backbone, lora, cond, 2, chosen, checkpointing, size=side_of("medium"), batch=1)
            peak = torch.cuda.max_memory_allocated() - before if CARD else 0
            told(
                checkpointing=checkpointing, weights=backbone.patcher.model_size(), peak=peak,
                optimizer=needed.optimizer, activations=needed.activations,
                asked_over_peak=round(needed.total / max(peak, 1), 2),
            )  # fmt: skip
            assert peak < needed.total
        del backbone
