"""Laws of the trainer, with fields whose answers are known."""

from __future__ import annotations

import copy
import itertools
import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.algorithm.methods import METHODS, method
from danceopd_core.algorithm.query import every
from danceopd_core.algorithm.rollout import ode
from danceopd_core.algorithm.routers import AllOf, RoundRobin, WeightedRandom
from danceopd_core.algorithm.trainer import Diverged, ProcessGroup, RouteData, Settings, Trainer
from danceopd_core.errors import InputError
from danceopd_core.runs.files.train_state import load_state, save_state

DIM = 3


class Affine(nn.Module):
    """v = x A' + b c, with c by the sample's number; a teacher when frozen and the student when not."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed or 0)
        scale = 0 if seed is None else 0.5
        self.a = nn.Parameter(scale * torch.randn(DIM, DIM, generator=generator))
        self.b = nn.Parameter(scale * torch.randn(DIM, generator=generator))

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        gain = torch.stack([1 + sample.values["number"] / 10 for sample in cond.samples])
        return x @ self.a.T + self.b * gain[:, None]


class Student:
    """An Affine as the trainer sees a student."""

    def __init__(self) -> None:
        self.module = Affine()

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.module.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(state)


def bucket(count: int = 6) -> Conditioning:
    return Conditioning(tuple(Sample({"number": torch.tensor(float(i))}) for i in range(count)))


def trainer(
    name: str = "danceopd", routes=None, router=None, processes: ProcessGroup | None = None, **settings
) -> Trainer:
    student = Student()
    routes = routes or [RouteData("one", Affine(1), bucket(), torch.zeros(6, DIM))]
    chosen = {"steps": 6, "batch": 2, "accumulate": 2, "lr": 0.02, "schedule": "cosine", **settings}
    return Trainer(
        student,
        student.module,
        routes,
        router or RoundRobin(len(routes)),
        method(name, group=2) if name == "flowopd" else method(name),
        linear_sigmas(6),
        (DIM,),
        Settings(**chosen),
        processes=processes,
    )


def long_run(name: str = "danceopd", teachers=None) -> Trainer:
    """Two random routes whose buckets last several updates; uses every part of the training state."""
    targets = torch.randn(11, DIM, generator=torch.Generator().manual_seed(3))
    one, two = teachers or (Affine(1), Affine(2))
    routes = [RouteData("one", one, bucket(11), targets), RouteData("two", two, bucket(7), targets[:7])]
    return trainer(
        name, routes, WeightedRandom((0.6, 0.4)), steps=8, lr=0.05, warmup=2, weight_decay=0.1, ema=0.9, clip=0.5
    )


def same(one, two) -> bool:
    """Whether two trees of dicts, lists, tensors and plain values are equal, bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def outcome(result) -> tuple:
    """A result without its seconds."""
    return result.update, result.losses, result.errors, result.indices, result.sigmas, result.grad_norm, result.lr


def advance(run: Trainer, update: int) -> list[tuple]:
    """Trains up to that update; the outcomes of the updates."""
    return [] if run.update == update else [outcome(result) for result in itertools.islice(run, update - run.update)]


def record_starts(run: Trainer) -> list[tuple[list[int], Tensor]]:
    """A list that receives the sample numbers and the noise of every micro-step."""
    starts = []

    def rollout(field, start, sigmas, indices, generator):
        starts.append(([int(sample.values["number"]) for sample in start.cond.samples], start.noise))
        return ode(field, start, sigmas, indices, generator)

    run.method = replace(run.method, states=rollout)
    return starts


