"""Plans a run: all that follows from a recipe, its files' headers and its prompts before a model is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...algorithm.losses import ClippedPolicy, OdeKl
from ...algorithm.methods import Method, method
from ...algorithm.query import QUERIES, Beta, BySigma, QueryBin, QuerySampler, Uniform, query_distribution
from ...algorithm.rollout import Sde
from ...algorithm.settings import Settings
from ...data.csv_rows import Item, read_csv
from ...data.roots import Roots
from ...errors import InputError
from ...lookup import lookup
from ...models.sigma_schedule import path_sigmas
from ...recipe.schema import MANY_STEPS, Bucket, Recipe, Route, Teacher
from ...recipe.validation import too_many_queries
from ...shapes.language import KINDS, T2I
from .preflight import Preflight, preflight
from .sources import ModelSource, recipe_source


@dataclass(frozen=True, eq=False)
class RunPlan:
    """A recipe that passed the preflight, with its method and the source of its model."""

    preflight: Preflight
    method: Method
    source: ModelSource

    @property
    def recipe(self) -> Recipe:
        return self.preflight.recipe

    def quantised(self, kind: str | None) -> RunPlan:
        """The plan with the base in this type, one of the recipe's `quantise`."""
        recipe = replace(self.recipe, quantise=kind)  # type: ignore[arg-type]
        return RunPlan(replace(self.preflight, recipe=recipe), self.method, self.source.quantised(kind))

    def on_own_steps(self) -> RunPlan:
        """The plan with a number for `rollout_steps`; a model with a Hugging Face id is downloaded if it is not here.

        InputError for a path with too few states for the queries.
        """
        recipe = self.recipe
        if recipe.rollout_steps is None:
            recipe = replace(recipe, rollout_steps=self.source.few_steps() or MANY_STEPS)
        if recipe.query.k > recipe.path_steps:
            raise InputError.at("query.k", too_many_queries(recipe.query.k, recipe.path_steps))
        return replace(self, preflight=replace(self.preflight, recipe=recipe))

    def advice(self) -> list[str]:
        """What of the recipe is not as a model of few steps was made; nothing for any other."""
        recipe, own = self.recipe, self.source.few_steps()
        if own is None:
            return []
        told = [f"the model was distilled to {own} steps without guidance: its path has rollout_steps: {own}"]
        if recipe.path_steps != own:
            told = [f"rollout_steps: the model was distilled to {own} steps, not {recipe.path_steps}: leave it out"]
        if schedule_of(recipe) != "model":
            told.append("sigmas: the few steps of the model lie on its own schedule: leave it out")
        guided = [name for name, teacher in recipe.teachers.items() if teacher.guidance != 1 and not teacher.model]
        if guided:
            told.append(f"guidance of {', '.join(guided)}: the model was made without it: leave it out")
        return told

    def items(self, bucket: Bucket) -> Sequence[Item]:
        """The items of one of the recipe's buckets; no CSV is read again."""
        return self.preflight.items(bucket)

    def query_bins(self) -> list[QueryBin]:
        """The sigmas at which the teachers are queried, each with its share, before the model is opened.

        A model with a Hugging Face id is downloaded if it is not here yet. InputError if no sigma of the path is
        queried.
        """
        recipe = self.recipe
        size = recipe.path_steps, recipe.width, recipe.height
        sigmas = path_sigmas(schedule_of(recipe), size[0], lambda: self.source.sigmas(*size))
        return query_distribution(self.method.query, sigmas)

    @property
    def tasks(self) -> dict[str, str]:
        """What each route trains, by its first item: "edit" or "text-to-image"."""
        return {route.name: task_of(self.items(route.bucket)[0]) for route in self.recipe.routes}

    def teachers(self, route: Route) -> list[Teacher]:
        """The teachers of a route: one, or those that it mixes."""
        return [self.recipe.teachers[name] for name in route.teachers]


def task_of(item: Item) -> str:
    """ "edit" for an item with a source picture, also in conditioning that is encoded already."""
    encoded = item.conditioning.values.values() if item.conditioning else ()
    edits = item.source is not None or any(isinstance(value, tuple) for value in encoded)
    return "edit" if edits else "text-to-image"


def negatives_of(teachers: Iterable[Teacher], model: str | None = None) -> list[str]:
    """The negative prompts of the guided ones among the teachers that have this model; None: the run's."""
    return sorted({t.negative for t in teachers if t.guidance != 1 and (t.model or None) == model})


def plan_run(recipe: Recipe, source: ModelSource | None = None, roots: Roots = None) -> RunPlan:
    """The plan of a checked recipe; one InputError with every fault of its settings, files and buckets.

    source: of its model; None: what the recipe names. roots: where the buckets' files have to lie; None: anywhere.
    """
    source = source or recipe_source(recipe)
    return RunPlan(preflight(recipe, source, roots), build_method(recipe), source)


def edits(recipe: Recipe) -> bool:
    """Whether some prompt of the recipe has a source image, as far as its files say without a picture being opened."""
    return any(_edits(bucket) for bucket in recipe.buckets())


def _edits(bucket: Bucket) -> bool:
    if bucket.csv is not None:
        return any(item.source is not None for item in read_csv(Path(bucket.csv)))
    if bucket.stream is not None:
        return bucket.stream.source_image is not None
    return bucket.shapes is not None and not set(lookup(KINDS, bucket.shapes, "kind of the embedded world")) <= set(T2I)


def build_method(recipe: Recipe) -> Method:
    """The recipe's row of METHODS with its own query and options."""
    chosen = method(recipe.method)
    changes: dict[str, Any] = {}
    if isinstance(chosen.objective, ClippedPolicy):
        eta = chosen.objective.eta if recipe.eta is None else recipe.eta
        changes |= {"states": Sde(eta), "objective": ClippedPolicy(eta, anchor=recipe.anchor)}
        if recipe.group is not None:
            changes["group"] = recipe.group
    if isinstance(chosen.objective, OdeKl):
        changes["objective"] = OdeKl(recipe.ode_kl_weight)
    if chosen.takes_query:
        changes["query"] = _query(recipe)
    return method(recipe.method, **changes)


def schedule_of(recipe: Recipe) -> str | float:
    """What `path_sigmas` takes: the name of a grid, or a shift."""
    return recipe.sigmas if isinstance(recipe.sigmas, str) else recipe.sigmas.shift


def _query(recipe: Recipe) -> QuerySampler:
    query = recipe.query
    if query.sigma:
        return BySigma(*query.sigma, query.k)
    sampler = lookup(QUERIES, query.bias, "query bias")
    return replace(sampler, k=query.k) if isinstance(sampler, Beta | Uniform) else sampler


def settings_of(recipe: Recipe) -> Settings:
    """The numbers of the trainer."""
    optimizer = recipe.optimizer
    return Settings(
        steps=recipe.steps,
        batch=recipe.batch,
        accumulate=recipe.accumulate,
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        betas=optimizer.betas,
        clip=optimizer.clip,
        schedule=optimizer.schedule,
        warmup=optimizer.warmup,
        ema=optimizer.ema,
        seed=recipe.seed,
        optimizer=optimizer.name,
        held_out=recipe.held_out,
    )
