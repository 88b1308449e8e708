# ruff: noqa: PT017 (run without pytest)
"""What only a card can tell of training over MODELs: dynamic VRAM, memory, kernels of quantised weights, start options.

Figures are printed as JSON.
"""

import tempfile
import weakref

import comfy.memory_management
import comfy.model_management as management
import comfy.sample
import comfy.sd
import torch
from pack.danceopd_core.algorithm.methods import method
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.weights.adapters import STUDENT
from pack.nodes._comfy import workspace
from pack.nodes.native import opening
from pack.nodes.native.checkpointing import enable_checkpointing
from pack.nodes.native.lora_names import native_tensors
from pack.nodes.native.memory import training_memory
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack.nodes.native.source import NativeModel, NativeTeacher, NativeWeights
from pack_laws import gguf_models
from pack_laws.card_models import CARD, SMALL, asked, given, held, resident, sampled, side_of, told, trained
from pack_laws.gradients import far, flat, gradients, loaded, quantised, student
from pack_laws.loras import GENERATOR, random_lora
from pack_laws.memory import digest, session_over
from pack_laws.tiny_models import backbone_of, prompts, state, tiny_model
from pack_laws.training import distilled

SLACK = 192 * 2**20
"""Bytes that may stay: cuBLAS keeps a workspace for every thread."""
VELOCITIES = {"fp8_scaled": 0.1, "int8": 0.1, "fp8": 0.05, "fp8_fast": 0.15, "gguf": 1e-3}
GRADIENTS = {"fp8_scaled": 0.15, "int8": 0.15, "fp8": 0.1, "fp8_fast": 0.3, "gguf": 1e-3}
"""How far an answer or a gradient may be from that of a resident float32 run over the same weights."""


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
            assert peak or not CARD
        del backbone
