"""The values on the node graph's edges: frozen specs that map onto parts of a recipe. Nothing here opens a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from .schema import Bucket, LearnedRouter, Teacher


@dataclass(frozen=True)
class ModelSpec:
    """The base model. folder: "shapes", a diffusers pipeline folder, or the name of `live`. transformer: a file that
    replaces the weights of the folder's transformer. dtype, quantise: as in a recipe. live: a model that ComfyUI has
    loaded (`runs.sources.LiveModel`)."""

    folder: str
    dtype: str
    transformer: str | None = None
    quantise: str | None = None
    live: Any = None

    @property
    def components(self) -> dict[str, str]:
        """The recipe's `components`."""
        return {"transformer": self.transformer} if self.transformer else {}


LONGEST_LABEL = 200


@dataclass(frozen=True)
class FieldSpec:
    """A frozen velocity field: one teacher, or several with weights that sum to 1.

    live: the models of ComfyUI that its teachers name as checkpoints (`runs.sources.LiveModel`). others: the models
    that its teachers have for themselves.
    """

    model: ModelSpec
    label: str
    parts: tuple[tuple[Teacher, float], ...]
    live: tuple[Any, ...] = ()
    others: tuple[ModelSpec, ...] = ()

    def over(self, model: ModelSpec) -> FieldSpec:
        """The same field for students of another model, which must have the same latents; its own stays its own."""
        if self.model == model:
            raise InputError("field: it is over this flow model already: wire it in without this node")
        if self.model.transformer or self.model.quantise:
            raise InputError(
                "field: its Load Flow Model has a transformer file or quantises, which only the student's model may: "
                "set both to none there"
            )
        if self.model.live is None and self.model.dtype != model.dtype:
            raise InputError(
                f"field: its flow model computes in {self.model.dtype} and the student's in {model.dtype}: choose "
                f"{model.dtype} as the dtype of its Load Flow Model"
            )

        def moved(teacher: Teacher) -> Teacher:
            own = teacher.model or self.model.folder
            return replace(teacher, model=None if own == model.folder else own)

        others = [spec for spec in dict.fromkeys((self.model, *self.others)) if spec.folder != model.folder]
        parts = tuple((moved(teacher), weight) for teacher, weight in self.parts)
        return replace(self, model=model, parts=parts, others=tuple(others))

    def guided(self, scale: float, negative: str) -> FieldSpec:
        """With classifier-free guidance; a mix becomes the mix of its guided parts, since both are linear."""
        if any(teacher.guidance != 1 for teacher, _ in self.parts):
            raise InputError(
                f"field: '{self.label}' already has guidance: wire in the Teacher Field before its guidance"
            )
        parts = tuple((replace(teacher, guidance=scale, negative=negative), share) for teacher, share in self.parts)
        return self if scale == 1 else replace(self, label=f"{self.label} x{scale:g}", parts=parts)

    def mixed(self, other: FieldSpec, share: float) -> FieldSpec:
        """`share` of the other field and the rest of this one."""
        same_model([self, other])
        weights: dict[Teacher, float] = {}
        for field, own in ((self, 1 - share), (other, share)):
            for teacher, weight in field.parts:
                weights[teacher] = weights.get(teacher, 0.0) + own * weight
        parts = tuple((teacher, weight) for teacher, weight in weights.items() if weight)
        # A field that is mixed with itself again and again would double its label and its models each time.
        label = f"{1 - share:.2g} {self.label} + {share:.2g} {other.label}"
        label = label if len(label) <= LONGEST_LABEL else f"mix of {len(parts)} teachers"
        live = tuple({id(model): model for model in (*self.live, *other.live)}.values())
        return FieldSpec(self.model, label, parts, live, tuple(dict.fromkeys((*self.others, *other.others))))


@dataclass(frozen=True)
class PromptSpec:
    """A bucket of prompts and its label."""

    bucket: Bucket
    label: str


@dataclass(frozen=True)
class RouteSpec:
    """A field, the prompts that the student learns from it, and the route's weight."""

    field: FieldSpec
    prompts: PromptSpec
    weight: float = 1.0


@dataclass(frozen=True)
class RoutesSpec:
    """The routes of a run. router: a name of `algorithm.routers.ROUTERS`. learned: the learned router, if any."""

    routes: tuple[RouteSpec, ...]
    router: str = "weighted"
    learned: LearnedRouter | None = None

    def taking(self, prompts: PromptSpec, holdout: float) -> RoutesSpec:
        """With a learned router that assigns the prompts to these routes."""
        if self.learned is not None:
            raise InputError("routes: they already have a learned router: give that one all the prompts")
        check_kind("unlabelled", prompts, self.model)
        if len(self.routes) < 2:
            raise InputError("routes: a learned router needs at least two routes to choose from: add a route")
        return replace(self, learned=LearnedRouter(prompts.bucket, holdout))

    @property
    def model(self) -> ModelSpec:
        return same_model([route.field for route in self.routes])

    def names(self) -> tuple[str, ...]:
        """The distinct names of the routes."""
        names: list[str] = []
        for route in self.routes:
            name = f"{route.field.label} on {route.prompts.label}"
            names.append(name if name not in names else f"{name} ({len(names) + 1})")
        return tuple(names)

    def shares(self) -> tuple[float, ...]:
        """The expected fraction of the samples that each route gets; of a balanced router, at the start."""
        weights = [route.weight if self.router in ("weighted", "balanced") else 1.0 for route in self.routes]
        if not sum(weights) > 0:
            raise InputError("weight: every route has weight 0: give at least one a weight above 0")
        return tuple(weight / sum(weights) for weight in weights)


def check_kind(widget: str, prompts: PromptSpec, model: ModelSpec) -> None:
    """InputError if the bucket holds conditioning and the model is not one of ComfyUI."""
    if prompts.bucket.encoded is not None and model.live is None:
        raise InputError(
            f"{widget}: it holds conditioning of ComfyUI's encode nodes, which a diffusers folder does not take: use "
            "Prompt Bucket, or Flow Model from ComfyUI in place of Load Flow Model"
        )


def same_model(fields: Sequence[FieldSpec]) -> ModelSpec:
    """The model that the fields have in common; InputError if they have several."""
    first = fields[0].model
    if any(field.model != first for field in fields):
        node = "Load Flow Model" if first.live is None else "Flow Model from ComfyUI"
        if any((field.model.live is None) != (first.live is None) for field in fields):
            node = "Load Flow Model or one Flow Model from ComfyUI"
        raise InputError(f"field: the fields come from different models: wire all of them to one {node}")
    return first