@pytest.mark.parametrize(
    ("name", "pieces"),
    [*((name, (3,)) for name in METHODS), *(("danceopd", (k,)) for k in (1, 2, 4, 5, 6, 7)), ("danceopd", (2, 3, 6))],
)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(name, pieces, tmp_path):
    whole = long_run(name)
    expected = advance(whole, 8)
    results = []
    for begin, end in pairwise((0, *pieces, 8)):
        piece = long_run(name)
        if begin:
            piece.load_state_dict(load_state(tmp_path / "state.safetensors"))
        results += advance(piece, end)
        save_state(tmp_path / "state.safetensors", piece.state_dict())
    assert results == expected
    assert same(piece.state_dict(), whole.state_dict())
    assert same(piece.averaged(), whole.averaged())
    assert {route for losses in (result[1] for result in results) for route in losses} == {"one", "two"}


@pytest.mark.parametrize("part", ["update", "taken", "student", "average", "optimizer", "schedule"])
def test_a_run_cannot_be_resumed_without_any_part_of_its_state(part):
    """Shows that the resume test above depends on every part of the state."""
    whole, first, second = long_run(), long_run(), long_run()
    expected = advance(whole, 8)
    advance(first, 3)
    state = copy.deepcopy(first.state_dict())
    assert state.keys() == {"update", "taken", "student", "average", "optimizer", "schedule"}
    second.load_state_dict({**state, part: copy.deepcopy(second.state_dict()[part])})
    results = advance(second, 8)
    assert results != expected[3:] or not same(second.averaged(), whole.averaged())


@pytest.mark.parametrize("error", [KeyboardInterrupt, Diverged])
def test_an_interrupted_update_has_no_effect(error):
    """After an interrupt or one NaN of the teacher, training on and resuming both give the undisturbed run."""
    sound, calls = Affine(1), []

    def teacher(x, sigma, cond):
        calls.append(len(x))
        if len(calls) == 8 and error is KeyboardInterrupt:  # the second micro-step of the fourth update
            raise error
        return sound(x, sigma, cond) * (torch.nan if len(calls) == 8 else 1)

    def run(teacher):
        return trainer(routes=[RouteData("one", teacher, bucket(11))], steps=8, ema=0.9)

    whole, broken, resumed = run(sound), run(teacher), run(sound)
    expected = advance(whole, 8)
    assert advance(broken, 3) == expected[:3]
    with pytest.raises(error):
        advance(broken, 4)
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    for same_run in (broken, resumed):
        assert advance(same_run, 8) == expected[3:]
        assert same(same_run.state_dict(), whole.state_dict())


