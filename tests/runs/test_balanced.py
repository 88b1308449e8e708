"""A run whose shares follow what its routes have left to learn: measured on what it never trains, resumed exactly."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.algorithm import balance
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Student, Teacher
from danceopd_core.runs.files.train_state import load_state, save_state
from danceopd_core.runs.training.session import TrainingSession, open_session


@pytest.fixture
def recipe(zimage_folder, tmp_path, monkeypatch) -> Recipe:
    """Measured before every second update."""
    monkeypatch.setattr(balance, "EVERY", 2)
    buckets = [Bucket(prompts=tuple(f"{kind} {number}" for number in range(20))) for kind in ("a cat", "a dog")]
    return Recipe(
        model=str(zimage_folder),
        teachers={"far": Teacher(guidance=5.0), "near": Teacher()},
        routes=(Route("far", "far", buckets[0]), Route("near", "near", buckets[1])),
        student=Student(rank=2),
        router="balanced",
        steps=3,
        batch=2,
        accumulate=1,
        rollout_steps=2,
        width=32,
        height=32,
        dtype="float32",
        device="cpu",
        out=str(tmp_path / "run"),
    )


def trained(session: TrainingSession, updates: int) -> dict[str, torch.Tensor]:
    for _, _ in zip(range(updates), session.trainer, strict=False):
        pass
    return {name: factor.clone() for name, factor in session.trainer.student.state_dict().items()}


def test_a_resumed_run_has_the_same_shares_and_weights(recipe, tmp_path):
    session = open_session(recipe)
    whole, shares = trained(session, 3), session.shares()
    assert shares != {"far": 0.5, "near": 0.5}
    assert sum(shares.values()) == pytest.approx(1)
    for split in (1, 2):
        first = open_session(recipe)
        trained(first, split)
        save_state(tmp_path / "state.safetensors", first.trainer.state_dict())
        again = open_session(recipe)
        again.trainer.load_state_dict(load_state(tmp_path / "state.safetensors"))
        resumed = trained(again, 3 - split)
        assert again.shares() == shares
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
