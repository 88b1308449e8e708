# ruff: noqa: PT017 (run without pytest)
"""LoRAs in any layout that ComfyUI reads are as teachers what its own loader makes of them, and ours are read back."""

import copy
import logging
import re
from functools import partial

import comfy.lora
import comfy.sd
import torch
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.models.registry import FAMILIES
from pack.danceopd_core.weights.adapters import STUDENT, Adapters
from pack.danceopd_core.weights.linear_like import linear_shapes
from pack.danceopd_core.weights.lora import Lora
from pack.nodes.native.lora_names import lora_of, native_tensors
from pack_laws.configs import CONFIGS
from pack_laws.diffusers_pairs import PAIRS, both, question
from pack_laws.tiny_models import DEVICE, backbone_of, fresh_backbone, prompts, state, tiny_backbone, tiny_model

GENERATOR = torch.Generator().manual_seed(0)
DIFFUSERS = {
    "SD3": {
        "transformer.transformer_blocks.0.attn.to_q": (128, 128),
        "transformer.transformer_blocks.0.attn.to_v": (128, 128),
        "transformer.transformer_blocks.0.attn.add_k_proj": (128, 128),
        "transformer.norm_out.linear": (256, 128),
    },
    "Flux": {
        "transformer.transformer_blocks.0.attn.to_k": (64, 64),
        "transformer.single_transformer_blocks.1.attn.to_q": (64, 64),
        "transformer.single_transformer_blocks.1.proj_mlp": (256, 64),
    },
    "ZImage": {
        "diffusion_model.layers.0.attention.to_q": (256, 256),
        "diffusion_model.layers.1.attention.to_out.0": (256, 256),
    },
    "QwenImage": {"transformer.transformer_blocks.0.attn.to_q": (64, 64)},
}
"""Layers by diffusers' names, where ComfyUI reads those."""


def far(one, other):
    return float((one - other).norm() / other.norm())


def factors(outputs, inputs, rank=3):
    down = torch.randn(rank, inputs, generator=GENERATOR) / inputs**0.5
    return down, torch.randn(outputs, rank, generator=GENERATOR) / rank**0.5 / 2


def diffusers_file(layers):
    state = {}
    for name, shape in layers.items():
        state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] = factors(*shape)
    return state


def kohya_file(backbone):
    state = {}
    for module in targets(backbone)[:4]:
        name = f"lora_unet_{module.replace('.', '_')}"
        shape = linear_shapes(backbone.network)[module]
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = factors(*shape)
        state[f"{name}.alpha"] = torch.tensor(1.5)
    return state


def targets(backbone):
    shapes = linear_shapes(backbone.network)
    return [name for name in shapes if any(name.endswith(f".{ending}") for ending in backbone.default_targets)]


def random_lora(backbone, rank=3):
    shapes = linear_shapes(backbone.network)
    both = {module: factors(*shapes[module], rank) for module in targets(backbone)}
    return Lora({m: down for m, (down, _) in both.items()}, {m: up for m, (_, up) in both.items()}, 1.5)


def loaded_by_comfyui(name, file):
    """The tiny MODEL with the file on it by the stock loader, and what the loader warned of."""
    patched, warned = patched_by_comfyui(lambda: tiny_model(name), file)
    return backbone_of(patched), warned


def patched_by_comfyui(load, file):
    """What `load` gives with the file on it by the stock loader, and what the loader warned of."""
    warned = []

    class Listener(logging.Handler):
        def emit(self, record):
            warned.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger().addHandler(listener)
    try:
        with torch.inference_mode():
            patched, _ = comfy.sd.load_lora_for_models(load(), None, dict(file), 1.0, 0.0)
    finally:
        logging.getLogger().removeHandler(listener)
    return patched, [line for line in warned if "load" in line.lower()]


def agree(name, file):
    """Our reading as an adapter, and ComfyUI's patching of the weights, answer alike; how far from the bare base."""
    backbone = fresh_backbone(name)
    adapters = Adapters(backbone.network, DEVICE, torch.float32)
    teacher = adapters.add_teacher(lora_of(file, backbone.model, "the file"))
    x, sigma = state(backbone)
    cond = prompts(name)
    ours = adapters.field(backbone.velocity, teacher)(x, sigma, cond)
    patched, warned = loaded_by_comfyui(name, file)
    assert not warned, warned
    with torch.no_grad():
        theirs, bare = patched.velocity(x, sigma, cond), tiny_backbone(name).velocity(x, sigma, cond)
    assert far(ours, theirs) < 2e-5, (name, far(ours, theirs))
    assert far(theirs, bare) > 1e-3, name


