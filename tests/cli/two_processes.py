"""Trains a recipe and records, for one process, the samples, noises, losses, gradient and weights of each update.

As a script, in each process that accelerate launches: RECIPE -> rank0.json, rank0.safetensors, rank1.json and so on
beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from danceopd_core.algorithm.fields import Sample
from danceopd_core.algorithm.query import every
from danceopd_core.algorithm.rollout import ode
from danceopd_core.algorithm.trainer import ProcessGroup
from danceopd_core.recipe.io import read_recipe
from danceopd_core.recipe.schema import Recipe
from danceopd_core.runs.training.distributed import join_process_group
from danceopd_core.runs.training.session import open_session


def digest(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def sample_key(sample: Sample) -> str:
    values = [value if isinstance(value, tuple) else (value,) for value in sample.values.values()]
    return digest(*(tensor for parts in values for tensor in parts))


def record(recipe: Recipe, processes: ProcessGroup) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The record of every update, and by update number the gradient averaged over the processes.

    The trainer's noise depends on the rank. It is recorded, but the rollouts start from a noise that depends only on
    the sample and the update, so that runs with different numbers of processes can be compared.
    """
    noises: list[str] = []
    samples: list[str] = []
    gradients: dict[str, Tensor] = {}
    updates: list[dict[str, Any]] = []

    def mean(tensors):
        processes.mean(tensors)
        gradients[str(len(updates) + 1)] = torch.cat([tensor.flatten() for tensor in tensors])

    def rollout(field, start, sigmas, indices, generator):
        keys = [sample_key(sample) for sample in start.cond.samples]
        samples.extend(keys)
        noises.extend(map(digest, start.noise))
        seeds = [torch.Generator().manual_seed(int(key[:12], 16) + len(updates)) for key in keys]
        noise = torch.stack([torch.randn(start.noise.shape[1:], generator=seed) for seed in seeds])
        return ode(field, start._replace(noise=noise), sigmas, indices, generator)

    run = open_session(recipe, processes._replace(mean=mean))
    run.trainer.method = replace(run.trainer.method, states=rollout, query=every)
    for result in run.trainer:
        weights = digest(*run.adapters.state_dict().values())
        updates.append({"losses": result.losses, "weights": weights, "samples": samples[:], "noises": noises[:]})
        samples.clear()
        noises.clear()
    return updates, gradients


if __name__ == "__main__":
    group, _ = join_process_group("cpu")
    found, averages = record(read_recipe(sys.argv[1]), group)
    folder = Path(sys.argv[1]).parent
    (folder / f"rank{group.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    save_file(averages, folder / f"rank{group.rank}.safetensors")
