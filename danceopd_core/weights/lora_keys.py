"""What LoRA files call the layers of a network.

Besides diffusers' names there are those of the original models, which ComfyUI keeps: there one layer computes query,
key and value together, and final modulations give the shift before the scale. kohya's trainer and its kin write
either kind with underscores for dots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

DOTTED = ("", "transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model.")
FLAT = ("lora_unet_", "lora_transformer_", "lycoris_")


class Original(NamedTuple):
    """A layer of an original model and the layers of diffusers' that hold its output rows, in this order.

    `shift_first`: where the rows are a shift and a scale, diffusers has them the other way round.
    """

    name: str
    modules: tuple[str, ...]
    shift_first: bool = False


ORIGINALS = (
    # Z-Image; what is not listed has the same name in both
    Original("{}.attention.qkv", ("{}.attention.to_q", "{}.attention.to_k", "{}.attention.to_v")),
    Original("{}.attention.out", ("{}.attention.to_out.0",)),
    Original("final_layer.linear", ("all_final_layer.2-1.linear",)),
    Original("final_layer.adaLN_modulation.1", ("all_final_layer.2-1.adaLN_modulation.1",)),
    Original("x_embedder", ("all_x_embedder.2-1",)),
    # Stable Diffusion 3
    *(
        Original(f"joint_blocks.{{}}.{name}", tuple(f"transformer_blocks.{{}}.{module}" for module in modules), first)
        for name, modules, first in (
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
    Original("t_embedder.mlp.0", ("time_text_embed.timestep_embedder.linear_1",)),
    Original("t_embedder.mlp.2", ("time_text_embed.timestep_embedder.linear_2",)),
    Original("y_embedder.mlp.0", ("time_text_embed.text_embedder.linear_1",)),
    Original("y_embedder.mlp.2", ("time_text_embed.text_embedder.linear_2",)),
    Original("final_layer.linear", ("proj_out",)),
    Original("final_layer.adaLN_modulation.1", ("norm_out.linear",), True),
)

OTHERS = {
    r"(text_encoder|text_model|lora_te|lora_prior_te|conditioner|cond_stage_model).*": (
        "belong to a text encoder, which is not trained here"
    ),
    r".*[._](lora_magnitude_vector(\.\w+)*|dora_scale)": "belong to DoRA, which is no plain LoRA",
    r".*[._]hada_\w+(\.\w+)*": "belong to LoHa, which is no plain LoRA",
    r".*[._]lokr_\w+(\.\w+)*": "belong to LoKr, which is no plain LoRA",
    r".*[._](oft_\w+|boft_\w+)(\.\w+)*": "belong to OFT, which is no plain LoRA",
    r".*\.lora_mid\.weight": "belong to a Tucker decomposition, which is no plain LoRA",
    r".*\.(diff|diff_b|w_norm|b_norm|set_weight|lora_B(\.\w+)*\.bias)": "change weights in full, which no LoRA can",
}


class Place(NamedTuple):
    """The network's layers that one layer of a file stands for, in the order of its output rows.

    `swapped`: the two halves of the rows change places.
    """

    modules: tuple[str, ...]
    swapped: bool = False


def places(shapes: Mapping[str, tuple[int, int]]) -> dict[str, Place]:
    """Every name by which a file may mean layers of the network; `shapes` is (out, in) by module name.

    Names that could mean two places are left out.
    """
    named = {module: Place((module,)) for module in shapes}
    for original in ORIGINALS:
        pattern = re.compile(re.escape(original.modules[0]).replace(r"\{\}", "(.+)"))
        for module, (rows, columns) in shapes.items():
            if match := pattern.fullmatch(module):
                modules = tuple(part.format(*match.groups()) for part in original.modules)
                # Only the modulation of a normalisation with nothing after it is just shift and scale.
                place = Place(modules, original.shift_first and rows == 2 * columns)
                if all(part in shapes for part in modules):
                    named.setdefault(original.name.format(*match.groups()), place)
    found: dict[str, Place] = {}
    doubtful = set()
    for name, place in named.items():
        flat = name.replace(".", "_")
        for written in (*(prefix + name for prefix in DOTTED), *(prefix + flat for prefix in FLAT)):
            if found.setdefault(written, place) != place:
                doubtful.add(written)
    return {name: place for name, place in found.items() if name not in doubtful}


def what_else(key: str) -> str:
    """What a key is that is no LoRA of the network, as a predicate."""
    return next((told for form, told in OTHERS.items() if re.fullmatch(form, key)), "are no LoRA of this network")
