"""Distils several frozen velocity fields on-policy into one LoRA (DanceOPD): the public names, loaded on first use."""

from importlib import import_module
from typing import Any

_PLACES = {
    "errors": ("InputError",),
    "algorithm.fields": ("Conditioning", "Sample", "VelocityField", "guided", "mixed"),
    "algorithm.rollout": ("Sde", "Start", "State", "ode", "straight"),
    "algorithm.query": ("Beta", "BySigma", "Uniform", "every", "query_distribution"),
    "algorithm.losses": ("ClippedPolicy", "OdeKl", "velocity_mse"),
    "algorithm.methods": ("METHODS", "Method", "StateLoss", "method", "state_losses"),
    "algorithm.routers": ("AllOf", "RoundRobin", "WeightedRandom", "router"),
    "algorithm.settings": ("Settings",),
    "algorithm.trainer": ("ProcessGroup", "RouteData", "StepResult", "Trainer"),
    "algorithm.updates": ("Diverged",),
    "weights.adapters": ("Adapters", "fresh_lora"),
    "weights.lora_io": ("Lora", "read_lora", "write_lora"),
    "weights.full_checkpoints": ("load_full_checkpoint",),
    "models.backbone": ("Backbone",),
    "models.registry": ("FAMILIES", "open_backbone"),
    "models.sampling": ("integrate", "pictures"),
    "recipe.schema": (
        "Bucket",
        "LearnedRouter",
        "Optimizer",
        "Query",
        "Recipe",
        "Route",
        "Shift",
        "Student",
        "Teacher",
    ),
    "recipe.io": ("parse_recipe", "read_recipe", "write_recipe"),
    "runs.preflight": ("preflight",),
    "runs.session": ("TrainingSession", "open_session"),
    "runs.run_dir": ("RunFolder",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
