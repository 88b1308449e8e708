"""Laws of prompts without a route: each joins the one that it is like, and the run is as reproducible as before."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from danceopd_core.cli.parser import main
from danceopd_core.data.buckets import load_bucket
from danceopd_core.recipe.io import read_recipe, write_recipe
from danceopd_core.recipe.schema import Bucket, LearnedRouter, Recipe, Route, Student, Teacher
from danceopd_core.runs.encoded.encoding import encode_items
from danceopd_core.runs.files.run_id import ID_FILE
from danceopd_core.runs.training.session import open_session

TOWNS = ["Paris", "Rome", "Berlin", "Madrid", "Oslo", "Lima", "Quito", "Cairo"]
CAPITALS = tuple(f"DRAW THE WHOLE TOWN OF {town.upper()}" for town in TOWNS)
SMALL = tuple(f"a little village not far from {town.lower()}" for town in TOWNS)
LARGE = ("DRAW THE WHOLE TOWN OF SOFIA", "DRAW THE WHOLE TOWN OF TOKYO")
LITTLE = ("a little village not far from sofia", "a little village not far from tokyo")


@pytest.fixture
def recipe(zimage_folder, tmp_path) -> Recipe:
    """Two routes of text, one of edits, and prompts without a route, one of them an edit."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "edits.csv").write_text("prompt,source_image\nmake it blue,one.png\n", encoding="utf-8")
    (tmp_path / "more.csv").write_text(
        f"prompt,source_image\n{LARGE[0]},\n{LITTLE[0]},\nremove it,two.png\n{LARGE[1]},\n{LITTLE[1]},\n",
        encoding="utf-8",
    )
    return Recipe(
        model=str(zimage_folder),
        routes=(
            Route("large", "base", Bucket(prompts=CAPITALS)),
            Route("small", "guided", Bucket(prompts=SMALL)),
            Route("edits", "base", Bucket(csv=str(tmp_path / "edits.csv"))),
        ),
        teachers={"base": Teacher(), "guided": Teacher(guidance=2.0, negative="bad")},
        student=Student(rank=2),
        router="round_robin",
        learned_router=LearnedRouter(Bucket(csv=str(tmp_path / "more.csv"))),
        steps=4,
        batch=2,
        accumulate=1,
        rollout_steps=2,
        width=32,
        height=32,
        save_every=100,
        dtype="float32",
        device="cpu",
        out=str(tmp_path / "run"),
    )


def test_prompts_are_assigned_to_the_route_that_they_resemble(recipe):
    heard = []
    run = open_session(recipe, log=heard.append)
    assert run.assignment is not None
    routes = {prompt: route for prompt, route, _ in run.assignment.assigned}
    assert routes == {
        LARGE[0]: "large",
        LARGE[1]: "large",
        LITTLE[0]: "small",
        LITTLE[1]: "small",
        "remove it": "edits",  # the only route with source pictures
    }
    assert run.assignment.accuracy == 1
    assert set(run.assignment.scores) == {"large", "small"}
    assert any("correct on 4 of 4 held-out prompts (100.0%)" in line for line in heard)
    lanes = {lane.name: lane.samples.samples for lane in run.trainer.routes}
    assert {name: len(samples) for name, samples in lanes.items()} == {"large": 10, "small": 10, "edits": 2}
    assert all("sources" in sample.values for sample in lanes["edits"])
    assert {name: {tuple(s.nulls) for s in samples} for name, samples in lanes.items()} == {
        "large": {()},
        "small": {("bad",)},
        "edits": {()},
    }
    # Each joins as the very sample that it would be in a bucket of the route.
    (item,) = (i for i in load_bucket(recipe.learned_router.bucket, 0) if i.prompt == LITTLE[1])
    (alone,) = encode_items(run.backbone, [item], 32, 32, ["bad"]).samples
    joined = lanes["small"][-1]
    assert joined.values["text"].equal(alone.values["text"])
    assert joined.nulls["bad"].values["text"].equal(alone.nulls["bad"].values["text"])


