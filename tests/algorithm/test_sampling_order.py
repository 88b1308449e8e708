"""The order of a bucket's rows is that of 0.1.0, drawn once a pass, and cut among processes without an overlap."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.algorithm import sampling_order
from danceopd_core.algorithm.routers import AllOf, RoundRobin, WeightedRandom
from danceopd_core.algorithm.sampling_order import (
    SamplingOrder,
    rows_in_order,
    seeded_generator,
    updates_by_route,
)


def row_of_0_1_0(seed: int, route: int, count: int, position: int) -> int:
    """As version 0.1.0 drew it: the whole pass for every sample."""
    epoch, place = divmod(position, count)
    return int(torch.randperm(count, generator=seeded_generator(seed, "order", route, epoch))[place])


@pytest.mark.parametrize(("count", "batch", "processes"), [(1, 3, 1), (5, 2, 1), (7, 4, 2), (64, 3, 3)])
def test_rows_are_those_of_the_first_version(count, batch, processes):
    orders = [SamplingOrder([count, count + 1], batch, 11, rank, processes) for rank in range(processes)]
    for update in range(6):
        for route in (0, 1):
            for micro in range(2):
                for rank, order in enumerate(orders):
                    first = (update * 2 * processes + micro * processes + rank) * batch
                    expected = [row_of_0_1_0(11, route, count + route, first + k) for k in range(batch)]
                    assert order.rows(route, micro) == expected
            for order in orders:
                order.advance(route, 2)


def test_a_pass_is_drawn_once_and_few_are_kept(monkeypatch):
    drawn = []
    real = sampling_order.shuffled
    monkeypatch.setattr(sampling_order, "shuffled", lambda *key: drawn.append(key) or real(*key))
    order = SamplingOrder([10], 4, 0)
    for _ in range(25):  # ten passes, of which every other begins within a batch
        order.rows(0, 0)
        order.rows(0, 1)  # a look ahead
        order.advance(0, 1)
        assert sum(len(kept) for kept in order._passes) <= 2
    assert [number for _, _, number, _ in drawn] == sorted({number for _, _, number, _ in drawn})


@pytest.mark.parametrize("router", [WeightedRandom((1.0, 3.0, 0.0)), RoundRobin(3), AllOf(3)])
@pytest.mark.parametrize("updates", [0, 1, 7])
def test_what_a_run_will_draw_is_known_before(router, updates):
    counts, batch, accumulate = [5, 40, 3], 2, 3
    order = SamplingOrder(counts, batch, 4)
    drawn: list[list[int]] = [[], [], []]
    for update in range(updates):
        for route in router(update, seeded_generator(4, "route", update)):
            for micro in range(accumulate):
                drawn[route] += order.rows(route, micro)
            order.advance(route, accumulate)
    for route, times in enumerate(updates_by_route(router, 3, 4, updates)):
        expected = rows_in_order(4, route, counts[route], times * accumulate * batch).tolist()
        assert list(dict.fromkeys(drawn[route])) == expected


@pytest.mark.parametrize(("batch", "processes"), [(1, 1), (3, 1), (4, 2)])
def test_batches_are_of_one_size_and_a_pass_has_every_row(batch, processes):
    sizes = [0, 2, 0, 1, 0, 0, 2, 0, 0, 0, 0]
    orders = [SamplingOrder([11, 5], batch, 7, rank, processes, [sizes, None]) for rank in range(processes)]
    groups = sum(-(-sizes.count(size) // batch) for size in (0, 1, 2))
    drawn = []
    for _ in range(3 * groups):
        for order in orders:
            drawn.append(order.rows(0, 0))
            order.rows(1, 0)
        for order in orders:
            order.advance(0, 1)
    assert all(len(rows) == batch for rows in drawn)
    assert all(len({sizes[row] for row in rows}) == 1 for rows in drawn)
    for number in range(3):
        of_pass = [row for rows in drawn[number * groups : (number + 1) * groups] for row in rows]
        assert set(of_pass) == set(range(11))
        assert len(of_pass) - 11 < 3 * batch
    assert drawn[:groups] != drawn[groups : 2 * groups]
    expected = rows_in_order(7, 0, 11, groups * batch, sizes, batch).tolist()
    assert expected == [row for rows in drawn[:groups] for row in rows]


@pytest.mark.parametrize("sizes", [None, [0, 1, 0, 1, 1, 0, 0]])
def test_rows_that_are_held_out_are_never_drawn(sizes):
    order = SamplingOrder([7], 2, 3, sizes=[sizes], held=[[1, 4]])
    drawn = set()
    for _ in range(12):
        drawn.update(order.rows(0, 0))
        order.advance(0, 1)
    assert drawn == {0, 2, 3, 5, 6}
