"""Distils several frozen velocity fields on-policy into one LoRA (DanceOPD).

The public names are loaded on first use, so that importing the package is fast and needs no torch. `open_session` opens
and trains a recipe; the algorithm alone works with any fields:

    >>> import torch
    >>> from danceopd_core import METHODS, Conditioning, RoundRobin, RouteData, Sample, Settings, Trainer
    >>> class Student:
    ...     def __init__(self):
    ...         self.weight = torch.nn.Parameter(torch.zeros(4))
    ...     def __call__(self, x, sigma, cond):
    ...         return self.weight * x
    ...     def parameters(self):
    ...         return [self.weight]
    ...     def state_dict(self):
    ...         return {"weight": self.weight.detach()}
    ...     def load_state_dict(self, state):
    ...         self.weight.data.copy_(state["weight"])
    >>> def teacher(x, sigma, cond):
    ...     return 0.5 * x
    >>> route = RouteData("halve", teacher, Conditioning((Sample({}),)))
    >>> student, sigmas, latent_shape = Student(), torch.linspace(1, 0, 9), (4,)
    >>> settings = Settings(steps=200, batch=8, accumulate=1, lr=0.02)
    >>> trainer = Trainer(student, student, [route], RoundRobin(1), METHODS["danceopd"], sigmas, latent_shape, settings)
    >>> errors = [result.errors["halve"] for result in trainer]
    >>> errors[0], round(errors[-1], 2)
    (1.0, 0.0)
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "errors": ("Fault", "InputError"),
    "algorithm.fields": ("Conditioning", "Sample", "VelocityField", "guided", "mixed"),
    "algorithm.rollout": ("Sde", "Start", "State", "ode", "straight"),
    "algorithm.query": ("Beta", "BySigma", "Uniform", "every", "query_distribution"),
    "algorithm.losses": ("ClippedPolicy", "OdeKl", "velocity_mse"),
    "algorithm.methods": ("METHODS", "Method", "StateLoss", "method", "state_losses"),
    "algorithm.routers": ("AllOf", "RoundRobin", "WeightedRandom", "router"),
    "algorithm.settings": ("Settings",),
    "algorithm.step_result": ("StepResult",),
    "algorithm.draws": ("RouteData",),
    "algorithm.trainer": ("ProcessGroup", "Trainer"),
    "algorithm.updates": ("Diverged",),
    "weights.adapters": ("Adapters",),
    "weights.lora": ("Lora", "fresh_lora"),
    "weights.lora_io": ("read_lora", "write_lora"),
    "weights.full_checkpoints": ("load_full_checkpoint",),
    "models.backbone": ("Backbone",),
    "models.registry": ("FAMILIES", "open_backbone"),
    "models.sampling": ("integrate", "sample_pictures"),
    "recipe.schema": ("Bucket", "LearnedRouter", "Recipe", "Route", "Student", "Teacher"),
    "recipe.updating": ("Optimizer", "Query", "Shift"),
    "recipe.io": ("checked", "parse_recipe", "read_recipe", "write_recipe"),
    "runs.plans.preflight": ("preflight",),
    "runs.training.session": ("TrainingSession", "open_session"),
    "runs.training.run_dir": ("RunFolder",),
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
