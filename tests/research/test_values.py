"""Laws of the benches' parts that need no training: data, merging, forwards, schedules, intervals, trials."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from danceopd_core.algorithm.expected_cost import expected_forwards
from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.flow import interpolate, linear_sigmas
from danceopd_core.algorithm.methods import METHODS
from danceopd_core.research.bench import trial_data
from danceopd_core.research.bench.benches import BENCHES, trials_of
from danceopd_core.research.bench.field_switch import switched
from danceopd_core.research.bench.forwards import ForwardCounter
from danceopd_core.research.bench.merge import merged_lora
from danceopd_core.research.bench.schedule import FORWARDS, UPDATES, milestones, path_forwards, paths
from danceopd_core.research.bench.statistics import interval
from danceopd_core.research.bench.trials import REGIMES, TASKS, BenchPlan, MethodConfig, Trial
from danceopd_core.shapes.language import EDIT, T2I, is_held_out
from danceopd_core.weights.lora import Lora

from ..loras import random_lora

SHAPES = {"a.to_q": (6, 5), "b.to_k": (4, 3), "c.to_v": (4, 4)}


def grid(steps):
    return linear_sigmas(steps, 3.0)


def test_a_weight_merge_is_the_sum_of_the_deltas():
    one, two = random_lora(SHAPES, 2, 1, ("to_q", "to_k"), 0.5), random_lora(SHAPES, 3, 2, ("to_q", "to_v"))

    def delta(lora: Lora, module: str):
        return lora.scale * lora.up[module] @ lora.down[module] if module in lora.down else torch.zeros(SHAPES[module])

    merged = merged_lora([(one, 0.25), (two, 0.75)])
    for module in SHAPES:
        wanted = 0.25 * delta(one, module) + 0.75 * delta(two, module)
        torch.testing.assert_close(delta(merged, module), wanted)
    assert merged.rank == 5


def test_training_items_are_spread_and_never_held_out():
    items = trial_data.training_items(T2I + EDIT, 36, 4)
    assert [item.category for item in items] == [*(T2I + EDIT)] * 3
    assert not any(is_held_out(item) for item in items)
    assert items[:12] == trial_data.training_items(T2I + EDIT, 12, 4)
    assert items[:12] != trial_data.training_items(T2I + EDIT, 12, 5)


@pytest.mark.parametrize("kind", [T2I, EDIT])
def test_faulty_pairs_are_a_quarter_and_wrong(kind):
    pictures = trial_data.target_images(trial_data.training_items(kind, 64, 0), 32, 0)
    faulty = trial_data.with_faults(pictures, REGIMES["faulty"].wrong_fraction, 0)
    wrong = [row for row in range(64) if not np.array_equal(pictures[row], faulty[row])]
    assert len(wrong) == 16
    assert all(any(np.array_equal(faulty[row], picture) for picture in pictures) for row in wrong)


def test_the_data_answers_with_the_velocity_of_the_line():
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    sigma = torch.tensor([0.3, 1.0])
    cond = trial_data.with_clean(Conditioning((Sample({}), Sample({}))), clean)
    found = trial_data.flow_matching(interpolate(clean, noise, sigma), sigma, cond)
    torch.testing.assert_close(found, noise - clean, atol=1e-5, rtol=1e-4)


def test_a_forward_counts_its_samples_and_a_backward_two_more():
    counter = ForwardCounter()
    field = counter.wrap(lambda x, sigma, cond: x)
    x = torch.zeros(5, 1)
    with torch.no_grad():
        field(x, x[:, 0], Conditioning(()))
    assert counter.count == 5
    field(x, x[:, 0], Conditioning(()))
    assert counter.count == 20


def test_expected_forwards_are_those_of_the_readme():
    assert expected_forwards(METHODS["danceopd"], grid(16), 1) == pytest.approx(14.9, abs=0.05)
    assert expected_forwards(METHODS["offpolicy"], grid(16), 1) == 4
    assert expected_forwards(METHODS["diffusionopd"], grid(16), 1) == 15 + 16 * 4
    assert expected_forwards(METHODS["flowopd"], grid(16), 2) == 16 + 16 * 5


def test_every_method_sees_as_many_paths_an_update():
    for trial in trials_of(BENCHES["composition"], ("t2i_edit", "local_global"), (0,)):
        if trial.config.trains:
            assert paths(trial, BenchPlan()).total == BenchPlan.batch


def test_milestones_are_at_the_updates_and_at_the_forwards_of_danceopd():
    plan = BenchPlan()
    for trial in trials_of(BENCHES["composition"], ("t2i_edit",), (0,)):
        if not trial.config.trains:
            continue
        found = milestones(trial, plan, grid)
        assert UPDATES in found[plan.steps]
        (end,) = (update for update, comparisons in found.items() if FORWARDS in comparisons)
        each = path_forwards(trial, grid)
        spent = end * plan.batch * sum(each.values()) / 2
        if trial.config.regime == "teachers":
            spent += plan.prompts * 8 * 3  # the guided base asks twice, the edit teacher once
        dance = path_forwards(Trial("t2i_edit", "danceopd", MethodConfig(), 0), grid)
        assert spent == pytest.approx(plan.steps * plan.batch * sum(dance.values()) / 2, rel=0.02)
        if trial.row == "danceopd":
            assert end == plan.steps


def test_a_bench_at_equal_forwards_alone_ends_where_danceopd_has_spent_as_many():
    plan = BenchPlan()
    for trial in trials_of(BENCHES["starts"], BENCHES["starts"].tasks, (0,)):
        if trial.config.trains:
            *_, (last, comparisons) = milestones(trial, plan, grid).items()
            assert comparisons == (FORWARDS,)
            assert last == plan.steps if trial.row == "danceopd" else last != plan.steps


def test_joint_training_asks_no_teacher_and_a_mix_asks_all():
    joint = Trial("t2i_edit", "joint", MethodConfig(method="joint", regime="few"), 0)
    assert set(path_forwards(joint, grid).values()) == {3}
    hard, soft = (
        path_forwards(Trial("t2i_edit", "", MethodConfig(mix_teachers=soft), 0), grid) for soft in (False, True)
    )
    assert hard["base"] == hard["edit"] + 1
    assert soft["base"] == soft["edit"] == hard["base"] + 1


def test_the_interval_is_the_usual_one_for_one_seed_and_wider_for_seeds_that_differ():
    rng = np.random.default_rng(0)
    items = (rng.random((1, 400)) < 0.7).astype(float)
    one = interval(items)
    assert one.high - one.mean == pytest.approx(1.966 * items.std(ddof=1) / 20, rel=1e-3)
    alike, apart = interval(np.repeat(items, 3, 0)), interval(np.concatenate([items, 0 * items, 0 * items + 1]))
    assert alike.high - alike.low == pytest.approx(one.high - one.low, rel=1e-3)
    assert apart.high - apart.low > 5 * (alike.high - alike.low)
    perfect = interval(np.ones((3, 20)))
    assert perfect.high == 1
    assert 0.8 < perfect.low < 0.9


def test_the_interval_of_a_mean_of_groups_counts_each_groups_items_once():
    rng = np.random.default_rng(0)
    many, few = rng.random((2, 400)), rng.random((2, 20))
    both = interval(many, few)
    assert both.mean == pytest.approx((many.mean() + few.mean()) / 2)
    assert interval(many, many + 0).mean == pytest.approx(interval(many).mean)
    halves = [found.high - found.mean for found in (interval(many), interval(few), both)]
    assert halves[0] / 2 < halves[2] < halves[1]
    assert interval(many - few[:, :1] - 1, least=-1).low < 0


def test_cells_have_files_of_their_own_and_methods_of_their_settings():
    for bench in BENCHES.values():
        trials = list(trials_of(bench, bench.tasks, (0, 1)))
        assert len({trial.file_name for trial in trials}) == len(trials)
        for trial in trials:
            regime = REGIMES[trial.config.regime]
            if trial.config.trains:
                assert trial.config.core_method().needs_clean == bool(regime.pairs or regime.teacher_generated)
            assert set(TASKS[trial.task].routes) == set(TASKS[trial.task].teachers)


def test_a_switched_field_is_the_first_down_to_a_state_of_the_path():
    first, then = (lambda x, sigma, cond, sign=sign: torch.full_like(x, sign) for sign in (1.0, -1.0))
    sigmas = grid(8)
    field = switched(first, then, sigmas[2].item())
    signs = [field(torch.zeros(2, 1), sigma.repeat(2), Conditioning(()))[0].item() for sigma in sigmas[:-1]]
    assert signs == [1, 1, 1, -1, -1, -1, -1, -1]
