"""Nodes for models that ComfyUI's own loaders have loaded: MODEL, CLIP and VAE in place of a diffusers folder."""

from __future__ import annotations

from typing import Any

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.graph import FieldSpec, ModelSpec
from ..danceopd_core.recipe.schema import Teacher
from ._comfy import NONE, chosen, io, lora_choices, schedulers, stamp
from .sockets import CATEGORY, FieldSocket, ModelSocket

DIGESTED = ("model", "clip", "vae", "scheduler", "edits")
"""The inputs of Flow Model from ComfyUI that a run's identity depends on."""
EDITS = ["auto", "reference_latent", "reference_latent_index", "qwen_edit", "qwen_edit_plus", "zimage_omni"]
"""The usual way, and the names of `native.encoding.EDITS`, which is imported only when something runs."""


class LoadShapes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LoadShapes",
            display_name="Load Shapes",
            category=CATEGORY,
            description="The small embedded model as MODEL, CLIP and VAE, for stock nodes such as KSampler and VAE "
            "Decode. It ships with this pack and runs on a CPU; images are 64 x 64 pixels. Bypassed, the node passes "
            "on what other loaders are connected to it, so that one workflow runs on either.",
            search_aliases=["danceopd", "embedded model", "tiny model", "demo model"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=["float32", "bfloat16", "fp8"],
                    default="float32",
                    optional=True,
                    tooltip="Data type of the weights. fp8: as in files named fp8_scaled, for trying a quantised base.",
                ),
                io.Model.Input(
                    "loaded_model",
                    display_name="model",
                    optional=True,
                    lazy=True,
                    tooltip="Passed on instead while this node is bypassed; else not loaded.",
                ),
                io.Clip.Input("loaded_clip", display_name="clip", optional=True, lazy=True, tooltip="As model."),
                io.Vae.Input("loaded_vae", display_name="vae", optional=True, lazy=True, tooltip="As model."),
            ],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="Diffusion model: a small Z-Image."),
                io.Clip.Output("clip", display_name="CLIP", tooltip="Text encoder, for CLIP Text Encode."),
                io.Vae.Output("vae", display_name="VAE", tooltip="VAE with one latent per 4 x 4 pixels."),
            ],
        )

    @classmethod
    def execute(cls, weights="float32", loaded_model=None, loaded_clip=None, loaded_vae=None):
        from .native.shapes import shapes_clip, shapes_model, shapes_vae

        return io.NodeOutput(shapes_model(weights=weights), shapes_clip(), shapes_vae())


