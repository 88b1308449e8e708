"""Layer names in LoRA files: diffusers', the original models' and kohya's, mapped to the network's modules.

kohya's trainer and compatible ones write either kind of name with underscores for dots; peft, ComfyUI and compiled
networks put the names of what was wrapped in front.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .lora import Shapes
from .original_layers import FileLayer, original_layers

WRAPPERS = ("base_model.model.", "transformer.", "model.diffusion_model.", "diffusion_model.", "module.", "unet.")
"""What may stand before a layer's name, several after each other included."""
COMPILED = "_orig_mod."
"""What torch.compile puts before the names of what it compiled."""
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
FACTORS = {
    "lora_A": "down", "lora_down": "down", "lora.down": "down", "lora_linear_layer.down": "down",
    "lora_B": "up", "lora_up": "up", "lora.up": "up", "lora_linear_layer.up": "up",
}  # fmt: skip
LORA_KEY = re.compile(rf"(?P<layer>.+)\.(?:(?P<factor>{'|'.join(map(re.escape, FACTORS))})(?:\.\w+)?\.weight|alpha)")
PROCESSOR_KEY = re.compile(r"(?P<layer>.+\.processor\.(?:qkv|proj)_lora[12]?)\.(?P<factor>down|up)\.weight")
"""x-flux's, whose attention processors hold the factors."""
LONGEST_KEY = 300
NO_MODULE = "match no layer of this network"

TEXT_ENCODERS = (
    "text_encoder", "text_model", "lora_te", "lora_prior_te", "conditioner", "cond_stage_model", "clip_l.", "clip_g.",
    "t5xxl.", "base_model.model.text_model.", "base_model.model.encoder.block.",
)  # fmt: skip
FULL = "change weights in full, which a LoRA cannot"
OTHER_KINDS = {
    r"\.(lora_magnitude_vector|dora_scale)": "belong to DoRA, which is not a plain LoRA",
    r"\.hada_": "belong to LoHa, which is not a plain LoRA",
    r"\.lokr_": "belong to LoKr, which is not a plain LoRA",
    r"\.b?oft_": "belong to OFT, which is not a plain LoRA",
    r"\.lora_mid": "belong to a Tucker decomposition, which is not a plain LoRA",
    r"\.(ia3_|on_input)": "belong to IA3, which is not a plain LoRA",
    r"\.lora_embedding_": "change an embedding, which is not read",
}
"""What is in a key, where one of its parts begins -> what such keys are, as a plural predicate for an error message."""
FULL_ENDS = (".diff", ".diff_b", ".w_norm", ".b_norm", ".lora_B.bias", ".lora_up.bias", ".lora_B.default.bias")
"""Of keys that are added to a weight or a bias as they are: those that are zero change nothing."""
UNETS = re.compile(
    r"(lora_unet_|unet\.|base_model\.model\.|diffusion_model\.)?(input_blocks|output_blocks|middle_block|down_blocks|up_blocks"
    r"|mid_block)[._].{0,300}"
)
UNET = "belong to a UNet (Stable Diffusion 1 to XL), which is another architecture"


class KeyParts(NamedTuple):
    """A key of a LoRA file: the name of its layer, and what it holds of it: "down", "up" or "alpha"."""

    layer: str
    part: str


def key_parts(key: str) -> KeyParts | None:
    """What a key of a plain LoRA says; None for any other."""
    if len(key) > LONGEST_KEY:
        return None
    if match := PROCESSOR_KEY.fullmatch(key):
        return KeyParts(match["layer"], match["factor"])
    match = LORA_KEY.fullmatch(key)
    return KeyParts(match["layer"], FACTORS[match["factor"]] if match["factor"] else "alpha") if match else None


def layer_names(shapes: Shapes) -> dict[str, FileLayer]:
    """Every name, without `WRAPPERS`, by which a file may refer to layers of the network with these shapes.

    Ambiguous names are left out.
    """
    named = original_layers(shapes) | {module: FileLayer((module,)) for module in shapes}
    found: dict[str, FileLayer] = {}
    ambiguous = set()
    for name, layer in named.items():
        flat = name.replace(".", "_")
        for alias in (name, *(prefix + flat for prefix in FLAT_PREFIXES)):
            if found.setdefault(alias, layer) != layer:
                ambiguous.add(alias)
    return {name: layer for name, layer in found.items() if name not in ambiguous}


def file_layer(names: dict[str, FileLayer], name: str) -> FileLayer | None:
    """What a file's name of a layer means, by the names of `layer_names`; None if it is of no layer."""
    name = name.replace(COMPILED, "").replace("_orig_mod_", "")
    while name not in names:
        wrapper = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)
        if wrapper is None:
            return None
        name = name.removeprefix(wrapper)
    return names[name]


def without_wrappers(name: str) -> str:
    """A file's name of a layer without what was wrapped around the network, or kohya's prefix."""
    while wrapper := next((wrapper for wrapper in (*WRAPPERS, *FLAT_PREFIXES) if name.startswith(wrapper)), None):
        name = name.removeprefix(wrapper)
    return name


def peft_path(name: str) -> str:
    """The path of a layer in the network that peft wrapped, with which peft's patterns are matched."""
    wrapper = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), "")
    return name.removeprefix(wrapper)


def describe_kind(key: str) -> str:
    """What a key is, as a plural predicate, if no network can use it as a plain LoRA; else the empty text."""
    if key.startswith(TEXT_ENCODERS):
        return "belong to a text encoder, which is not trained here"
    end = key[-LONGEST_KEY:]
    if kind := next((kind for pattern, kind in OTHER_KINDS.items() if re.search(pattern, end)), ""):
        return kind
    return FULL if key.endswith((*FULL_ENDS, ".set_weight", ".reshape_weight")) else ""


def describe_unknown(key: str) -> str:
    """Why a key is not part of a LoRA of the network, as a plural predicate for an error message."""
    return describe_kind(key) or (UNET if UNETS.fullmatch(key) else NO_MODULE)
