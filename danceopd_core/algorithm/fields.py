"""Velocity fields and their conditioning; classifier-free guidance and mixtures are fields built from fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError

Value = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """The conditioning of one sample, as its backbone encoded it; no tensor has a batch dimension.

    `nulls` maps a negative prompt to the same sample encoded with that prompt. It is stored with the sample because
    the null of an edit still holds the sample's own source picture. `views` maps the name of another model to the
    same sample as that model encodes it, for teachers with a model of their own; its nulls are those of these teachers.
    """

    values: Mapping[str, Value]
    nulls: Mapping[str, Sample] = field(default_factory=dict)
    views: Mapping[str, Sample] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Sample:
        return self.moved(lambda tensor: tensor.to(device))

    def moved(self, move: Callable[[Tensor], Tensor]) -> Sample:
        """The same sample with all its tensors as `move` gives them."""

        def moved(value: Value) -> Value:
            return move(value) if isinstance(value, Tensor) else tuple(map(move, value))

        values = {name: moved(value) for name, value in self.values.items()}
        nulls, views = (
            {key: sample.moved(move) for key, sample in others.items()} for others in (self.nulls, self.views)
        )
        return Sample(values, nulls, views)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The conditioning of a batch, kept per sample: finished samples can leave it, and text lengths may differ."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __add__(self, other: Conditioning) -> Conditioning:
        return Conditioning(self.samples + other.samples)

    def select(self, indices: Sequence[int] | Tensor) -> Conditioning:
        chosen = indices.tolist() if isinstance(indices, Tensor) else indices
        return Conditioning(tuple(self.samples[index] for index in chosen))

    def null(self, negative: str = "") -> Conditioning:
        """The batch conditioned on a negative prompt; ValueError if a sample was not encoded with it."""
        missing = f"for the negative prompt {negative!r}", "together with this negative prompt"
        return self._inner("nulls", negative, *missing)

    def seen_by(self, model: str) -> Conditioning:
        """The batch as another model encodes it; ValueError if a sample was not encoded by that model."""
        return self._inner("views", model, f"by the model {model!r}", "with this model too")

    def _inner(self, which: str, key: str, missing: str, way_out: str) -> Conditioning:
        for row, sample in enumerate(self.samples):
            if key not in (found := getattr(sample, which)):
                raise ValueError(
                    f"sample {row} has no encoding {missing} (it has {sorted(found)}): encode the prompts {way_out}"
                )
        return Conditioning(tuple(getattr(sample, which)[key] for sample in self.samples))

    def with_view(self, model: str, view: Conditioning) -> Conditioning:
        """The same samples, each with its encoding by another model; `view` holds them in the same order."""
        pairs = zip(self.samples, view.samples, strict=True)
        return Conditioning(tuple(replace(own, views={**own.views, model: other}) for own, other in pairs))

    def to(self, device: torch.device | str) -> Conditioning:
        return self.moved(lambda tensor: tensor.to(device))

    def moved(self, move: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same samples with all their tensors as `move` gives them."""
        return Conditioning(tuple(sample.moved(move) for sample in self.samples))


ENDLESS = 2**40
"""The length of samples that are a stream: it is drawn in its own order, and only as far as a run goes."""


class Samples(Protocol):
    """The encoded samples of a bucket, by row: all at hand, as in a Conditioning, or read when they are asked for."""

    def __len__(self) -> int: ...
    def select(self, rows: Sequence[int], /) -> Conditioning: ...


class VelocityField(Protocol):
    """A function (x, sigma, cond) -> v = dx/dsigma, for states x (B, ...) and noise levels sigma (B,); all float32."""

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor: ...


def guided(field: VelocityField, scale: float, negative: str = "") -> VelocityField:
    """Classifier-free guidance, v_null + scale (v - v_null), in one batched call; at scale 1 the field itself."""
    if scale == 1:
        return field

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        both = field(torch.cat([x, x]), torch.cat([sigma, sigma]), cond + cond.null(negative))
        v, v_null = both.chunk(2)
        return v_null + scale * (v - v_null)

    return velocity


def of_model(field: VelocityField, model: str, shape: Sequence[int]) -> VelocityField:
    """A field over another model, asked under that model's own view of the conditioning.

    shape: of one sample's latents there; the states x may have another with as many numbers in the same order.
    """

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return field(x.reshape(len(x), *shape), sigma, cond.seen_by(model)).reshape(x.shape)

    return velocity


def mixed(fields_and_weights: Sequence[tuple[VelocityField, float]]) -> VelocityField:
    """The weighted sum of fields; InputError unless the weights sum to 1, or paths would not end at sigma 0.

    The field that was asked last is asked first the next time: of two that take turns on the device it is still there.
    """
    parts = tuple(fields_and_weights)
    total = sum(weight for _, weight in parts)
    if abs(total - 1) > 1e-6:
        raise InputError(f"the weights of mixed fields sum to {total:g}, not 1: divide them by their sum")

    order = list(range(len(parts)))

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        found = {index: parts[index][1] * parts[index][0](x, sigma, cond) for index in order}
        order.reverse()
        return torch.stack([found[index] for index in range(len(parts))]).sum(0)

    return velocity
