"""Runs on a real card: resumed to the bit, read ahead without a race, stopped at the query as a whole rollout is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from danceopd_core.algorithm.reading_ahead import ReaderAhead
from danceopd_core.algorithm.rollout import Sde, Start, State, ode
from danceopd_core.cli.demo import demo_recipe
from danceopd_core.cli.parser import main
from danceopd_core.models.registry import open_backbone
from danceopd_core.recipe.io import write_recipe
from danceopd_core.runs.files import stored_samples
from danceopd_core.runs.training.session import open_session
from danceopd_core.shapes.language import EDIT, T2I
from danceopd_core.shapes.score import HeldOutSet, score_table
from danceopd_core.weights.adapters import STUDENT, Adapters

from ..loras import random_lora
from .card import CARD, DEVICE, gap, needs_card, only_on_card, repeatable, same_bits, told, worst
from .cases import Family, Watcher, train

pytestmark = [needs_card, pytest.mark.slow, pytest.mark.usefixtures("on_card")]

PROMPTS = [f"{count} red cats{' on a mat' * count}" for count in range(1, 11)]


class Until(Watcher):
    """Stops the run after so many updates."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def should_stop(self) -> bool:
        return len(self.losses) == self.last


@pytest.fixture
def family(tmp_path) -> Family:
    return Family("zimage", tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(family, dtype):
    def trained(name: str):
        """Losses and students of a whole run, and of one that was stopped and resumed."""
        whole, pieces = (
            family.recipe("danceopd", DEVICE, steps=4, dtype=dtype, out=str(family.root / f"{name}-{which}"))
            for which in ("whole", "pieces")
        )
        watcher, first, second = Watcher(), Until(2), Watcher()
        session = train(whole, watcher)
        train(pieces, first)
        resumed = train(pieces, second, resume=True)
        assert (len(first.losses), len(second.losses)) == (2, 2)
        seconds = resumed.trainer.last.seconds
        assert 0 < sum(spent for phase, spent in seconds.items() if phase != "total") <= 1.01 * seconds["total"]
        states = [one.trainer.state_dict() for one in (session, resumed)]
        return (watcher.losses, first.losses + second.losses), [state["student"] for state in states]

    losses, students = trained("as it is")
    bits = same_bits(*students)
    apart = worst(*losses)
    with repeatable():
        exact_losses, exact_students = trained("repeatable")
    told(f"resumed, {dtype}", bits_by_default=bits, apart_by_default=apart, bits=same_bits(*exact_students))
    assert apart < 1e-2
    assert exact_losses[0] == exact_losses[1]
    assert same_bits(*exact_students)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_state_at_the_query_is_bitwise_that_of_the_whole_rollout(zimage_folder, dtype):
    backbone = open_backbone(zimage_folder, dtype, DEVICE)
    adapters = Adapters(backbone.network)
    adapters.start_student(random_lora(adapters.shapes, 4, seed=2))
    field, steps = adapters.field(backbone.velocity, STUDENT), 6
    sigmas, cond = backbone.sigmas(steps, 32, 32), backbone.encode(["a red cat", "a dog on a hill"]).to(DEVICE)
    noise = torch.randn(2, *backbone.latent_shape(32, 32), generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def walk(rollout, rows: list[int], indices: list[list[int]]) -> list[State]:
        start, generator = Start(cond.select(rows), noise[rows]), torch.Generator().manual_seed(3)
        return list(rollout(field, start, sigmas, torch.tensor(indices), generator))

    for rollout in (ode, Sde(0.7)):
        full = walk(rollout, [0], [list(range(steps))])
        both = walk(rollout, [0, 1], [list(range(steps))] * 2)
        for index in range(steps):
            (early,) = walk(rollout, [0], [[index]])
            assert early.x.equal(full[index].x)
            assert early.sigma.equal(full[index].sigma)
            assert early.index.tolist() == [index]
            other = steps - 1 - index
            (parted,) = walk(rollout, [0, 1], [[index], [other]])
            for row, at in enumerate((index, other)):
                assert gap(parted.x[row], both[at].x[row]) < (1e-4 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_what_is_read_ahead_is_what_is_read_when_it_is_asked_for(family, where, monkeypatch):
    """Twenty updates of two micro-steps over edits and prompts of many lengths: a race would change the bits."""
    if where == "disk":
        monkeypatch.setattr(stored_samples, "SMALL", 0)
    routes = [
        {"name": "base", "teacher": "base", "bucket": {"prompts": PROMPTS}},
        {"name": "lora", "teacher": "lora", "bucket": {"csv": str(family.root / "edit.csv")}},
    ]
    steps = 20 if CARD else 3
    ahead, announced, found = ReaderAhead.ahead, [], {}

    def counted(self, *what) -> None:
        announced.append(what)
        ahead(self, *what)

    for name, read in (("ahead", counted), ("asked", lambda self, *what: None)):
        monkeypatch.setattr(ReaderAhead, "ahead", read)
        recipe = family.recipe("from the disk", DEVICE, steps=steps, routes=routes, out=str(family.root / name))
        watcher = Watcher()
        with repeatable():
            session = train(recipe, watcher)
        found[name] = watcher.losses, session.trainer.state_dict()["student"]
    assert len(announced) == 4 * steps - 1
    told(f"read ahead from {where}", apart=worst(found["ahead"][0], found["asked"][0]))
    assert found["ahead"][0] == found["asked"][0]
    assert same_bits(found["ahead"][1], found["asked"][1])


def embedded(out, steps: int):
    """The demo's run on the device."""
    recipe = demo_recipe(out, 0, steps)
    return replace(recipe, device=DEVICE)


def test_the_embedded_model_is_trained_by_the_command_line_and_sampled_on_the_cpu(tmp_path):
    recipe = embedded(tmp_path / "run", 10 if CARD else 1)
    few = tuple(replace(route, bucket=replace(route.bucket, count=32)) for route in recipe.routes)
    write_recipe(tmp_path / "recipe.yaml", replace(recipe, routes=few))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    student, pictures = tmp_path / "run" / "student.safetensors", []
    for number, device in enumerate(("cpu", DEVICE)):
        out = tmp_path / f"{number}.png"
        asked = ["sample", "two red circles", "--lora", str(student), "--device", device, "--dtype", "float32"]
        assert main([*asked, "--out", str(out)]) == 0
        pictures.append(np.asarray(Image.open(out)).astype(float))
    told("embedded, sampled", apart=float(np.abs(pictures[0] - pictures[1]).mean()), spread=float(pictures[0].std()))
    assert np.abs(pictures[0] - pictures[1]).mean() < 1
    assert pictures[0].std() > 5


@only_on_card
def test_the_demo_on_a_card_learns_what_it_learns_on_a_cpu(tmp_path):
    recipe = embedded(tmp_path / "run", 200)
    told_lines: list[str] = []
    session = open_session(recipe, log=told_lines.append)
    held_out = HeldOutSet.of(session.backbone, {T2I: 16, EDIT: 8}, seed=7)
    tables = {}

    def score(name: str, field: str) -> None:
        images = list(held_out.generate(session.backbone, session.fields[field], device=DEVICE))
        tables[name] = {kind: score_table(held_out, images)[kind].mean for kind in ("t2i", "edit")}

    score("base", "base")
    score("before", STUDENT)
    assert len(list(session.trainer)) == recipe.steps
    score("after", STUDENT)
    told("demo", **{f"{name} {kind}": value for name, table in tables.items() for kind, value in table.items()})
    assert tables["before"]["edit"] > 0.75 > 0.4 > tables["base"]["edit"]
    assert tables["after"]["t2i"] > tables["before"]["t2i"] + 0.03
    assert tables["after"]["edit"] > tables["before"]["edit"] - 0.1