class LoadLora(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LoadLora",
            display_name="Load LoRA or Embedded LoRA",
            category=CATEGORY,
            description="Applies a LoRA to a MODEL as stock Load LoRA does, with the LoRAs of the embedded model in "
            "its list.",
            search_aliases=["danceopd", "lora loader", "embedded lora"],
            inputs=[
                io.Model.Input("model", tooltip="MODEL to apply the LoRA to. It stays as it is itself."),
                io.Combo.Input(
                    "lora_name",
                    options=list(lora_choices()),
                    default=NONE,
                    tooltip="LoRA from ComfyUI's loras folders, or of the embedded model (shapes:...). none: the "
                    "MODEL unchanged.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="LoRA strength. 1 applies the LoRA as trained.",
                ),
            ],
            outputs=[io.Model.Output("patched", display_name="MODEL", tooltip="MODEL with the LoRA on it.")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(lora_name))

    @classmethod
    def execute(cls, model, lora_name, strength):
        from .native.lora_names import patched

        file = chosen(lora_choices(), lora_name, "lora_name")
        return io.NodeOutput(model if file is None else patched(model, file, strength))


class NativeFlowModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_NativeModel",
            display_name="Flow Model from ComfyUI",
            category=CATEGORY,
            description="A flow-matching model from ComfyUI's own loaders (FLUX, Z-Image, Qwen-Image, Stable Diffusion "
            "3.5 and others) as the model that the teachers and the student share. LoRAs and sampling patches on the "
            "MODEL are part of it.",
            search_aliases=["danceopd", "model to flow model", "checkpoint", "unet", "gguf", "flux", "z-image"],
            inputs=[
                io.Model.Input("model", tooltip="From Load Diffusion Model or Load Checkpoint."),
                io.Clip.Input("clip", tooltip="Text encoder of the model."),
                io.Vae.Input("vae", tooltip="VAE of the model."),
                io.Combo.Input(
                    "scheduler",
                    options=schedulers(),
                    default="simple",
                    advanced=True,
                    tooltip="Schedule of the sigmas, as in KSampler. flux2: that of Flux2Scheduler, which depends on "
                    "the image size.",
                ),
                io.Combo.Input(
                    "edits",
                    options=EDITS,
                    default="auto",
                    advanced=True,
                    tooltip="How source images reach the model, as by the stock nodes. auto: qwen_edit_plus for "
                    "Qwen-Image, zimage_omni for Z-Image, otherwise reference_latent. reference_latent_index: with the "
                    "reference method index, for models without one such as Krea 2.",
                ),
            ],
            outputs=[
                ModelSocket.Output(
                    "flow_model",
                    display_name="flow model",
                    tooltip="Frozen flow model, for Teacher Field, Field from MODEL and Sample Student.",
                )
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, model, clip, vae, scheduler, edits):
        from .native.source import NativeModel

        inputs = ("model", "clip", "vae")
        digest = _digest(cls, *DIGESTED)
        live = NativeModel(model, clip, vae, digest, scheduler, edits, _files(cls, *inputs))
        live.check()
        return io.NodeOutput(ModelSpec(live.name, live.dtype, live=live))


class FieldFromModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_NativeField",
            display_name="Field from MODEL",
            category=CATEGORY,
            description="A MODEL as a frozen teacher, as it stands: another checkpoint, or the base model with stock "
            "LoRA, merge and sampling nodes on it. It takes the memory of one more model.",
            search_aliases=["danceopd", "teacher from model", "checkpoint teacher", "merge teacher"],
            inputs=[
                ModelSocket.Input("flow_model", tooltip="Flow Model from ComfyUI that the student is trained on."),
                io.Model.Input("model", tooltip="Teacher, of the same architecture as the flow model."),
                io.String.Input("label", default="model", tooltip="Name of the teacher in plots and tables."),
            ],
            outputs=[FieldSocket.Output("field", display_name="field", tooltip="Velocity field of the teacher.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, flow_model, model, label):
        from .native.source import NativeTeacher

        if flow_model.live is None:
            raise InputError("flow_model: it is a diffusers folder: use Teacher Field, or Flow Model from ComfyUI")
        live = NativeTeacher(model, _digest(cls, "model"), _files(cls, "model"))
        live.check(flow_model.live)
        teacher = Teacher(checkpoint=live.name)
        return io.NodeOutput(FieldSpec(flow_model, label.strip() or "model", ((teacher, 1.0),), (live,)))


class FieldFromOtherModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_OtherField",
            display_name="Field from Another Model",
            category=CATEGORY,
            description="Takes a teacher over another model to students of this one, for example a LoRA of a diffusers "
            "folder to ComfyUI's own model, or FLUX.1 to Z-Image. Both models need the same VAE. Each encodes the "
            "prompts itself.",
            search_aliases=["danceopd", "cross-model distillation", "move a lora", "convert lora", "teacher of model"],
            inputs=[
                ModelSocket.Input("flow_model", tooltip="Model that the student is trained on."),
                FieldSocket.Input(
                    "field",
                    tooltip="Teacher over another flow model, guided or mixed or neither. That model takes its memory "
                    "besides.",
                ),
            ],
            outputs=[
                FieldSocket.Output(
                    "taken",
                    display_name="field",
                    tooltip="The same teacher, for routes and mixes with fields of the flow model.",
                )
            ],
        )

    @classmethod
    def execute(cls, flow_model, field):
        return io.NodeOutput(field.over(flow_model))


def _digest(node: Any, *inputs: str) -> str:
    from .native.identity import upstream_digest

    return upstream_digest(node.hidden.prompt, str(node.hidden.unique_id), inputs)


def _files(node: Any, *inputs: str) -> tuple[str, ...]:
    from .native.identity import loader_files

    return loader_files(node.hidden.prompt, str(node.hidden.unique_id), inputs)
