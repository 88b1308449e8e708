"""What is kept out of training, and that a measurement on it depends on nothing but the seed and the bucket."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.algorithm.draws import RouteData
from danceopd_core.algorithm.fields import ENDLESS, Conditioning, Sample
from danceopd_core.algorithm.held_out import ENOUGH, LEAST, MOST, held_rows, measured_rows
from danceopd_core.algorithm.measuring import Group, parts_of, share
from danceopd_core.algorithm.methods import METHODS
from danceopd_core.algorithm.routers import router
from danceopd_core.algorithm.settings import Settings
from danceopd_core.algorithm.trainer import ProcessGroup, Trainer

SIGMAS = torch.linspace(1, 0, 5)


def test_a_share_of_a_bucket_is_held_out_within_bounds():
    counts = (1, ENOUGH - 1, ENOUGH, 400, 600, 10_000, ENDLESS)
    assert [len(held_rows(0, count, 0.01)) for count in counts] == [0, 0, LEAST, LEAST, 6, MOST, 0]
    assert held_rows(0, 400, 0.0) == ()
    rows = held_rows(3, 400, 0.01)
    assert rows == held_rows(3, 400, 0.01) != held_rows(4, 400, 0.01)
    assert max(rows) > 100  # a bucket lists its categories one after another


def test_without_held_out_rows_the_first_of_one_size_are_measured():
    assert measured_rows((7, 9), 30) == [7, 9]
    assert measured_rows((), 3) == [0, 1, 2]
    assert measured_rows((), 30) == [0, 1, 2, 3]
    assert measured_rows((), 6, [1, 0, 1, 0, 1, 1]) == [0, 2, 4, 5]


class Scaled(torch.nn.Module):
    """Moves each sample to its own number; the size of a step depends on nothing else in the batch."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, x, sigma, cond):
        aims = torch.cat([sample.values["aim"] for sample in cond.samples])
        return self.value * (x - aims.view(-1, 1, 1, 1)) * (1 + sigma.view(-1, 1, 1, 1))


class Student(Scaled):
    def parameters(self, recurse=True):
        return list(super().parameters(recurse))

    def __call__(self, x, sigma, cond):
        return self.forward(x, sigma, cond)


def trainer(
    *,
    batch=1,
    micro_batch=None,
    name="weighted",
    sizes=None,
    weights=(1.0, 1.0),
    method="danceopd",
    steps=4,
    processes=None,
):
    samples = Conditioning(tuple(Sample({"aim": torch.tensor([float(row)])}) for row in range(30)))
    student = Student(0.5)
    routes = [RouteData(f"route {number}", Scaled(1.0 + number), samples, None, sizes) for number in range(2)]
    return Trainer(
        student,
        student,
        routes,
        router(name, weights),
        METHODS[method],
        SIGMAS,
        (1, 2, 2),
        Settings(steps, batch=batch, held_out=0.1, lr=0.01),
        micro_batch=micro_batch,
        processes=processes,
        latent_shapes=[(1, 2, 2), (1, 4, 1)],
    )


@pytest.mark.parametrize("method", ["danceopd", "flowopd"])
def test_the_error_does_not_depend_on_the_batch_or_its_parts(method):
    expected = trainer(method=method).validate()
    for batch, micro_batch in ((4, None), (4, 3), (2, 1)):
        found = trainer(method=method, batch=batch, micro_batch=micro_batch).validate()
        assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(expected.values())) == 2


def test_samples_of_several_sizes_are_measured_by_size():
    sizes = [row % 2 for row in range(30)]
    one, parts = trainer(sizes=sizes, batch=8).validate(), trainer(sizes=sizes, batch=1).validate()
    assert one == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize(("counts", "size"), [((4, 4), 3), ((1, 8, 2), 4), ((2,), 5)])
def test_every_row_is_measured_by_one_process(counts, size, batch):
    groups = [Group(number, list(range(count))) for number, count in enumerate(counts)]
    own = [list(parts_of(groups, share(sum(counts), rank, size), batch)) for rank in range(size)]
    measured = [(group.route, group.rows[place]) for parts in own for group, part in parts for place in part]
    assert measured == [(group.route, row) for group in groups for row in group.rows]
    assert all(1 <= len(part) <= batch for parts in own for _, part in parts)
    lengths = [sum(len(part) for _, part in parts) for parts in own]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("method", ["danceopd", "diffusionopd", "flowopd"])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_processes_measure_their_parts_of_what_one_measures(method, size):
    """By the mean over them, which is taken here of what each has to give."""
    sizes = [row % 2 for row in range(30)]
    given: list[torch.Tensor] = []
    for rank in range(size):
        group = ProcessGroup(rank, size, lambda tensors: given.extend(part.clone() for part in tensors))
        trainer(method=method, sizes=sizes, micro_batch=2, batch=4, processes=group).validate()
    assert torch.stack(given).count_nonzero(0).tolist() == [1] * 2 * LEAST

    def mean(tensors):
        tensors[0].copy_(torch.stack(given).mean(0))

    found = trainer(method=method, sizes=sizes, processes=ProcessGroup(0, size, mean)).validate()
    assert found == pytest.approx(trainer(method=method, sizes=sizes).validate(), rel=1e-5)


@pytest.mark.parametrize("name", ["weighted", "round_robin", "all", "balanced"])
def test_what_is_held_out_and_what_is_watched_is_never_trained(name):
    run = trainer(name=name, weights=(1.0, 0.0), steps=40)
    drawn, rows = set(), run.draws.order.rows

    def seen(route, micro):
        drawn.update((route, row) for row in rows(route, micro))
        return rows(route, micro)

    run.draws.order.rows = seen
    list(run)
    assert {route for route, _ in drawn} == {0}
    assert {row for _, row in drawn} == set(range(30)) - set(run.held[0])
    assert run.held[0] == run.held[1]  # the same bucket
    assert len(run.held[0]) == LEAST
    assert run.validate().keys() == {"route 0", "route 1"}
