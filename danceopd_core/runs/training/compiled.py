"""`compile: true`: the networks of a run compiled by blocks, and one pass of every kind that training makes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ...algorithm.attention import sound_attention
from ...algorithm.fields import Sample
from ...algorithm.relief import empty_caches, ran_out_of_memory
from ...algorithm.trainer import RouteData, Trainer
from ...errors import InputError, shown
from ...models.backbone import Backbone
from ...models.compiling import compile_blocks
from ...weights.adapters import Adapters

SEEN = 16
"""Samples of a bucket among which a short and a long text are looked for."""
Prepare = Callable[[Backbone, Adapters], None]
"""Is given every backbone of the run's own architecture, with its adapters, before anything calls it."""


def prepared(dtype: torch.dtype, device: torch.device) -> Prepare:
    """Compiles a backbone's blocks on their first calls. dtype: of the network."""

    def prepare(backbone: Backbone, adapters: Adapters) -> None:
        adapters.as_data(dtype, device)
        compile_blocks(backbone.network)

    return prepare


def warm_up(trainer: Trainer, log: Callable[[str], None]) -> None:
    """Calls every field as training will, so that no update compiles anything. The trainer is as it was.

    InputError if the compiler fails. Where memory does not suffice, compiling is left to the updates.
    """
    log("compiling the transformer's blocks: once, for minutes")
    begin = time.monotonic()
    try:
        for route in trainer.routes:
            _call(trainer, route)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise _refused(error) from error
        log("no memory to compile all at once: the first updates do it")
    else:
        log(f"compiled in {time.monotonic() - begin:.0f} s")
    finally:
        for factor in trainer.student.parameters():
            factor.grad = None
        empty_caches()


def _call(trainer: Trainer, route: RouteData) -> None:
    size = trainer.micro_batch
    seen = list(range(min(len(route.samples), SEEN)))
    found = route.samples.select(seen).samples
    seen.sort(key=lambda row: _length(found[row]))
    short, long = seen[0], seen[-1]
    # Samples leave a batch one by one; one alone has code of its own, and so may texts of one length.
    for rows in dict.fromkeys(((short,), (long,), (short,) * size, (short, *[long] * size)[:size])):
        cond = route.samples.select(rows).to(trainer.device)
        x = torch.ones(len(rows), *trainer.shape, device=trainer.device)
        inputs = x, torch.full((len(rows),), 0.5, device=trainer.device), cond
        with torch.no_grad():
            trainer.field(*inputs)
        if len(rows) == size:
            with torch.no_grad():
                route.teacher(*inputs)
            with sound_attention():  # kernels are chosen while a block is compiled
                trainer.field(*inputs).square().mean().backward()


def _length(sample: Sample) -> int:
    """The tokens of a sample's texts."""
    texts = sample.values.get("text", ())
    return sum(len(text) for text in ((texts,) if isinstance(texts, torch.Tensor) else texts))


def _refused(error: Exception) -> Exception:
    """The compiler's failure as a sentence; any other error as it is."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return error
    reason = shown(" ".join(str(error).split()), 300) or type(error).__name__
    return InputError.at("compile", f"the blocks cannot be compiled here: leave it out ({reason})")
