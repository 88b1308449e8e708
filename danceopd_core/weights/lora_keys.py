"""Layer names in LoRA files: diffusers', the original models' and kohya's, mapped to the network's modules.

ComfyUI keeps the names of the original models: there one layer computes query, key and value together, and final
modulations return the shift before the scale. kohya's trainer and compatible ones write either kind of name with
underscores for dots.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .lora import Shapes

DOTTED_PREFIXES = ("", "transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model.")
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")


class OriginalLayer(NamedTuple):
    """A layer of an original model and the diffusers layers that hold its output rows, in this order.

    `shift_first`: where the rows are a shift and a scale, diffusers has them in the opposite order.
    """

    name: str
    modules: tuple[str, ...]
    shift_first: bool = False


ORIGINAL_LAYERS = (
    # Z-Image; layers not listed have the same name in both
    OriginalLayer("{}.attention.qkv", ("{}.attention.to_q", "{}.attention.to_k", "{}.attention.to_v")),
    OriginalLayer("{}.attention.out", ("{}.attention.to_out.0",)),
    OriginalLayer("final_layer.linear", ("all_final_layer.2-1.linear",)),
    OriginalLayer("final_layer.adaLN_modulation.1", ("all_final_layer.2-1.adaLN_modulation.1",)),
    OriginalLayer("x_embedder", ("all_x_embedder.2-1",)),
    # Stable Diffusion 3
    *(
        OriginalLayer(f"joint_blocks.{{}}.{name}", tuple(f"transformer_blocks.{{}}.{part}" for part in parts), first)
        for name, parts, first in (
            ("x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v"), False),
            ("x_block.attn.proj", ("attn.to_out.0",), False),
            ("x_block.attn2.qkv", ("attn2.to_q", "attn2.to_k", "attn2.to_v"), False),
            ("x_block.attn2.proj", ("attn2.to_out.0",), False),
            ("x_block.mlp.fc1", ("ff.net.0.proj",), False),
            ("x_block.mlp.fc2", ("ff.net.2",), False),
            ("x_block.adaLN_modulation.1", ("norm1.linear",), False),
            ("context_block.attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), False),
            ("context_block.attn.proj", ("attn.to_add_out",), False),
            ("context_block.mlp.fc1", ("ff_context.net.0.proj",), False),
            ("context_block.mlp.fc2", ("ff_context.net.2",), False),
            ("context_block.adaLN_modulation.1", ("norm1_context.linear",), True),
        )
    ),
    OriginalLayer("t_embedder.mlp.0", ("time_text_embed.timestep_embedder.linear_1",)),
    OriginalLayer("t_embedder.mlp.2", ("time_text_embed.timestep_embedder.linear_2",)),
    OriginalLayer("y_embedder.mlp.0", ("time_text_embed.text_embedder.linear_1",)),
    OriginalLayer("y_embedder.mlp.2", ("time_text_embed.text_embedder.linear_2",)),
    OriginalLayer("final_layer.linear", ("proj_out",)),
    OriginalLayer("final_layer.adaLN_modulation.1", ("norm_out.linear",), True),
)

OTHER_KEYS = {
    r"(text_encoder|text_model|lora_te|lora_prior_te|conditioner|cond_stage_model).*": (
        "belong to a text encoder, which is not trained here"
    ),
    r".*[._](lora_magnitude_vector(\.\w+)*|dora_scale)": "belong to DoRA, which is not a plain LoRA",
    r".*[._]hada_\w+(\.\w+)*": "belong to LoHa, which is not a plain LoRA",
    r".*[._]lokr_\w+(\.\w+)*": "belong to LoKr, which is not a plain LoRA",
    r".*[._](oft_\w+|boft_\w+)(\.\w+)*": "belong to OFT, which is not a plain LoRA",
    r".*\.lora_mid\.weight": "belong to a Tucker decomposition, which is not a plain LoRA",
    r".*\.(diff|diff_b|w_norm|b_norm|set_weight|lora_B(\.\w+)*\.bias)": "change weights in full, which a LoRA cannot",
}


class FileLayer(NamedTuple):
    """The network's modules that one layer of a file covers, in the order of its output rows.

    `swapped`: the two halves of the rows are in the opposite order.
    """

    modules: tuple[str, ...]
    swapped: bool = False


def layer_names(shapes: Shapes) -> dict[str, FileLayer]:
    """Every name by which a file may refer to layers of the network with these shapes.

    Ambiguous names are left out.
    """
    named = {module: FileLayer((module,)) for module in shapes}
    for original in ORIGINAL_LAYERS:
        pattern = re.compile(re.escape(original.modules[0]).replace(r"\{\}", "(.+)"))
        for module, (rows, columns) in shapes.items():
            if match := pattern.fullmatch(module):
                modules = tuple(part.format(*match.groups()) for part in original.modules)
                # Only a modulation without gates (AdaLayerNormContinuous) is just a shift and a scale.
                layer = FileLayer(modules, original.shift_first and rows == 2 * columns)
                if all(part in shapes for part in modules):
                    named.setdefault(original.name.format(*match.groups()), layer)
    found: dict[str, FileLayer] = {}
    ambiguous = set()
    for name, layer in named.items():
        flat = name.replace(".", "_")
        for alias in (*(prefix + name for prefix in DOTTED_PREFIXES), *(prefix + flat for prefix in FLAT_PREFIXES)):
            if found.setdefault(alias, layer) != layer:
                ambiguous.add(alias)
    return {name: layer for name, layer in found.items() if name not in ambiguous}


def describe_unknown(key: str) -> str:
    """Why a key is not part of a LoRA of the network, as a plural predicate for an error message."""
    reasons = (reason for pattern, reason in OTHER_KEYS.items() if re.fullmatch(pattern, key))
    return next(reasons, "match no layer of this network")
