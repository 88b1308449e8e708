"""The node for the routes that bind buckets of prompts to teachers."""

from __future__ import annotations

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.graph import RouteSpec, RoutesSpec, check_kind
from ._comfy import io
from .header_checks import faults_of
from .sockets import CATEGORY, BucketSocket, FieldSocket, RoutesSocket

ROUTES = 8
ROUTERS = ("weighted", "round_robin", "all")


class RouteSelector(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Routes",
            display_name="Route Selector",
            category=CATEGORY,
            description="Binds each teacher to its prompts and sets how an update selects among these routes.",
            search_aliases=["danceopd", "router", "weights", "multi-teacher"],
            inputs=[
                io.DynamicCombo.Input(
                    "routes",
                    tooltip="Number of routes. Each route has a teacher field, a prompt bucket and a sampling weight.",
                    options=[
                        io.DynamicCombo.Option(str(count), [socket for i in range(count) for socket in _route(i + 1)])
                        for count in range(1, ROUTES + 1)
                    ],
                ),
                io.Combo.Input(
                    "router",
                    options=["weighted", "round_robin", "all", "balanced"],
                    default="weighted",
                    tooltip="weighted: each update samples one route with probability proportional to its weight. "
                    "round_robin: one route per update, in turn. all: each update averages the losses of all routes. "
                    "balanced: as weighted, with up to twice or half the weight for routes farther from or nearer "
                    "to their teachers.",
                ),
            ],
            outputs=[
                RoutesSocket.Output(
                    "selected",
                    display_name="routes",
                    tooltip="Routes, for Train Student LoRA, Learned Router and Compare Fields.",
                ),
                io.String.Output(
                    "shares", display_name="route shares", tooltip="Share of the training samples per route, as text."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, router=None, routes=None, **others):
        count = str((routes or {}).get("routes"))
        if router not in (None, *ROUTERS):
            return f"router: '{router}' is none of {', '.join(ROUTERS)}"
        if not count.isdecimal() or not 1 <= int(count) <= ROUTES:
            return True  # told when it runs
        weights = [routes.get(f"weight{i}") for i in range(1, int(count) + 1)]
        faults = [f"weight{i}: {w} is not from 0 to 1000" for i, w in enumerate(weights, 1) if w and not 0 <= w <= 1000]
        if router == "weighted" and all(weight == 0 for weight in weights):
            faults.append("weight1: every route has weight 0: give at least one a weight above 0")
        return faults_of(*faults)

    @classmethod
    def execute(cls, router, routes=None, **left):
        if routes is None:
            raise InputError(f"routes: it is none of the list: choose 1 to {ROUTES}")
        numbers = range(1, int(routes["routes"]) + 1)
        specs = [RouteSpec(routes[f"field{i}"], routes[f"bucket{i}"], routes[f"weight{i}"]) for i in numbers]
        for i, spec in zip(numbers, specs, strict=True):
            check_kind(f"bucket{i}", spec.prompts, spec.field.model)
        selected = RoutesSpec(tuple(specs), router)
        shares = zip(selected.names(), selected.shares(), strict=True)
        text = "\n".join(f"{share:.0%} {name}" for name, share in shares)
        return io.NodeOutput(selected, text)


def _route(number: int) -> list[io.Input]:
    return [
        FieldSocket.Input(f"field{number}", tooltip=f"Teacher of route {number}."),
        BucketSocket.Input(f"bucket{number}", tooltip=f"Prompts of route {number}."),
        io.Float.Input(
            f"weight{number}",
            default=1.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip=f"Sampling weight of route {number}, relative to the other routes. Used by the router weighted.",
        ),
    ]
