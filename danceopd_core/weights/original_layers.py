"""The layers of the original models, whose names ComfyUI keeps, and diffusers' layers that they are.

In the originals one layer computes query, key and value together, and final modulations return the shift before the
scale.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .lora import Shapes


class OriginalLayer(NamedTuple):
    """A layer of an original model and the diffusers layers that hold its output rows, in this order.

    `shift_first`: where the rows are a shift and a scale, diffusers has them in the opposite order.
    """

    name: str
    modules: tuple[str, ...]
    shift_first: bool = False


class FileLayer(NamedTuple):
    """The network's modules that one layer of a file covers, in the order of its output rows.

    `swapped`: the two halves of the rows are in the opposite order.
    """

    modules: tuple[str, ...]
    swapped: bool = False


def _block(original: str, ours: str, layers: dict[str, tuple[str, ...]]) -> tuple[OriginalLayer, ...]:
    return tuple(
        OriginalLayer(f"{original}.{{}}.{name}", tuple(f"{ours}.{{}}.{part}" for part in parts))
        for name, parts in layers.items()
    )


QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
FINAL = (
    OriginalLayer("final_layer.linear", ("proj_out",)),
    OriginalLayer("final_layer.adaLN_modulation.1", ("norm_out.linear",), True),
)
ZIMAGE = (  # layers not listed have the same name in both
    OriginalLayer("{}.attention.qkv", ("{}.attention.to_q", "{}.attention.to_k", "{}.attention.to_v")),
    OriginalLayer("{}.attention.out", ("{}.attention.to_out.0",)),
    OriginalLayer("final_layer.linear", ("all_final_layer.2-1.linear",)),
    OriginalLayer("final_layer.adaLN_modulation.1", ("all_final_layer.2-1.adaLN_modulation.1",)),
    OriginalLayer("x_embedder", ("all_x_embedder.2-1",)),
)
SD3 = (
    *_block(
        "joint_blocks",
        "transformer_blocks",
        {
            "x_block.attn.qkv": QKV,
            "x_block.attn.proj": ("attn.to_out.0",),
            "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
            "x_block.attn2.proj": ("attn2.to_out.0",),
            "x_block.mlp.fc1": ("ff.net.0.proj",),
            "x_block.mlp.fc2": ("ff.net.2",),
            "x_block.adaLN_modulation.1": ("norm1.linear",),
            "context_block.attn.qkv": ADDED_QKV,
            "context_block.attn.proj": ("attn.to_add_out",),
            "context_block.mlp.fc1": ("ff_context.net.0.proj",),
            "context_block.mlp.fc2": ("ff_context.net.2",),
        },
    ),
    OriginalLayer(
        "joint_blocks.{}.context_block.adaLN_modulation.1", ("transformer_blocks.{}.norm1_context.linear",), True
    ),
    OriginalLayer("t_embedder.mlp.0", ("time_text_embed.timestep_embedder.linear_1",)),
    OriginalLayer("t_embedder.mlp.2", ("time_text_embed.timestep_embedder.linear_2",)),
    OriginalLayer("y_embedder.mlp.0", ("time_text_embed.text_embedder.linear_1",)),
    OriginalLayer("y_embedder.mlp.2", ("time_text_embed.text_embedder.linear_2",)),
    *FINAL,
)
FLUX = (
    *_block(
        "double_blocks",
        "transformer_blocks",
        {
            "img_attn.qkv": QKV,
            "img_attn.proj": ("attn.to_out.0",),
            "img_mlp.0": ("ff.net.0.proj",),
            "img_mlp.2": ("ff.net.2",),
            "img_mod.lin": ("norm1.linear",),
            "txt_attn.qkv": ADDED_QKV,
            "txt_attn.proj": ("attn.to_add_out",),
            "txt_mlp.0": ("ff_context.net.0.proj",),
            "txt_mlp.2": ("ff_context.net.2",),
            "txt_mod.lin": ("norm1_context.linear",),
            # x-flux
            "processor.qkv_lora1": QKV,
            "processor.qkv_lora2": ADDED_QKV,
            "processor.proj_lora1": ("attn.to_out.0",),
            "processor.proj_lora2": ("attn.to_add_out",),
        },
    ),
    *_block(
        "single_blocks",
        "single_transformer_blocks",
        {
            "linear1": (*QKV, "proj_mlp"),
            "linear1_qkv": QKV,
            "linear2": ("proj_out",),
            "modulation.lin": ("norm.linear",),
            "processor.qkv_lora": QKV,
            "processor.proj_lora": ("proj_out",),
        },
    ),
    OriginalLayer("img_in", ("x_embedder",)),
    OriginalLayer("txt_in", ("context_embedder",)),
    *(
        OriginalLayer(f"{original}.{layer}_layer", (f"time_text_embed.{ours}.linear_{number}",))
        for original, ours in (
            ("time_in", "timestep_embedder"),
            ("vector_in", "text_embedder"),
            ("guidance_in", "guidance_embedder"),
        )
        for number, layer in ((1, "in"), (2, "out"))
    ),
    *FINAL,
)
FLUX2 = (
    *_block(
        "double_blocks",
        "transformer_blocks",
        {
            "img_attn.qkv": QKV,
            "img_attn.proj": ("attn.to_out.0",),
            "img_mlp.0": ("ff.linear_in",),
            "img_mlp.2": ("ff.linear_out",),
            "txt_attn.qkv": ADDED_QKV,
            "txt_attn.proj": ("attn.to_add_out",),
            "txt_mlp.0": ("ff_context.linear_in",),
            "txt_mlp.2": ("ff_context.linear_out",),
        },
    ),
    *_block(
        "single_blocks",
        "single_transformer_blocks",
        {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
    ),
    OriginalLayer("img_in", ("x_embedder",)),
    OriginalLayer("txt_in", ("context_embedder",)),
    *(
        OriginalLayer(f"{original}.{layer}_layer", (f"time_guidance_embed.{ours}.linear_{number}",))
        for original, ours in (("time_in", "timestep_embedder"), ("guidance_in", "guidance_embedder"))
        for number, layer in ((1, "in"), (2, "out"))
    ),
    *(
        OriginalLayer(f"{stream}.lin", (f"{stream}.linear",))
        for stream in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
    ),
    *FINAL,
)
KREA2_BLOCK: dict[str, tuple[str, ...]] = {
    **{f"attn.w{letter}": (f"attn.to_{letter}",) for letter in "qkv"},
    "attn.gate": ("attn.to_gate",),
    "attn.wo": ("attn.to_out.0",),
    **{f"mlp.{part}": (f"ff.{part}",) for part in ("gate", "up", "down")},
}
KREA2 = (
    *_block("blocks", "transformer_blocks", KREA2_BLOCK),
    *_block("txtfusion.layerwise_blocks", "text_fusion.layerwise_blocks", KREA2_BLOCK),
    *_block("txtfusion.refiner_blocks", "text_fusion.refiner_blocks", KREA2_BLOCK),
    *(
        OriginalLayer(original, (ours,))
        for original, ours in (
            ("first", "img_in"),
            ("tmlp.0", "time_embed.linear_1"),
            ("tmlp.2", "time_embed.linear_2"),
            ("tproj.1", "time_mod_proj"),
            ("txtmlp.1", "txt_in.linear_1"),
            ("txtmlp.3", "txt_in.linear_2"),
            ("txtfusion.projector", "text_fusion.projector"),
            ("last.linear", "final_layer.linear"),
        )
    ),
)
QWEN21 = _block(  # the other layers have the same name in both
    "transformer_blocks", "transformer_blocks", {"img_mlp.gate_up": ("img_mlp.gate_layer", "img_mlp.proj")}
)
FAMILIES = {
    r"transformer_blocks\.\d+\.img_mlp\.gate_layer": QWEN21,
    r"transformer_blocks\.\d+\.attn\.to_gate": KREA2,
    r"single_transformer_blocks\.\d+\.attn\.to_qkv_mlp_proj": FLUX2,
    r"single_transformer_blocks\.\d+\.proj_mlp": FLUX,
    r"transformer_blocks\.\d+\.norm1_context\.linear": SD3,
    r"layers\.\d+\.feed_forward\.w1": ZIMAGE,
}
"""By a layer that only the family's network has, the first that matches; the rest have one name for each layer."""


def original_layers(shapes: Shapes) -> dict[str, FileLayer]:
    """The layers of the original model by their names there, for the network with these shapes."""
    kinds = (layers for marker, layers in FAMILIES.items() if any(re.fullmatch(marker, module) for module in shapes))
    found: dict[str, FileLayer] = {}
    for original in next(kinds, ()):
        pattern = re.compile(re.escape(original.modules[0]).replace(r"\{\}", "(.+)"))
        for module, (rows, columns) in shapes.items():
            if match := pattern.fullmatch(module):
                modules = tuple(part.format(*match.groups()) for part in original.modules)
                # Only a modulation without gates (AdaLayerNormContinuous) is just a shift and a scale.
                if all(part in shapes for part in modules):
                    swapped = original.shift_first and rows == 2 * columns
                    found[original.name.format(*match.groups())] = FileLayer(modules, swapped)
    return found
