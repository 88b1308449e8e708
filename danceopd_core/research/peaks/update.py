"""One update of the trainer at real size, simulated on tensors without memory or measured on a device."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...algorithm.fields import Conditioning, Sample, Value
from ...algorithm.flow import linear_sigmas
from ...algorithm.methods import method
from ...algorithm.routers import RoundRobin
from ...algorithm.trainer import RouteData, Settings, Trainer
from ...models.registry import default_targets
from ...runs.budget.walk import GpuAttention, recomputed
from ...runs.budget.walk_inputs import Pass, asked, shapeless_lora
from ...weights.adapters import STUDENT, Adapters
from ...weights.linear_like import linear_shapes
from .counting import Flops, UpdateCounts
from .networks import filled_lora

STEPS = 2
"""Of the rollout: each path goes to the last of its states."""


@dataclass(frozen=True)
class Simulated:
    """Of an update. peak: bytes, weights included. counted, kernels: as of UpdateCounts."""

    peak: int
    flops: int
    counted: dict[str, int]
    kernels: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """Of an update. allocated, reserved: the most bytes of the device that tensors had, and that the allocator held;
    0 on a CPU, which counts none. before: bytes that tensors had before the student was there."""

    allocated: int
    reserved: int
    before: int
    seconds: float
    flops: int


@contextmanager
def prepared(
    of: Pass, rank: int, device: torch.device, checkpointing: bool = True, full: bool = False
) -> Iterator[Trainer]:
    """A trainer of batch 1 with two LoRA teachers of random factors, or with one full checkpoint as its teacher.

    of: its network is on the device and gets the LoRAs; it loses them after. An update makes two forwards of the
    rollout, the teacher's, the student's and the backward pass.
    """
    velocity, values = asked(of)
    samples = Conditioning((Sample({name: _random(value) for name, value in values.items()}),))
    teachers = []
    if full:
        checkpoint = copy.deepcopy(of.network)
        teachers.append(RouteData("checkpoint", asked(of._replace(network=checkpoint))[0], samples))
    adapters = Adapters(of.network)
    try:
        lora = filled_lora(shapeless_lora(linear_shapes(of.network), rank, default_targets(of.pipeline)), device)
        for name in () if full else [adapters.add_teacher(lora) for _ in range(2)]:
            teachers.append(RouteData(name, adapters.field(velocity, name), samples))
        adapters.start_student(lora)
        del lora
        if checkpointing:
            _checkpoint(of.network, device)
        yield Trainer(
            adapters,
            adapters.field(velocity, STUDENT),
            teachers,
            RoundRobin(len(teachers)),
            method("danceopd", query=lambda sigmas, batch, generator: torch.full((batch, 1), STEPS)),
            linear_sigmas(STEPS + 1, 3.0),
            (of.channels, of.height // of.factor, of.width // of.factor),
            Settings(steps=2, batch=1, accumulate=1),
            device=device,
        )
    finally:
        adapters.remove()
        of.network.disable_gradient_checkpointing()  # type: ignore[operator]


def simulated(of: Pass, rank: int, checkpointing: bool = True, full: bool = False) -> Simulated:
    """An update on the meta device. Adam's moments are there, as after a first update."""
    with prepared(of, rank, torch.device("meta"), checkpointing, full) as trainer:
        parameters = trainer.student.parameters()
        factors = sum(parameter.numel() for parameter in parameters)
        weights = sum(tensor.nbytes for tensor in (*of.network.parameters(), *of.network.buffers()))
        # A full checkpoint is another network; two LoRA teachers are in half precision, the student in float32.
        weights += (weights if full else 2 * 2 * factors) + 4 * factors
        counts = UpdateCounts()
        with GpuAttention(), counts:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            trainer._updater.apply({}, 0.0)
            counts.restart()
            counts.counted.clear()
            next(iter(trainer))
    return Simulated(weights + counts.peak, counts.flops, dict(+counts.counted), dict(counts.kernels))


def measured(of: Pass, rank: int, device: torch.device, checkpointing: bool = True, full: bool = False) -> Measured:
    """The second of two updates on a device; the first counts the operations, loads kernels and makes Adam's moments.

    torch.OutOfMemoryError where an update does not fit.
    """
    before = _allocated(device)
    with prepared(of, rank, device, checkpointing, full) as trainer:
        updates = iter(trainer)
        with Flops() as counted:
            next(updates)
        gc.collect()
        _wait(device, restart=True)
        begin = time.perf_counter()
        next(updates)
        _wait(device)
        seconds = time.perf_counter() - begin
        allocated, reserved = (
            (torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))
            if device.type == "cuda"
            else (0, 0)
        )
    return Measured(allocated, reserved, before, seconds, counted.flops)


def _checkpoint(network: nn.Module, device: torch.device) -> None:
    given = [recomputed] if device.type == "meta" else []
    network.enable_gradient_checkpointing(*given)  # type: ignore[operator]


def _random(value: Value) -> Value:
    if isinstance(value, Tensor):
        return torch.randn(value.shape).to(value.dtype)
    return tuple(torch.randn(each.shape).to(each.dtype) for each in value)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _wait(device: torch.device, restart: bool = False) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        if restart:
            torch.cuda.reset_peak_memory_stats(device)
