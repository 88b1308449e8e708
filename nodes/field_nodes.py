"""Nodes for the model and the velocity fields that teach."""

from __future__ import annotations

from ..danceopd_core.errors import Fault, InputError
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
from .header_checks import faults_of, lora_check, weights_check
from .sockets import CATEGORY, FieldSocket, ModelSocket


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LoadModel",
            display_name="Load Flow Model",
            category=CATEGORY,
            description="Selects the frozen flow model that the teachers and the student share. The weights are "
            "loaded only while a node trains or samples.",
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
                    tooltip="Diffusers pipeline folder in ComfyUI/models/diffusers, or 'shapes': the small embedded "
                    "model that ships with this pack and trains on a CPU.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "float32", "bfloat16", "float16"],
                    default="auto",
                    advanced=True,
                    tooltip="Data type of the frozen weights. auto: bfloat16 on GPUs that support it; otherwise, and "
                    "for the embedded model, float32. The student LoRA is always trained in float32.",
                ),
                io.Combo.Input(
                    "transformer",
                    options=list(diffusion_choices()),
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="File from ComfyUI's diffusion_models folders whose weights replace those in the "
                    "transformer folder of the model; that folder then only needs its config.json. Quantised files "
                    "are not supported.",
                ),
                io.Combo.Input(
                    "quantise",
                    options=[NONE, *QUANTISATIONS],
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="Quantises the frozen transformer on loading to save memory. int8 and fp8 require "
                    "torchao; nf4 requires bitsandbytes and a GPU. Only with LoRA teachers and without a transformer "
                    "file. The student is trained for the quantised model; on the unquantised model its output "
                    "differs slightly.",
                ),
            ],
            outputs=[
                ModelSocket.Output(
                    "flow_model",
                    display_name="flow model",
                    tooltip="Frozen flow model, for Teacher Field, Sample Student and Evaluate Short List.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, transformer=NONE, **others):
        return stamp(diffusion_choices().get(transformer))

    @classmethod
    def validate_inputs(cls, transformer=NONE):
        return faults_of(weights_check("transformer", diffusion_choices(), transformer))

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
            description="A frozen teacher: the base model, a full checkpoint, a LoRA on the base model, or a LoRA on "
            "a full checkpoint.",
            search_aliases=["danceopd", "teacher", "velocity field", "expert"],
            inputs=[
                ModelSocket.Input("model", tooltip="Model that the teacher is derived from."),
                io.Combo.Input(
                    "lora",
                    options=list(lora_choices()),
                    default="none",
                    tooltip="LoRA of the teacher, from ComfyUI's loras folders; 'shapes:...' ship with this pack. "
                    "none: no LoRA.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="LoRA strength. 1 applies the LoRA as trained.",
                ),
                io.Combo.Input(
                    "checkpoint",
                    options=list(checkpoint_choices()),
                    default="none",
                    advanced=True,
                    tooltip="Fine-tuned transformer that replaces the base model's, from ComfyUI's diffusion_models "
                    "or diffusers folders. It takes the memory of one more transformer. none: the base model's "
                    "transformer.",
                ),
            ],
            outputs=[FieldSocket.Output("field", display_name="field", tooltip="Velocity field of the teacher.")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora, checkpoint, **others):
        return stamp(lora_choices().get(lora), checkpoint_choices().get(checkpoint))

    @classmethod
    def validate_inputs(cls, lora=NONE, checkpoint=NONE):
        return faults_of(
            lora_check("lora", lora_choices(), lora), weights_check("checkpoint", checkpoint_choices(), checkpoint)
        )

    @classmethod
    def execute(cls, model, lora, strength, checkpoint):
        from ..danceopd_core.runs.plans.preflight_weights import check_teachers

        teacher = Teacher(
            checkpoint=chosen(checkpoint_choices(), checkpoint, "checkpoint"),
            lora=chosen(lora_choices(), lora, "lora"),
            strength=strength if lora != "none" else 1.0,
        )
        try:
            check_teachers(model.folder, {"teacher": teacher})
        except InputError as error:
            raise InputError(faults=[Fault(f.setting.rpartition(".")[2], f.message) for f in error.faults]) from None
        return io.NodeOutput(FieldSpec(model, teacher_label(teacher), ((teacher, 1.0),)))


class GuidedField(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Guided",
            display_name="Guided Field",
            category=CATEGORY,
            description="A teacher with classifier-free guidance. The student learns to predict the guided velocity "
            "in a single forward pass.",
            search_aliases=["danceopd", "cfg", "classifier-free guidance", "absorb cfg"],
            inputs=[
                FieldSocket.Input("field", tooltip="Field to guide. It must not be guided already."),
                io.Float.Input(
                    "scale",
                    default=3.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Guidance scale. Typical: 2 to 5. 1: no guidance.",
                ),
                io.String.Input("negative", default="", multiline=True, tooltip="Negative prompt. Usually empty."),
            ],
            outputs=[FieldSocket.Output("guided", display_name="field", tooltip="Guided velocity field.")],
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
            description="Weighted sum of two velocity fields, used as one teacher: a baseline for routing each prompt "
            "to a single teacher.",
            search_aliases=["danceopd", "merge teachers", "average", "blend"],
            inputs=[
                FieldSocket.Input("first", tooltip="Field with weight 1 - share."),
                FieldSocket.Input("second", tooltip="Field with weight share."),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Weight of the second field, from 0 to 1.",
                ),
            ],
            outputs=[FieldSocket.Output("mixed", display_name="field", tooltip="Mixed velocity field.")],
        )

    @classmethod
    def execute(cls, first, second, share):
        return io.NodeOutput(first.mixed(second, share))
