"""What ComfyUI asks the pack for."""

from __future__ import annotations

from ..nodes import routes_http
from ._comfy import ComfyExtension, io
from .bucket_node import PromptBucket
from .conditioning_nodes import ConditioningBucket
from .field_nodes import GuidedField, LoadModel, MixedField, TeacherField
from .guard import guarded
from .learned_router_node import LearnedRouterNode
from .native_nodes import FieldFromModel, FieldFromOtherModel, LoadLora, LoadShapes, NativeFlowModel
from .report_node import LoraReport
from .route_node import RouteSelector
from .sample_nodes import Compare, Evaluate, SampleStudent
from .student_nodes import StudentLora
from .train_nodes import TrainStudent

NODES: list[type[io.ComfyNode]] = [
    LoadModel,
    TeacherField,
    GuidedField,
    MixedField,
    PromptBucket,
    RouteSelector,
    LearnedRouterNode,
    StudentLora,
    TrainStudent,
    SampleStudent,
    Compare,
    Evaluate,
    LoadShapes,
    LoadLora,
    NativeFlowModel,
    FieldFromModel,
    FieldFromOtherModel,
    ConditioningBucket,
    LoraReport,
]


class DanceOPD(ComfyExtension):
    async def on_load(self) -> None:
        routes_http.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [guarded(node) for node in NODES]


async def comfy_entrypoint() -> DanceOPD:
    return DanceOPD()