def test_files_by_diffusers_names():
    """With query, key and value of fused layers, single rows of them, and shift before scale."""
    for name, layers in DIFFUSERS.items():
        agree(name, diffusers_file(layers))


def test_files_by_kohyas_names_with_alpha():
    for name in ("SD3", "Flux2", "ZImage", "Krea2"):
        agree(name, kohya_file(tiny_backbone(name)))


def same(one, other):
    assert one.down.keys() == other.down.keys()
    for module, up in one.up.items():
        assert torch.equal(up, other.up[module]), module
        assert torch.equal(one.down[module], other.down[module]), module


def test_what_is_written_before_a_layers_name_changes_nothing():
    for name, layers in DIFFUSERS.items():
        model, file = tiny_backbone(name).model, diffusers_file(layers)
        plain = lora_of(file, model, "the file")
        bare = {key.removeprefix("transformer.").removeprefix("diffusion_model."): t for key, t in file.items()}
        for prefix in (
            "base_model.model.",
            "base_model.model.transformer.",
            "transformer._orig_mod.",
            "diffusion_model.",
        ):
            same(lora_of({prefix + key: t for key, t in bare.items()}, model, "the file"), plain)
        for prefix in ("lora_transformer_", "lora_unet_", "lycoris_"):
            kohya = {}
            for key, tensor in bare.items():
                layer, _, rest = key.partition(".lora_")
                ending = rest.replace("A.", "lora_down.").replace("B.", "lora_up.")
                kohya[f"{prefix}{layer.replace('.', '_')}.{ending}"] = tensor
            same(lora_of(kohya, model, "the file"), plain)


def test_zeros_of_comfyuis_trainer_are_passed_over_and_what_it_trained_beside_a_lora_is_refused():
    backbone = tiny_backbone("ZImage")
    file = diffusers_file(DIFFUSERS["ZImage"])
    zeros = {
        "diffusion_model.layers.0.attention_norm1.diff": torch.zeros(256),
        "diffusion_model.layers.0.adaLN_modulation.0.diff_b": torch.zeros(8),
    }
    same(lora_of(file | zeros, backbone.model, "the file"), lora_of(file, backbone.model, "the file"))
    for key in zeros:
        try:
            lora_of(file | zeros | {key: zeros[key] + 1e-3}, backbone.model, "the file")
            raise AssertionError(f"{key} was read")
        except InputError as error:
            assert key.rpartition(".")[0] in str(error), error


def test_a_student_is_read_by_the_stock_loader_with_no_key_left_over():
    """And it changes the MODEL by what it was trained to."""
    for name in CONFIGS:
        backbone = fresh_backbone(name)
        adapters = Adapters(backbone.network, DEVICE, torch.float32)
        adapters.start_student(random_lora(backbone))
        file = native_tensors(adapters.student())
        assert all(key.startswith("diffusion_model.") for key in file)
        x, sigma = state(backbone)
        cond = prompts(name)
        with torch.no_grad():
            ours = adapters.field(backbone.velocity, STUDENT)(x, sigma, cond)
        patched, warned = loaded_by_comfyui(name, file)
        assert not warned, (name, warned[:3])
        assert len(patched.patcher.patches) == len(adapters.student().down), name
        with torch.no_grad():
            assert far(patched.velocity(x, sigma, cond), ours) < 2e-5, name


FOLDERS = {"SD3.5": "sd3", "FLUX.2": "flux2", "Qwen-Image": "qwen", "Krea 2": "krea2"}
"""Families whose diffusers networks have a pair here, at the settings that ComfyUI finds a layer's rows by."""