def test_an_update_is_one_adamw_step_on_the_mean_loss_of_its_micro_steps():
    """Against a reference loop: two routes, three micro-steps, clipping, weight decay, schedule, moving average."""
    routes = [RouteData("one", Affine(1), bucket()), RouteData("two", Affine(2), bucket())]
    betas, steps, lr, warmup = (0.8, 0.95), 7, 0.05, 2
    run = trainer(
        routes=routes, router=AllOf(2), steps=steps, accumulate=3, lr=lr, weight_decay=0.1, betas=betas, clip=0.3,
        warmup=warmup, ema=0.4,
    )  # fmt: skip
    seen = []

    def rollout(field, start, sigmas, indices, generator):
        for state in ode(field, start, sigmas, indices, generator):
            seen.append((state, start.cond))
            yield state

    run.method = replace(run.method, states=rollout)
    own = Affine()
    average = [torch.zeros_like(p) for p in own.parameters()]
    optimizer = torch.optim.AdamW(own.parameters(), lr, betas, weight_decay=0.1)
    clipped = []
    for update, result in enumerate(run):
        losses = []
        for number, route in enumerate(routes):
            errors = [
                own(state.x, state.sigma, cond) - route.teacher(state.x, state.sigma, cond).detach()
                for state, cond in seen[3 * number : 3 * number + 3]
            ]
            losses.append(torch.cat(errors).square().mean())
        assert len(seen) == 6
        seen.clear()
        assert list(result.losses.values()) == pytest.approx([loss.item() for loss in losses])
        optimizer.zero_grad()
        (sum(losses) / 2).backward()
        norm = nn.utils.clip_grad_norm_(own.parameters(), 0.3).item()
        clipped.append(norm > 0.3)
        assert result.grad_norm == pytest.approx(norm)
        rate = (
            update / warmup if update < warmup else (1 + math.cos(math.pi * (update - warmup) / (steps - warmup))) / 2
        )
        optimizer.param_groups[0]["lr"] = rate * lr
        assert result.lr == pytest.approx(rate * lr)
        optimizer.step()
        decay = min(0.4, (2 + update) / (11 + update))  # a shorter memory at first
        average = [decay * mean + (1 - decay) * p.detach() for mean, p in zip(average, own.parameters(), strict=True)]
        for p, mean, (name, trained) in zip(own.parameters(), average, run.student.state_dict().items(), strict=True):
            torch.testing.assert_close(trained, p.detach(), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(run.averaged()[name], mean, rtol=1e-4, atol=1e-6)
    assert any(clipped)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_brings_the_student_nearer_its_teacher(name):
    teacher = Affine(1)
    # Off-policy states lie on lines to the target; only there must the student agree, so its target is the path's.
    long = trainer(
        name,
        [RouteData("one", teacher, bucket(), torch.randn(6, DIM))],
        steps=60,
        lr=0.05,
        accumulate=1,
        schedule="constant",
    )
    before = long.validate()["one"]
    list(long)
    assert long.validate()["one"] < 0.2 * before


def test_the_student_at_its_teacher_has_no_loss():
    still = trainer()
    still.student.load_state_dict(Affine(1).state_dict())
    result = next(iter(still))
    assert result.loss == 0
    assert result.grad_norm == 0
    assert still.validate()["one"] == 0


def test_teachers_never_change():
    teacher = Affine(1)
    before = copy.deepcopy(teacher.state_dict())
    list(trainer(routes=[RouteData("one", teacher, bucket())]))
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_accumulation_is_a_larger_batch():
    """The same four samples and noises, at once or one by one, are the same update."""
    noise = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))

    def rollout(field, start, sigmas, indices, generator):
        rows = [int(sample.values["number"]) for sample in start.cond.samples]
        return ode(field, start._replace(noise=noise[rows]), sigmas, indices, generator)

    after = []
    for batch, accumulate in ((4, 1), (1, 4)):
        t = trainer(routes=[RouteData("one", Affine(1), bucket(4))], steps=1, batch=batch, accumulate=accumulate)
        t.method = method("danceopd", states=rollout, query=every)
        result = next(iter(t))
        after.append((result.loss, result.errors["one"], result.grad_norm))
    assert after[0] == pytest.approx(after[1])


def test_a_route_gives_each_sample_once_before_any_twice():
    seen = []

    def teacher(x, sigma, cond):
        seen.extend(int(sample.values["number"]) for sample in cond.samples)
        return torch.zeros_like(x)

    list(trainer(routes=[RouteData("one", teacher, bucket(6))], steps=3, batch=2, accumulate=2))
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


def test_routes_of_one_update_have_different_orders_and_noises():
    routes = [RouteData(name, Affine(1), bucket(12)) for name in ("one", "two")]
    run = trainer(routes=routes, router=AllOf(2), steps=3)
    starts = record_starts(run)
    list(run)
    orders = [
        [number for i in range(0, 12, 4) for numbers, _ in starts[i + k : i + k + 2] for number in numbers]
        for k in (0, 2)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]
    assert len(torch.cat([noise for _, noise in starts]).unique(dim=0)) == 24


def test_all_of_averages_the_routes_of_an_update():
    routes = [RouteData("one", Affine(1), bucket()), RouteData("two", Affine(2), bucket())]
    result = next(iter(trainer(routes=routes, router=AllOf(2))))
    assert set(result.losses) == {"one", "two"}
    assert result.loss == pytest.approx(sum(result.losses.values()) / 2)


