"""Base models that teachers have for themselves: opened besides the run's, in the same latent space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import InputError
from ...models.backbone import Backbone
from ...recipe.schema import Teacher
from .sources import ModelSource, Weights, other_source

TOLERANCE = 0.02
"""How far the latents of one picture may be apart, relative to them; VAEs in bfloat16 round by about half of it."""


@dataclass(frozen=True, eq=False)
class OtherModel:
    """An opened model. shape: of one sample's latents there, which may have an axis of length 1 more or less.

    teacher: the name of one that has it.
    """

    teacher: str
    backbone: Backbone
    weights: Weights
    shape: tuple[int, ...]


def own_models(teachers: Iterable[Teacher]) -> tuple[str, ...]:
    """The models that these teachers have for themselves, each once."""
    return tuple(dict.fromkeys(teacher.model for teacher in teachers if teacher.model))


def open_others(
    teachers: Mapping[str, Teacher],
    source: ModelSource,
    backbone: Backbone,
    dtype: torch.dtype,
    device: torch.device | str,
    size: tuple[int, int],
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, OtherModel]:
    """The models that teachers have for themselves, by name; InputError for one with other latents than `backbone`.

    Their networks come with `load_others`. source: of the run's model. size: width and height in pixels.
    """
    opened = {}
    for name in own_models(teachers.values()):
        of = next(teacher for teacher, spec in teachers.items() if spec.model == name)
        log(f"opening the model of the teacher '{of}'")
        other = other_source(source, name)
        with of_teacher(of):
            theirs = other.open_encoders(dtype, device)
            check_latents(backbone, theirs, *size)
        opened[name] = OtherModel(of, theirs, other.weights, theirs.latent_shape(*size))
    return opened


def load_others(
    others: Mapping[str, OtherModel], source: ModelSource, dtype: torch.dtype, device: torch.device | str
) -> dict[str, OtherModel]:
    """The same models, with the weights of their networks. source: of the run's model."""
    loaded = {}
    for name, other in others.items():
        with of_teacher(other.teacher):
            loaded[name] = replace(
                other, backbone=other_source(source, name).load_network(other.backbone, dtype, device)
            )
    return loaded


@contextmanager
def of_teacher(name: str) -> Iterator[None]:
    """Faults from inside, whatever they are of, are of the model of the teacher `name`."""
    try:
        yield
    except InputError as error:
        told = "; ".join(fault.message for fault in error.faults)
        raise InputError.at(f"teachers.{name}.model", told) from None


@torch.no_grad()
def check_latents(one: Backbone, other: Backbone, width: int, height: int) -> None:
    """InputError unless both have the same latents for one picture of this size."""
    shapes = [backbone.latent_shape(width, height) for backbone in (one, other)]
    way_out = "give a model with the run's VAE, such as FLUX.1 for Z-Image"
    if _filled(shapes[0]) != _filled(shapes[1]):
        raise InputError(
            f"the teacher's model has latents of {_text(shapes[1])} for {width} x {height} pixels and the run's model "
            f"has {_text(shapes[0])}, so its velocities mean nothing to the student: {way_out}"
        )
    picture = _test_picture(width, height)
    ours, theirs = (backbone.encode_image(picture).float().cpu().flatten() for backbone in (one, other))
    distance = float((theirs - ours).norm() / ours.norm())
    if not distance <= TOLERANCE:
        raise InputError(
            f"the teacher's model encodes a picture to other latents than the run's model (they differ by "
            f"{distance:.0%}), so its velocities mean nothing to the student: {way_out}"
        )


def _test_picture(width: int, height: int) -> Tensor:
    """(1, H, W, 3) in [0, 1]: gradients, and a bright disc with a sharp edge."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    disc = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05).float()
    return torch.stack([x, (1 - y) * (1 - disc) + disc, 0.5 * (x + y) * (1 - disc)], -1)[None]


def _filled(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length 1, such as the time axis that some families give a picture."""
    return tuple(length for length in shape if length != 1)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