def test_a_student_of_a_diffusers_folder_is_the_same_student_here():
    """By the names that `write_lora` gives it, and with the family's default targets."""
    for name, family in ((name, family) for name, family in FOLDERS.items() if name in PAIRS):
        backbone, base, network = both(name)
        network, pair = copy.deepcopy(network), PAIRS[name]
        shapes, adapters = linear_shapes(network), Adapters(network)
        layers = [m for m in shapes if any(m.endswith(f".{ending}") for ending in FAMILIES[family].targets)]
        pairs = {module: factors(*shapes[module]) for module in layers}
        downs, ups = ({module: pair[side] for module, pair in pairs.items()} for side in (0, 1))
        adapters.start_student(Lora(downs, ups))
        x, sigma, native, asked = question(name, backbone, 4 * backbone.size_multiple, 8 * backbone.size_multiple)
        file = {
            f"transformer.{module}.lora_{letter}.weight": factor
            for letter, side in (("A", downs), ("B", ups))
            for module, factor in side.items()
        }
        load = partial(tiny_model, pair.config, more=tuple(pair.more.items()))
        patched, warned = patched_by_comfyui(load, file)
        assert not warned, (name, warned[:3])
        with torch.no_grad():
            bare = base(x, sigma, asked)
            ours = adapters.field(pair.backbone(network), STUDENT)(x, sigma, asked)
            theirs = backbone_of(patched).velocity(x, sigma, native)
        assert far(ours, theirs) < 2e-5 < 1e-2 < far(ours, bare), (name, far(ours, theirs), far(ours, bare))


def test_which_layers_the_stock_loader_does_not_know_by_diffusers_names():
    """FLUX.2's modulations and time embedding, which no LoRA adapts by default."""
    unknown = {"FLUX.2": r"\w+_modulation(_\w+)?\.linear|time_guidance_embed\..+", "Krea 2": "none"}
    for name, pattern in ((name, pattern) for name, pattern in unknown.items() if name in PAIRS):
        backbone, _, network = both(name)
        keys = comfy.lora.model_lora_keys_unet(backbone.model, {})
        missing = {module for module in linear_shapes(network) if f"transformer.{module}" not in keys}
        expected = {module for module in linear_shapes(network) if re.fullmatch(pattern, module)}
        assert missing == expected, (name, missing)
        assert bool(missing) == (name == "FLUX.2")


def test_a_student_that_was_saved_is_continued():
    backbone = tiny_backbone("Flux2")
    student = random_lora(backbone).folded()
    again = lora_of(native_tensors(student), backbone.model, "the file")
    assert again.down.keys() == student.down.keys()
    for module in student.down:
        assert torch.equal(again.down[module], student.down[module])
        assert torch.equal(again.up[module], student.up[module])


def test_what_is_no_plain_lora_of_the_model_is_refused_by_name():
    backbone = tiny_backbone("Flux")
    module = "diffusion_model.double_blocks.0.img_attn.proj"
    plain = {f"{module}.lora_A.weight": torch.ones(2, 64), f"{module}.lora_B.weight": torch.ones(64, 2)}
    for odd, word in (
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}, "text encoder"),
        ({"diffusion_model.nowhere.lora_A.weight": torch.ones(2, 64)}, "nowhere"),
        ({f"{module}.dora_scale": torch.ones(64, 1)}, "DoRA"),
        ({"diffusion_model.img_in.diff": torch.ones(64, 64)}, "img_in"),
        ({f"{module}.lora_A.weight": torch.ones(2, 32)}, "do not fit"),
        ({f"{module}.lora_B.weight": torch.full((64, 2), float("nan"))}, "NaN"),
        ({f"{module}.alpha": torch.tensor(float("nan"))}, "NaN"),
        ({f"{module}.alpha": torch.ones(2)}, "no single number"),
        ({f"{module}.lora_A.weight": torch.ones(64)}, "no two factors"),
        ({key: factor[:0] if "_A" in key else factor[:, :0] for key, factor in plain.items()}, "no two factors"),
    ):
        try:
            lora_of({**plain, **odd}, backbone.model, "x.safetensors")
        except InputError as error:
            assert word in str(error), (word, str(error))
            assert "x.safetensors" in str(error)
        else:
            raise AssertionError(word)
    try:
        lora_of({}, backbone.model, "x.safetensors")
    except InputError as error:
        assert "empty" in str(error)
    else:
        raise AssertionError("empty")