def test_the_seed_decides_everything_and_another_seed_something():
    runs = [[r.losses for r in trainer(seed=seed)] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(("size", "rows"), [(2, 8), (2, 7), (3, 12), (3, 5)])
def test_processes_partition_one_shuffled_bucket(size, rows):
    """Ordered by micro-step, rank and sample, their samples are those of a single process: every epoch is a
    permutation of the bucket, and each of its rows goes to exactly one process."""
    steps = rows  # updates of size x 2 x 2 samples: several epochs, some of which end within an update

    def run(processes, accumulate):
        routes = [RouteData("one", Affine(1), bucket(rows))]
        t = trainer(routes=routes, processes=processes, steps=steps, batch=2, accumulate=accumulate)
        starts = record_starts(t)
        list(t)
        return starts

    ranks = [run(ProcessGroup(rank, size), 2) for rank in range(size)]
    numbers_in_turn = [number for starts in zip(*ranks, strict=True) for numbers, _ in starts for number in numbers]
    assert numbers_in_turn == [number for numbers, _ in run(ProcessGroup(), 2 * size) for number in numbers]
    epochs = [numbers_in_turn[begin : begin + rows] for begin in range(0, len(numbers_in_turn), rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    noises = torch.cat([noise for starts in ranks for _, noise in starts])
    assert len(noises.unique(dim=0)) == size * steps * 2 * 2


class Exchange:
    """Averages tensors over processes, which are threads here."""

    def __init__(self, size: int) -> None:
        self.size, self._barrier, self._given = size, threading.Barrier(size, timeout=60), [[]] * size

    def process(self, rank: int) -> ProcessGroup:
        def mean(tensors):
            self._given[rank] = [tensor.clone() for tensor in tensors]
            self._barrier.wait()
            for tensor, parts in zip(tensors, zip(*self._given, strict=True), strict=True):
                tensor.copy_(torch.stack(parts).mean(0))
            self._barrier.wait()

        return ProcessGroup(rank, self.size, mean)


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_equal_one_with_more_accumulation(size):
    """Micro-step m of rank r has the samples of micro-step `size` m + r of the single process.

    The noise depends on the rank, so here the rollout derives it from the sample instead.
    """
    noise = torch.randn(7, DIM, generator=torch.Generator().manual_seed(0))

    def rollout(field, start, sigmas, indices, generator):
        rows = [int(sample.values["number"]) for sample in start.cond.samples]
        return ode(field, start._replace(noise=noise[rows]), sigmas, indices, generator)

    def run(processes, accumulate):
        routes = [RouteData("one", Affine(1), bucket(7)), RouteData("two", Affine(2), bucket(5))]
        t = trainer(
            routes=routes,
            router=WeightedRandom((0.5, 0.5)),
            processes=processes,
            accumulate=accumulate,
            clip=0.3,
            ema=0.9,
        )
        t.method = method("danceopd", states=rollout, query=every)
        return t

    def train(t):
        return [(outcome(result), copy.deepcopy(t.state_dict()), copy.deepcopy(t.averaged())) for result in t]

    exchange = Exchange(size)
    with ThreadPoolExecutor(size) as pool:
        ranks = list(pool.map(train, [run(exchange.process(rank), 2) for rank in range(size)]))
    for (result, state, average), *others in zip(train(run(ProcessGroup(), 2 * size)), *ranks, strict=True):
        assert all(same(other[1:], others[0][1:]) for other in others)
        _, losses, errors, *_, grad_norm, lr = result
        for place, expected in ((1, losses), (2, errors)):
            mean = {name: sum(other[0][place][name] for other in others) / size for name in expected}
            assert mean == pytest.approx(expected, rel=1e-4)
        assert others[0][0][1] != others[1][0][1]
        assert others[0][0][-2:] == pytest.approx((grad_norm, lr), rel=1e-4)
        assert others[0][1]["taken"] == state["taken"]
        for name, value in average.items():
            torch.testing.assert_close(others[0][2][name], value, rtol=1e-3, atol=1e-5)


def test_processes_take_the_same_routes_and_different_samples():
    routes = [RouteData("one", Affine(1), bucket()), RouteData("two", Affine(2), bucket())]
    router = WeightedRandom((0.5, 0.5))
    ranks = [trainer(routes=routes, router=router, processes=ProcessGroup(rank, 2), steps=20) for rank in (0, 1)]
    indices = []
    for results in zip(*ranks, strict=True):
        assert list(results[0].losses) == list(results[1].losses)
        assert results[0].losses != results[1].losses
        indices.append([result.indices for result in results])
    assert any(first != second for first, second in indices)


def test_validation_is_on_fixed_samples_and_noises_and_without_gradients():
    modes = []

    def field(x, sigma, cond):
        modes.append(torch.is_grad_enabled())
        return sound(x, sigma, cond)

    sound = Affine(1)
    run = trainer(routes=[RouteData("one", Affine(2), bucket())], lr=0.0)
    run.student.load_state_dict(Affine(3).state_dict())
    before = run.validate()
    advance(run, 3)
    assert run.validate() == before  # the rate is 0, so the student is the same
    run.field = field
    assert run.validate() != before
    assert not any(modes)


def test_validation_does_not_disturb_training():
    plain, watched = trainer(), trainer()
    losses = []
    for result in watched:
        watched.validate()
        losses.append(result.losses)
    assert losses == [r.losses for r in plain]


def test_a_nan_stops_before_it_reaches_the_weights():
    def broken(x, sigma, cond):
        return torch.full_like(x, torch.nan)

    t = trainer(routes=[RouteData("one", broken, bucket())])
    before = {key: value.clone() for key, value in t.student.state_dict().items()}
    with pytest.raises(Diverged, match="learning rate"):
        next(iter(t))
    assert all(torch.equal(before[key], value) for key, value in t.student.state_dict().items())
    assert t.update == 0


def test_results_tell_where_the_time_went_and_what_was_asked():
    result = next(iter(trainer()))
    assert {"rollout", "teacher", "student", "backward", "optimizer", "total"} <= set(result.seconds)
    assert sum(v for k, v in result.seconds.items() if k != "total") <= result.seconds["total"]
    assert len(result.indices) == len(result.sigmas) == 4
    assert all(0 <= index < 6 for index in result.indices)


def test_no_torch_mode_leaks_to_the_consumer():
    for _ in trainer():
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("route", "name", "what"),
    [
        (RouteData("bare", Affine(1), Conditioning(())), "danceopd", "'bare' has an empty bucket"),
        (RouteData("bare", Affine(1), bucket()), "offpolicy", "'bare' has no target"),
    ],
)
def test_what_cannot_train_is_refused_by_name(route, name, what):
    with pytest.raises(InputError, match=what):
        trainer(name, [route])


def test_a_state_of_other_routes_is_refused():
    two = trainer(routes=[RouteData("one", Affine(1), bucket()), RouteData("two", Affine(2), bucket())])
    with pytest.raises(InputError, match="other routes"):
        trainer().load_state_dict(two.state_dict())


def test_differentiated_passes_leave_out_cudnns_attention():
    """Rollouts keep it. The backward pass counts: it computes checkpointed layers again."""
    asked: dict[str, set[bool]] = {}

    def note(where: str) -> None:
        asked.setdefault(where, set()).add(torch.backends.cuda.cudnn_sdp_enabled())

    class Noting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            note("backward")
            return gradient

    here = trainer()
    plain = here.field

    def field(x, sigma, cond):
        note("with gradients" if torch.is_grad_enabled() else "rollout")
        return Noting.apply(plain(x, sigma, cond))

    here.field = field
    torch.backends.cuda.enable_cudnn_sdp(True)
    next(iter(here))
    assert asked == {"rollout": {True}, "with gradients": {False}, "backward": {False}}
    assert torch.backends.cuda.cudnn_sdp_enabled()
