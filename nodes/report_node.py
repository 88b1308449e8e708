"""The node that examines a LoRA."""

from __future__ import annotations

from ..danceopd_core.errors import InputError
from ..danceopd_core.shapes import locate
from ._comfy import (
    NONE,
    ComfyHost,
    as_arrays,
    as_image,
    chosen,
    device_name,
    io,
    lora_choices,
    lora_file,
    stamp,
    ui,
    workspace,
)
from .sockets import CATEGORY, ModelSocket


class LoraReport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LoraReport",
            display_name="LoRA Report",
            category=CATEGORY,
            description="Examines a LoRA of any trainer: norm and spectrum of every layer, dead layers, spikes, NaN, "
            "the keys that Load LoRA takes and, over a flow model, what the LoRA changes in its answers. The verdict "
            "comes first.",
            search_aliases=["danceopd", "lora doctor", "inspect lora", "dead lora", "lora spectrum", "lora keys"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=list(lora_choices()),
                    default=NONE,
                    tooltip="LoRA from ComfyUI's loras folders. Must be none if lora is connected.",
                ),
                io.LoraModel.Input(
                    "lora", optional=True, tooltip="LoRA to examine, connected directly from a training node."
                ),
                io.Model.Input(
                    "model",
                    display_name="MODEL",
                    optional=True,
                    tooltip="MODEL that the LoRA is for: the report says which keys Load LoRA would pass over on it.",
                ),
                ModelSocket.Input(
                    "flow_model",
                    optional=True,
                    tooltip="Flow model that the LoRA is for: the report says what the LoRA changes in its answers, "
                    "against strength 0, at three times of the way from noise to picture.",
                ),
                io.String.Input(
                    "prompt",
                    default="a photograph",
                    optional=True,
                    advanced=True,
                    tooltip="Prompt under which the flow model is asked. A LoRA with a trigger word needs it here.",
                ),
                io.Image.Input("source", optional=True, tooltip="Image that the prompt edits, for a LoRA of edits."),
            ],
            outputs=[
                io.String.Output("report", display_name="report", tooltip="The report, with the verdict first."),
                io.Image.Output(
                    "spectrum",
                    display_name="spectrum",
                    tooltip="Singular values of every layer, one line a layer; spikes in red.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name=NONE, **others):
        return stamp(lora_choices().get(lora_name))

    @classmethod
    def execute(cls, lora_name, lora=None, model=None, flow_model=None, prompt="a photograph", source=None):
        from ..danceopd_core.doctor.lora_file import read_for_examination
        from ..danceopd_core.doctor.report import report_text, spectrum_picture
        from ..danceopd_core.runs.pictures.field_sampling import paired_items
        from ..danceopd_core.runs.pictures.lora_effect import graph_effect

        name = _name(lora_name, lora)
        file = read_for_examination(locate(name))
        health, effects, keys = file.health(), [], None
        if model is not None:
            from .native.lora_names import passed_over

            keys = passed_over(str(file.path), model)
        if flow_model is not None and not health.broken:
            items, host = (
                paired_items([prompt.strip()], as_arrays(source, "source")),
                ComfyHost(cls.hidden.unique_id, 1),
            )
            with workspace(training=False):
                effects = graph_effect(flow_model, name, items, device_name(), host)
        text = report_text(file, health, effects, stock=keys)
        return io.NodeOutput(text, as_image(spectrum_picture(health, file.path.name)), ui=ui.PreviewText(text))


def _name(lora_name: str, lora) -> str:
    """The file, or the name of an embedded LoRA."""
    name = chosen(lora_choices(), lora_name, "lora_name")
    if lora is not None and name:
        raise InputError("lora_name: a LoRA is connected already: set it to none, or disconnect the other")
    if lora is None and not name:
        raise InputError("lora_name: there is no LoRA to examine: choose one, or connect lora")
    return str(lora_file(lora)) if lora is not None else str(name)