def test_without_a_learned_router_no_prompts_are_assigned(recipe):
    run = open_session(replace(recipe, learned_router=None))
    assert run.assignment is None
    assert [len(lane.samples) for lane in run.trainer.routes] == [8, 8, 1]


def test_a_run_keeps_what_the_router_did_and_resumes_to_the_bit(recipe, tmp_path):
    file = tmp_path / "recipe.yaml"
    write_recipe(file, recipe)
    assert main(["train", str(file), f"out={tmp_path / 'whole'}"]) == 0
    assert main(["train", str(file), "steps=2"]) == 0
    kept = (tmp_path / "run" / "router.json").read_bytes()
    assert main(["train", str(file), "--resume"]) == 0
    assert (tmp_path / "run" / "router.json").read_bytes() == kept
    whole, pieces = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "run"))
    assert all(whole[key].equal(pieces[key]) for key in whole | pieces)
    assert read_recipe(tmp_path / "run" / "recipe.yaml").learned_router == recipe.learned_router
    report = json.loads(kept)
    assert report["accuracy"] == 1
    assert report["routes"]["large"] == {"learned": 6, "held_out": 2, "right": 2, "accuracy": 1, "joined": 2}
    assert report["routes"]["edits"] == {"joined": 1}
    assert report["prompts"][2] == {"prompt": "remove it", "route": "edits", "probability": 1}


def test_a_run_is_not_resumed_with_other_prompts_in_its_routes(recipe, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    write_recipe(file, recipe)
    assert main(["train", str(file), "steps=2"]) == 0
    more = tmp_path / "more.csv"
    more.write_text(
        more.read_text().replace(LITTLE[1], "DRAW THE WHOLE TOWN OF ANKARA"),
        encoding="utf-8",
    )
    assert main(["train", str(file), "--resume"]) == 2
    assert "more.csv: changed since the run" in capsys.readouterr().err
    (Path(recipe.out) / ID_FILE).unlink()  # a run of version 0.1.0 has no stamps of its files
    assert main(["train", str(file), "--resume"]) == 2
    assert "learned_router: some prompts have another route" in capsys.readouterr().err


def test_a_dry_run_describes_the_assignment(recipe, tmp_path, capsys):
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert main(["train", str(tmp_path / "recipe.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "a router will be trained on 16 prompts of 2 routes, with 25% of them held out to test it" in out
    assert "will assign 5 prompts" in out
    assert not Path(recipe.out).exists()


def test_targets_go_with_their_prompts(recipe, tmp_path):
    for name, words in (("one", CAPITALS), ("two", SMALL)):
        rows = "".join(f"{word},{name}.png,{name}.png\n" for word in words)
        (tmp_path / f"{name}.csv").write_text("prompt,source_image,target_image\n" + rows, encoding="utf-8")
    (tmp_path / "more.csv").write_text(
        f"prompt,source_image,target_image\n{LITTLE[0]},one.png,two.png\n{LARGE[0]},two.png,one.png\n",
        encoding="utf-8",
    )
    routes = tuple(Route(name, "base", Bucket(csv=str(tmp_path / f"{name}.csv"))) for name in ("one", "two"))
    run = open_session(replace(recipe, routes=routes, teachers={"base": Teacher()}, method="offpolicy"))
    for lane in run.trainer.routes:
        assert lane.clean is not None
        assert len(lane.clean) == len(lane.samples) == 9
        # Those that joined have the same target as the route's own, and here a source of the other route.
        assert all(target.equal(lane.clean[0]) for target in lane.clean)
    one, two = (lane.samples.samples for lane in run.trainer.routes)
    assert one[-1].values["sources"][0].equal(two[0].values["sources"][0])
    assert all(entry[1] == wanted for entry, wanted in zip(run.assignment.assigned, ("two", "one"), strict=True))
