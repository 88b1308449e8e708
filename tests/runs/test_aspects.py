"""Sources keep their aspect ratio: student and teacher are asked at the size of each, and a resumed run is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from danceopd_core.errors import InputError
from danceopd_core.recipe.io import checked
from danceopd_core.recipe.schema import Bucket, LearnedRouter, Recipe, Route, Student, Teacher
from danceopd_core.runs.training.session import TrainingSession, open_session


@pytest.fixture
def recipe(zimage_folder, tmp_path) -> Recipe:
    """Seven edits of three sizes and a route of text-to-image."""
    lines = ["prompt,source_image,target_image"]
    for number in range(7):
        size = [(60, 40), (40, 60), (50, 50)][number % 3]
        Image.new("RGB", size, (30 * number, 80, 200)).save(tmp_path / f"{number}.png")
        lines.append(f"edit {number},{number}.png,{number}.png")
    (tmp_path / "edits.csv").write_text("\n".join(lines), encoding="utf-8")
    return Recipe(
        model=str(zimage_folder),
        teachers={"base": Teacher(guidance=2.0)},
        routes=(
            Route("edits", "base", Bucket(csv=str(tmp_path / "edits.csv"))),
            Route("text", "base", Bucket(prompts=("a cat", "a dog"))),
        ),
        student=Student(rank=2),
        router="all",
        steps=3,
        batch=2,
        accumulate=2,
        rollout_steps=2,
        width=64,
        height=64,
        dtype="float32",
        device="cpu",
        aspects="sources",
        out=str(tmp_path / "run"),
    )


def asked(session: TrainingSession) -> list[tuple[tuple[int, ...], set[tuple[int, ...]]]]:
    """For each question to the network, the size of the latents, and those of the sources of its batch."""
    trainer, found = session.trainer, []
    field = trainer.field

    def spied(x, sigma, cond):
        sources = {tuple(part.shape[-2:]) for sample in cond.samples for part in sample.values.get("sources", ())}
        found.append((tuple(x.shape[-2:]), sources))
        return field(x, sigma, cond)

    trainer.field = spied
    return found


def trained(session: TrainingSession, updates: int) -> dict[str, torch.Tensor]:
    for _, _ in zip(range(updates), session.trainer, strict=False):
        pass
    return {name: factor.clone() for name, factor in session.trainer.student.state_dict().items()}


def test_every_batch_is_of_the_size_of_its_sources(recipe):
    session = open_session(recipe)
    found = asked(session)
    trained(session, 3)
    edits = [(latents, sources) for latents, sources in found if sources]
    assert all(sources == {latents} for latents, sources in edits)
    assert len({latents for latents, _ in edits}) == 3
    own = session.backbone.latent_shape(64, 64)[-2:]
    assert {latents for latents, sources in found if not sources} == {tuple(own)}
    assert all(error > 0 for error in session.trainer.validate().values())


def test_a_resumed_run_is_the_run_that_was_not_interrupted(recipe):
    whole = trained(open_session(recipe), 3)
    first = open_session(recipe)
    trained(first, 1)
    state = first.trainer.state_dict()
    again = open_session(recipe)
    again.trainer.load_state_dict(state)
    resumed = trained(again, 2)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_offpolicy_learns_from_targets_of_the_same_size(recipe):
    session = open_session(replace(recipe, method="offpolicy", routes=recipe.routes[:1]))
    found = asked(session)
    trained(session, 2)
    assert all(sources == {latents} for latents, sources in found)


def test_what_takes_one_size_is_refused(recipe):
    router = replace(recipe, learned_router=LearnedRouter(Bucket(prompts=("a",))))
    other = replace(recipe, teachers={"base": Teacher(model="other")})
    for faulty in (router, other):
        with pytest.raises(InputError, match=r"aspects: .*one size"):
            checked(faulty)
