"""Numbers in which the parts of a pipeline have to agree: a folder of unlike parts is refused before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from .part_files import class_name

Configs = Mapping[str, Any]


class Agreement(NamedTuple):
    """left, right: what is compared, for the error, each with its value by the parts' configurations."""

    left: str
    right: str
    values: Callable[[Configs], tuple[int, int]]


def _of(left: str, right: str, factor: int = 1) -> Agreement:
    """Two settings, written part.setting; the second one times a factor."""

    def value(parts: Configs, path: str) -> Any:
        part, *names = path.split(".")
        found = parts[part]
        for name in names:
            found = getattr(found, name)
        return found

    shown = right if factor == 1 else f"{factor} x {right}"
    return Agreement(left, shown, lambda parts: (value(parts, left), factor * value(parts, right)))


def text_layers(index: Mapping[str, Any]) -> tuple[int, ...]:
    """The hidden states of its text encoder that a Krea 2 is given, by its model_index.json; 0 is the embedding."""
    return tuple(index.get("text_encoder_select_layers") or range(2, 36, 3))


def _in_groups(kind: str, parts: Configs) -> tuple[int, int]:
    heads, groups = (getattr(parts["transformer"], f"{kind}num_{name}_heads") for name in ("attention", "key_value"))
    return heads, heads // groups * groups


LATENTS = _of("transformer.in_channels", "vae.latent_channels")
VIDEO = _of("transformer.in_channels", "vae.z_dim", 4)
STATISTICS = Agreement(
    "the latents_mean and latents_std of the vae",
    "twice its z_dim",
    lambda parts: (len([*parts["vae"].latents_mean, *parts["vae"].latents_std]), 2 * parts["vae"].z_dim),
)
PACKED = _of("transformer.in_channels", "vae.latent_channels", 4)

AGREEMENTS: dict[str, tuple[Agreement, ...]] = {
    "ZImageTransformer2DModel": (_of("transformer.cap_feat_dim", "text_encoder.hidden_size"), LATENTS),
    "SD3Transformer2DModel": (
        LATENTS,
        _of("transformer.joint_attention_dim", "text_encoder_3.d_model"),
        Agreement(
            "transformer.pooled_projection_dim",
            "the projection_dim of both CLIP encoders together",
            lambda parts: (
                parts["transformer"].pooled_projection_dim,
                parts["text_encoder"].projection_dim + parts["text_encoder_2"].projection_dim,
            ),
        ),
        Agreement(
            "transformer.caption_projection_dim",
            "its heads times attention_head_dim",
            lambda parts: (
                parts["transformer"].caption_projection_dim,
                parts["transformer"].num_attention_heads * parts["transformer"].attention_head_dim,
            ),
        ),
    ),
    "FluxTransformer2DModel": (
        PACKED,
        _of("transformer.joint_attention_dim", "text_encoder_2.d_model"),
        _of("transformer.pooled_projection_dim", "text_encoder.hidden_size"),
    ),
    "Flux2Transformer2DModel": (
        PACKED,
        _of("transformer.joint_attention_dim", "text_encoder.hidden_size", 3),
        Agreement(
            "the layers of the text_encoder up to the last that is used",
            "those layers",
            lambda parts: (min(parts["text_encoder"].num_hidden_layers, 27), 27),
        ),
    ),
    "QwenImageTransformer2DModel": (
        VIDEO,
        _of("transformer.joint_attention_dim", "text_encoder.text_config.hidden_size"),
        _of("processor.merge_size", "text_encoder.vision_config.spatial_merge_size"),
        _of("processor.patch_size", "text_encoder.vision_config.patch_size"),
        STATISTICS,
    ),
    "QwenImage21Transformer2DModel": (
        _of("transformer.in_channels", "vae.z_dim"),
        STATISTICS,
        _of("transformer.context_in_dim", "text_encoder.text_config.hidden_size"),
        _of("processor.merge_size", "text_encoder.vision_config.spatial_merge_size"),
        _of("processor.patch_size", "text_encoder.vision_config.patch_size"),
        Agreement(
            "the pixels of a side that a token of the text_encoder sees",
            "those of 2 x 2 latents",
            lambda parts: (parts["processor"].merge_size * parts["processor"].patch_size, 32),
        ),
    ),
    "Krea2Transformer2DModel": (
        VIDEO,
        STATISTICS,
        _of("transformer.text_hidden_dim", "text_encoder.text_config.hidden_size"),
        Agreement(
            "transformer.num_text_layers",
            "the layers of the text_encoder that model_index.json selects",
            lambda parts: (parts["transformer"].num_text_layers, len(text_layers(parts["index"]))),
        ),
        Agreement(
            "the layers of the text_encoder up to the last that is used",
            "those layers",
            lambda parts: (
                min(parts["text_encoder"].text_config.num_hidden_layers, max(text_layers(parts["index"]))),
                max(text_layers(parts["index"])),
            ),
        ),
        *(
            Agreement(
                f"the {kind}num_attention_heads of the transformer",
                f"the heads of whole groups, one for each of its {kind}num_key_value_heads",
                partial(_in_groups, kind),
            )
            for kind in ("", "text_")
        ),
    ),
}
"""By the transformer's class."""


def disagreements(parts: Mapping[str, Any]) -> Iterator[str]:
    """A line for each number in which these parts of a pipeline, those of them that are there, do not agree."""
    if "transformer" not in parts:
        return
    configs = {name: getattr(part, "config", part) for name, part in parts.items()}
    network = configs["transformer"]
    for agreement in AGREEMENTS[class_name(type(parts["transformer"]))]:
        try:
            left, right = agreement.values(configs)
        except KeyError:
            continue  # a part that the pipeline does without, or that has a fault of its own
        if left != right:
            yield f"{agreement.left}: {left}, and {agreement.right}: {right}, which have to be equal"
    axes = getattr(network, "axes_dims_rope", None)
    if axes is not None and sum(axes) != network.attention_head_dim:
        yield f"transformer.axes_dims_rope: {axes}, not the attention_head_dim {network.attention_head_dim}"
