"""What the pack's own edges carry: small frozen values that map onto a recipe. Nothing here opens a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from .schema import Bucket, LearnedRouter, Teacher


@dataclass(frozen=True)
class ModelSpec:
    """folder: "shapes" or a diffusers pipeline folder. dtype: of the frozen network, as a recipe names it.
    transformer: a file whose weights stand for those of the folder's transformer. quantise: as a recipe has it."""

    folder: str
    dtype: str
    transformer: str | None = None
    quantise: str | None = None

    @property
    def components(self) -> dict[str, str]:
        """As a recipe has them."""
        return {"transformer": self.transformer} if self.transformer else {}


@dataclass(frozen=True)
class FieldSpec:
    """A frozen velocity field: teachers with weights that sum to 1, mostly just one."""

    model: ModelSpec
    label: str
    parts: tuple[tuple[Teacher, float], ...]

    def guided(self, scale: float, negative: str) -> FieldSpec:
        """Classifier-free guidance; of a mix it is the mix of the guided parts, since both are linear."""
        if any(teacher.guidance != 1 for teacher, _ in self.parts):
            raise InputError(f"field: '{self.label}' is guided already: wire in the Teacher Field before its guidance")
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
        return FieldSpec(self.model, f"{1 - share:.2g} {self.label} + {share:.2g} {other.label}", parts)


@dataclass(frozen=True)
class PromptSpec:
    """A bucket of prompts, and what to call it."""

    bucket: Bucket
    label: str


@dataclass(frozen=True)
class RouteSpec:
    field: FieldSpec
    prompts: PromptSpec
    weight: float = 1.0


@dataclass(frozen=True)
class RoutesSpec:
    """router: how an update chooses among them, a name of `routing.ROUTERS`. learned: gives routes to prompts that
    have none."""

    lanes: tuple[RouteSpec, ...]
    router: str = "weighted"
    learned: LearnedRouter | None = None

    def taking(self, prompts: PromptSpec, holdout: float) -> RoutesSpec:
        """These routes, which the prompts join as a learned router tells."""
        if self.learned is not None:
            raise InputError("routes: they have a learned router already: give that one all the prompts")
        if len(self.lanes) < 2:
            raise InputError("routes: a router chooses among routes, and there is one: add a route")
        return replace(self, learned=LearnedRouter(prompts.bucket, holdout))

    @property
    def model(self) -> ModelSpec:
        return same_model([lane.field for lane in self.lanes])

    def names(self) -> tuple[str, ...]:
        """One name a route, all different."""
        names: list[str] = []
        for lane in self.lanes:
            name = f"{lane.field.label} on {lane.prompts.label}"
            names.append(name if name not in names else f"{name} ({len(names) + 1})")
        return tuple(names)

    def shares(self) -> tuple[float, ...]:
        """The share of the updates, or of an update's samples, that each route gets."""
        weights = [lane.weight if self.router == "weighted" else 1.0 for lane in self.lanes]
        if not sum(weights) > 0:
            raise InputError("weight: every route has weight 0: give at least one route more")
        return tuple(weight / sum(weights) for weight in weights)


def same_model(fields: Sequence[FieldSpec]) -> ModelSpec:
    """The one model of them all."""
    first = fields[0].model
    if any(field.model != first for field in fields):
        raise InputError("field: the fields come from different models: wire them all to one Load Flow Model")
    return first
