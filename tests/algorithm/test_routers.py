"""Laws of the routers."""

from collections import Counter

import pytest

from danceopd_core.algorithm.balance import BOUND, Balanced, most_updates
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
    ("name", "taken"),
    [
        ("round_robin", [(0,), (1,), (0,)]),
        ("all", [(0, 1)] * 3),
    ],
)
def test_these_routers_use_no_weights_above_0(name, taken, generator):
    choose = router(name, [0.01, 2.0])
    assert [choose(update, generator) for update in range(3)] == taken


def test_an_unknown_router_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"no router is named 'weigted' \(did you mean 'weighted'\?\)"):
        router("weigted", [1.0])


def test_balanced_shares_go_to_what_is_farther_from_its_teacher_within_bounds():
    router = Balanced((1.0, 1.0, 2.0))
    assert router.shares() == (0.25, 0.25, 0.5)
    for update in range(30):
        router.learn(update, [0.8, 0.0, 0.4])  # twice the mean, none, as the mean
    one, two, three = router.factors
    assert one == pytest.approx(BOUND, abs=0.01)
    assert two == pytest.approx(1 / BOUND, abs=0.01)
    assert three == pytest.approx(1.0)
    assert sum(router.shares()) == pytest.approx(1)


def test_a_measurement_moves_the_shares_by_half():
    router = Balanced((1.0, 1.0))
    router.learn(0, [1.0, 0.0])
    assert router.factors == [1.5, 0.75]
    router.learn(25, [0.3, 0.3])
    assert router.factors == [1.25, 0.875]


def test_a_route_that_begins_at_its_teacher_gets_more_only_once_it_is_the_farther_one():
    router = Balanced((1.0, 1.0))
    router.learn(0, [1.0, 0.0])
    for update in (25, 50):
        router.learn(update, [0.6, 0.1])
        assert router.shares()[1] < 0.5
    for update in (75, 100, 125):
        router.learn(update, [0.1, 0.2])
    assert router.shares()[1] > 0.5


def test_a_route_that_is_only_watched_does_not_count():
    router = Balanced((1.0, 0.0, 1.0))
    router.learn(0, [0.2, 9.0, 0.2])
    assert router.shares() == (0.5, 0.0, 0.5)


@pytest.mark.parametrize("distances", [[float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_distance_that_is_none_moves_nothing(distances):
    router = Balanced((1.0, 3.0))
    router.learn(0, distances)
    assert router.shares() == (0.25, 0.75)


def test_a_balanced_router_continues_from_its_state():
    router, other = Balanced((1.0, 1.0)), Balanced((1.0, 1.0))
    router.learn(0, [1.0, 1.0])
    router.learn(25, [1.0, 0.5])
    other.load_state_dict(router.state_dict())
    for one in (router, other):
        one.learn(50, [0.5, 0.4])
    assert router.shares() == other.shares()
    assert not other.is_due(50)
    assert other.is_due(75)
    with pytest.raises(ValueError, match="other routes"):
        Balanced((1.0,)).load_state_dict(router.state_dict())


def test_what_a_balanced_run_may_draw_is_bounded(generator):
    router = Balanced((1.0, 1.0), factors=[BOUND, 1 / BOUND])
    counts = Counter(router(update, generator) for update in range(1000))
    assert 700 < counts[(0,)] <= most_updates([1.0, 1.0], 0, 1000) < 1000
    assert most_updates([0.0, 1.0], 0, 1000) == 0


@pytest.mark.parametrize("name", ["weighted", "round_robin", "all", "balanced"])
def test_no_router_chooses_a_route_that_is_only_watched(name, generator):
    chosen = router(name, [1.0, 0.0, 2.0])
    assert {route for update in range(50) for route in chosen(update, generator)} == {0, 2}
