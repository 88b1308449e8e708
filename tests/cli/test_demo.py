"""The demo's path from end to end, on an untrained model of the embedded model's classes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from danceopd_core import shapes
from danceopd_core.cli import demo
from danceopd_core.cli.parser import main
from danceopd_core.shapes.language import EDIT, T2I

from ..tiny_world import save_tiny_world


@pytest.fixture
def tiny_world(tmp_path, monkeypatch):
    folder = save_tiny_world(tmp_path / "model")
    monkeypatch.setattr(shapes, "MODEL", folder)
    monkeypatch.setattr(demo, "HELD_OUT", {"t2i": 1, "edit": 1})
    return folder


def test_the_demo_leaves_what_it_promises_and_repeats_to_the_bit(tiny_world, tmp_path, capsys):
    for name in ("one", "two"):
        assert main(["demo", "--out", str(tmp_path / name), "--seed", "3", "--steps", "2"]) == 0
    out = tmp_path / "one"
    report = json.loads((out / "report.json").read_text())
    assert (report["seed"], report["steps"]) == (3, 2)
    assert report["seconds"] > 0
    assert report["peak_rss_mb"] > 100
    assert set(report["scores"]) == {"base", "teacher_edit", "student_before", "student_after"}
    for table in report["scores"].values():
        assert set(table) == {"t2i", "edit", *T2I, *EDIT}
    for picture in ("samples.png", "loss.png"):
        assert min(Image.open(out / picture).size) > 300
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    start = load_file(tiny_world / "loras" / "edit.safetensors")
    assert one.keys() == start.keys()
    assert any(not torch.equal(one[key], start[key]) for key in one)


@pytest.mark.skipif(sys.platform == "win32", reason="starts no process in this way")
def test_the_memory_told_is_the_demos_own_and_not_that_of_who_started_it():
    held = bytearray(b"x") * 1_200_000_000
    code = "from danceopd_core.cli.demo import peak_rss_mb; print(peak_rss_mb())"
    told = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert 5 < told < 1000 < len(held) / 1e6


def test_the_demo_overwrites_nothing(tiny_world, tmp_path, capsys):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "recipe.yaml").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "old")]) == 2
    assert "--out" in capsys.readouterr().err
    assert (tmp_path / "old" / "recipe.yaml").read_text() == "mine"


def test_scores_of_a_lora_are_printed_and_written(tiny_world, tmp_path, capsys):
    arguments = ["shapes", "score", "--lora", "shapes:edit", "--each", "1", "--seeds", "0", "1", "--steps", "2"]
    assert main([*arguments, "--json", str(tmp_path / "table.json")]) == 0
    printed = capsys.readouterr().out
    assert "edit, seed 0" in printed
    table = json.loads((tmp_path / "table.json").read_text())["shapes:edit, seed 1"]
    assert table["t2i"]["count"] == table["edit"]["count"] == 6
    assert table["t2i"]["low"] <= table["t2i"]["mean"] <= table["t2i"]["high"]


def test_a_lora_of_comfyuis_own_network_is_refused_over_the_diffusers_pipeline(tiny_world, capsys):
    assert main(["shapes", "score", "--lora", "shapes:native_edit"]) == 2
    assert "use it over Load Shapes" in capsys.readouterr().err
