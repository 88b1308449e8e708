"""Laws of the trainer, with fields whose answers are known."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.algorithm.methods import METHODS, method
from danceopd_core.algorithm.query import every
from danceopd_core.algorithm.rollout import Start
from danceopd_core.algorithm.routers import AllOf, RoundRobin, WeightedRandom
from danceopd_core.algorithm.trainer import Diverged, ProcessGroup, RouteData, Settings, Trainer
from danceopd_core.errors import InputError
from danceopd_core.runs.train_state import load_state, save_state

DIM = 3


class Affine(nn.Module):
    """v = x A' + b, a teacher when frozen and the student when not."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed or 0)
        scale = 0 if seed is None else 0.5
        self.a = nn.Parameter(scale * torch.randn(DIM, DIM, generator=generator))
        self.b = nn.Parameter(scale * torch.randn(DIM, generator=generator))

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return x @ self.a.T + self.b


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


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(name, tmp_path):
    whole = trainer(name, ema=0.9)
    results = list(whole)
    first = trainer(name, ema=0.9)
    for result in first:
        if result.update == 3:
            break
    save_state(tmp_path / "state.safetensors", first.state_dict())
    second = trainer(name, ema=0.9)
    second.load_state_dict(load_state(tmp_path / "state.safetensors"))
    rest = list(second)
    assert [r.losses for r in results[3:]] == [r.losses for r in rest]
    assert [r.lr for r in results[3:]] == [r.lr for r in rest]
    for key, value in whole.student.state_dict().items():
        assert torch.equal(value, second.student.state_dict()[key])
        assert torch.equal(whole.averaged()[key], second.averaged()[key])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_brings_the_student_nearer_its_teacher(name):
    teacher = Affine(1)
    # Off-policy states lie on lines to the target; only there must the student agree, so its target is the path's.
    long = trainer(
        name, [RouteData("one", teacher, bucket(), torch.randn(6, DIM))], steps=150, lr=0.03, schedule="constant"
    )
    before = long.validate()["one"]
    list(long)
    assert long.validate()["one"] < 0.35 * before


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
    noise = torch.randn(4, DIM)
    after = []
    for batch, accumulate in ((4, 1), (1, 4)):
        t = trainer(routes=[RouteData("one", Affine(1), bucket(4))], steps=1, batch=batch, accumulate=accumulate)
        t.method = method("danceopd", query=every)

        def begin(route, rows, generator):
            return Start(route.samples.select(rows), noise[rows])

        t._begin = begin
        result = next(iter(t))
        after.append((result.loss, result.grad_norm))
    assert after[0] == pytest.approx(after[1])


def test_a_route_gives_each_sample_once_before_any_twice():
    seen = []

    def teacher(x, sigma, cond):
        seen.extend(int(sample.values["number"]) for sample in cond.samples)
        return torch.zeros_like(x)

    list(trainer(routes=[RouteData("one", teacher, bucket(6))], steps=3, batch=2, accumulate=2))
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


def test_all_of_averages_the_routes_of_an_update():
    routes = [RouteData("one", Affine(1), bucket()), RouteData("two", Affine(2), bucket())]
    result = next(iter(trainer(routes=routes, router=AllOf(2))))
    assert set(result.losses) == {"one", "two"}
    assert result.loss == pytest.approx(sum(result.losses.values()) / 2)


def test_the_seed_decides_everything_and_another_seed_something():
    runs = [[r.losses for r in trainer(seed=seed)] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_processes_share_routes_and_split_samples():
    routes = [RouteData("one", Affine(1), bucket()), RouteData("two", Affine(2), bucket())]
    router = WeightedRandom((0.5, 0.5))
    ranks = [trainer(routes=routes, router=router, processes=ProcessGroup(rank, 2)) for rank in (0, 1)]
    for results in zip(*ranks, strict=True):
        assert list(results[0].losses) == list(results[1].losses)
        assert results[0].losses != results[1].losses


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
