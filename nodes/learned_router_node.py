"""The node that assigns prompts without a route."""

from __future__ import annotations

from ._comfy import io
from .sockets import CATEGORY, BucketSocket, RoutesSocket


class LearnedRouterNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LearnedRouter",
            display_name="Learned Router",
            category=CATEGORY,
            description="Assigns prompts without a route to the teachers. Before training, a small classifier of "
            "prompt embeddings is fitted to the prompts of the routes and assigns each unlabelled prompt to one route.",
            search_aliases=["danceopd", "router", "classifier", "unlabelled prompts", "unlabeled", "auto routing"],
            inputs=[
                RoutesSocket.Input(
                    "routes",
                    tooltip="Routes from Route Selector. Their prompts are the training data of the classifier: at "
                    "least 4 distinct prompts per route.",
                ),
                BucketSocket.Input(
                    "unlabelled",
                    tooltip="Prompts to assign. Prompts with a source image are assigned to edit routes, prompts "
                    "without one to text-to-image routes.",
                ),
                io.Float.Input(
                    "holdout",
                    default=0.25,
                    min=0.05,
                    max=0.9,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Fraction of each route's prompts held out to measure the classifier's accuracy. Typical: "
                    "0.1 to 0.3.",
                ),
            ],
            outputs=[
                RoutesSocket.Output(
                    "routed",
                    display_name="routes",
                    tooltip="Routes with the assigned prompts, for Train Student LoRA. The held-out accuracy is in "
                    "router.json in the run folder.",
                )
            ],
        )

    @classmethod
    def execute(cls, routes, unlabelled, holdout=0.25):
        return io.NodeOutput(routes.taking(unlabelled, holdout))
