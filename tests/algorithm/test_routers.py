"""Laws of the routers."""

from collections import Counter

import pytest

from danceopd_core.algorithm.routers import AllOf, RoundRobin, WeightedRandom, router, shares


def test_weighted_routes_come_in_proportion(generator):
    choose = WeightedRandom((1.0, 0.0, 3.0))
    counts = Counter(choose(update, generator) for update in range(4000))
    assert counts[(1,)] == 0
    assert counts[(2,)] / 4000 == pytest.approx(0.75, abs=0.03)


def test_round_robin_takes_turns_and_all_takes_all(generator):
    assert [RoundRobin(3)(update, generator) for update in range(4)] == [(0,), (1,), (2,), (0,)]
    assert AllOf(3)(5, generator) == (0, 1, 2)


def test_shares_sum_to_one():
    assert shares([2, 6]) == (0.25, 0.75)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_weights_that_choose_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="route weights"):
        shares(weights)
    with pytest.raises(ValueError, match="route weights"):
        WeightedRandom(tuple(weights))


@pytest.mark.parametrize(
    ("name", "taken"), [("weighted", [(1,), (1,), (1,)]), ("round_robin", [(0,), (1,), (0,)]), ("all", [(0, 1)] * 3)]
)
def test_only_the_weighted_router_uses_the_weights(name, taken, generator):
    choose = router(name, [0.0, 2.0])
    assert [choose(update, generator) for update in range(3)] == taken


def test_an_unknown_router_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"no router is named 'weigted' \(did you mean 'weighted'\?\)"):
        router("weigted", [1.0])
