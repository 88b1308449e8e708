"""Runs that version 0.1.0 began are found and finished: their folders, states and recipes keep their meaning.

The fixtures stopped after 3 of 6 updates; what the uninterrupted runs of that version came to is beside them.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file

from danceopd_core.cli import main
from danceopd_core.recipe import graph as specs
from danceopd_core.recipe.from_graph import recipe_of
from danceopd_core.recipe.schema import Bucket, Student, Teacher
from danceopd_core.runs.files import identity
from danceopd_core.runs.front import interactive
from danceopd_core.runs.live import live_status
from danceopd_core.runs.stored import records
from danceopd_core.runs.training import validation

FIXTURES = Path(__file__).parent / "fixtures" / "run_of_0_1_0"


def close(found: Path, expected: Path) -> None:
    """The same weights. Bit for bit on the processor that made the fixture, to rounding on others."""
    a, b = load_file(found), load_file(expected)
    assert a.keys() == b.keys()
    for key, tensor in a.items():
        torch.testing.assert_close(tensor, b[key], rtol=1e-4, atol=1e-7)


def history(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_of_the_command_line_is_gone_on_with(tmp_path):
    run = copytree(FIXTURES / "cli", tmp_path / "run")
    assert main(["train", str(run / "recipe.yaml"), f"out={run}", "steps=6", "--resume"]) == 0
    close(run / "student.safetensors", FIXTURES / "cli_student_after_6.safetensors")
    then, now = history(FIXTURES / "cli_history_after_6.jsonl"), history(run / "history.jsonl")
    for drawn in ("update", "indices", "sigmas", "lr"):
        assert [entry[drawn] for entry in now] == [entry[drawn] for entry in then]
    assert [list(entry["losses"]) for entry in now] == [list(entry["losses"]) for entry in then]


class Host:
    cancelled = KeyboardInterrupt

    def check(self) -> None: ...
    def progress(self, value, total) -> None: ...
    def preparing(self, done, total) -> None: ...
    def memory_mb(self) -> float:
        return 1.0


@pytest.fixture
def old_job(tmp_path):
    """(job, status) of the graph that made the fixture, over a copy of its folder."""
    folder = copytree(FIXTURES / "node", tmp_path / "danceopd" / "old")
    model = specs.ModelSpec("shapes", "float32", None)
    base = specs.FieldSpec(model, "base", ((Teacher(guidance=2.0), 1.0),))
    edit = specs.FieldSpec(model, "edit", ((Teacher(lora="shapes:edit"), 1.0),))
    drawn = specs.PromptSpec(Bucket(shapes="t2i", count=12), "t2i")
    edited = specs.PromptSpec(Bucket(shapes="edit", count=12), "edit")
    run = records.RunRecord(tmp_path, "old")
    settings = {
        "steps": 6, "out": str(run.path), "width": 64, "height": 64, "rollout_steps": 4, "accumulate": 2, "batch": 2,
        "seed": 3, "device": "cpu", "optimizer": {"lr": 1e-3, "ema": 0.5},
    }  # fmt: skip
    routes = specs.RoutesSpec((specs.RouteSpec(base, drawn, 2.0), specs.RouteSpec(edit, edited)))
    recipe = recipe_of(routes, Student(rank=2, targets=("to_q", "to_k")), settings, "optimizer.weight_decay=0.01")
    # Files of the embedded model count by their dates, which every checkout has its own of.
    stored = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
    stored["contents"] = identity.run_identity(recipe)["contents"]
    (folder / "identity.json").write_text(json.dumps(stored), encoding="utf-8")
    return interactive.Job(recipe, run, validation.Validation(every=3), True, {"prompt": {}})


def test_a_run_of_the_train_node_is_gone_on_with(old_job, tmp_path):
    job = old_job
    assert job.run.status()["state"] == "stopped"
    status = live_status.LiveStatus("9", "9", "old", 6, lambda data: None)
    interactive.train_job(job, Host(), status, threading.Event())
    assert status.data["state"] == "done"
    assert [entry["update"] for entry in history(job.run.path / "history.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "danceopd" / "old.1").exists()  # it was gone on with, not set aside
    close(job.run.lora, FIXTURES / "node_student_after_6.safetensors")
    assert list(status.data["held_out"].values()) == [0, 0]
    assert (status.data["start"], status.data["best"]) == ({}, None)  # that version did not measure the start
