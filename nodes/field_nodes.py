"""Nodes for the model and the velocity fields that teach."""

from __future__ import annotations

from ..danceopd_core.models.quantise import QUANTISATIONS
from ..danceopd_core.recipe.from_graph import teacher_label
from ..danceopd_core.recipe.graph import FieldSpec, ModelSpec
from ..danceopd_core.recipe.schema import Teacher
from ._comfy import (
    NONE,
    checkpoint_choices,
    chosen,
    diffusion_choices,
    dtype_name,
    io,
    lora_choices,
    model_choices,
    stamp,
)
from .sockets import CATEGORY, FieldSocket, ModelSocket


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LoadModel",
            display_name="Load Flow Model",
            category=CATEGORY,
            description="Names the frozen flow model that the teachers and the student share. It is opened only while "
            "something trains or samples.",
            search_aliases=[
                "danceopd",
                "distillation model",
                "diffusers loader",
                "z-image",
                "sd3",
                "flux",
                "qwen",
                "flow matching",
            ],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(model_choices()),
                    default="shapes",
                    tooltip="'shapes' is the small model that comes with the pack. The others are diffusers pipeline "
                    "folders in ComfyUI/models/diffusers.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "float32", "bfloat16", "float16"],
                    default="auto",
                    advanced=True,
                    tooltip="Precision of the frozen weights. The student itself is always trained in float32.",
                ),
                io.Combo.Input(
                    "transformer",
                    options=list(diffusion_choices()),
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="A file of ComfyUI's diffusion_models folders in place of the weights in the model's own "
                    "transformer folder, which then need only hold its config.json. Not quantised.",
                ),
                io.Combo.Input(
                    "quantise",
                    options=[NONE, *QUANTISATIONS],
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="Smaller frozen weights, made while the model's own transformer folder is loaded: int8 and "
                    "fp8 need the package torchao, nf4 needs bitsandbytes and a GPU. For LoRA teachers only. The "
                    "student is then right for the quantised model, and nearly so for the whole one.",
                ),
            ],
            outputs=[ModelSocket.Output("flow_model", display_name="flow model", tooltip="For fields and samples.")],
        )

    @classmethod
    def fingerprint_inputs(cls, transformer=NONE, **others):
        return stamp(diffusion_choices().get(transformer))

    @classmethod
    def execute(cls, model, dtype, transformer=NONE, quantise=NONE):
        folder = chosen(model_choices(), model, "model")
        file = chosen(diffusion_choices(), transformer, "transformer")
        return io.NodeOutput(ModelSpec(folder, dtype_name(dtype, folder), file, None if quantise == NONE else quantise))


class TeacherField(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Teacher",
            display_name="Teacher Field",
            category=CATEGORY,
            description="A frozen teacher: the base model, a full checkpoint, a LoRA, or a LoRA over a checkpoint.",
            search_aliases=["danceopd", "teacher", "velocity field", "expert"],
            inputs=[
                ModelSocket.Input("model", tooltip="The model that the teacher is a version of."),
                io.Combo.Input(
                    "lora",
                    options=list(lora_choices()),
                    default="none",
                    tooltip="The teacher's LoRA, from ComfyUI's loras folders. 'shapes:...' come with the pack.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="Factor of the teacher's LoRA."
                ),
                io.Combo.Input(
                    "checkpoint",
                    options=list(checkpoint_choices()),
                    default="none",
                    advanced=True,
                    tooltip="A whole fine-tuned transformer in place of the base model's, from ComfyUI's "
                    "diffusion_models and diffusers folders. It needs its own memory.",
                ),
            ],
            outputs=[FieldSocket.Output("field", display_name="field", tooltip="The teacher's velocity field.")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora, checkpoint, **others):
        return stamp(lora_choices().get(lora), checkpoint_choices().get(checkpoint))

    @classmethod
    def execute(cls, model, lora, strength, checkpoint):
        teacher = Teacher(
            checkpoint=chosen(checkpoint_choices(), checkpoint, "checkpoint"),
            lora=chosen(lora_choices(), lora, "lora"),
            strength=strength if lora != "none" else 1.0,
        )
        return io.NodeOutput(FieldSpec(model, teacher_label(teacher), ((teacher, 1.0),)))


class GuidedField(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Guided",
            display_name="Guided Field",
            category=CATEGORY,
            description="Classifier-free guidance as a teacher: the student learns to answer at once as the field does "
            "with guidance.",
            search_aliases=["danceopd", "cfg", "classifier-free guidance", "absorb cfg"],
            inputs=[
                FieldSocket.Input("field", tooltip="A field without guidance."),
                io.Float.Input(
                    "scale", default=3.0, min=0.0, max=30.0, step=0.1, tooltip="Guidance scale; 1 changes nothing."
                ),
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    tooltip="The prompt to lead away from; empty is the usual choice.",
                ),
            ],
            outputs=[FieldSocket.Output("guided", display_name="field", tooltip="The guided velocity field.")],
        )

    @classmethod
    def execute(cls, field, scale, negative):
        return io.NodeOutput(field.guided(scale, negative))


class MixedField(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Mixed",
            display_name="Mixed Field",
            category=CATEGORY,
            description="The weighted sum of two fields as one teacher, to compare with routing each prompt to one "
            "teacher.",
            search_aliases=["danceopd", "merge teachers", "average", "blend"],
            inputs=[
                FieldSocket.Input("first", tooltip="The field that has the rest of the weight."),
                FieldSocket.Input("second", tooltip="The field that has the share."),
                io.Float.Input(
                    "share", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="Weight of the second field, 0 to 1."
                ),
            ],
            outputs=[FieldSocket.Output("mixed", display_name="field", tooltip="The mixed velocity field.")],
        )

    @classmethod
    def execute(cls, first, second, share):
        return io.NodeOutput(first.mixed(second, share))
