"""`danceopd cache` shows what trainings have kept, and clears it."""

from __future__ import annotations

import pytest

from danceopd_core.cli import main
from danceopd_core.runs.files import stored_samples


@pytest.fixture
def run(tmp_path, zimage_folder, monkeypatch):
    """A training over a bucket that counts as large; its cache."""
    monkeypatch.setattr(stored_samples, "SMALL", 0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {zimage_folder}\nteachers: {{base: {{}}}}\n"
        "routes: [{name: one, teacher: base, bucket: {prompts: [a cat, a dog]}}]\n"
        "student: {rank: 2}\nsteps: 1\nrollout_steps: 2\nwidth: 32\nheight: 32\ndtype: float32\ndevice: cpu\n"
        f"out: {tmp_path / 'run'}\n",
        encoding="utf-8",
    )
    assert main(["train", str(recipe), "--cache", str(tmp_path / "cache")]) == 0
    return tmp_path / "cache"


def test_the_cache_is_shown_and_cleared(run, zimage_folder, capsys):
    (shard,) = run.glob("encoded/*/*.safetensors")
    capsys.readouterr()
    assert main(["cache", "--folder", str(run)]) == 0
    shown = capsys.readouterr().out
    assert str(zimage_folder) in shown
    assert "(1 files)" in shown
    assert main(["cache", "--folder", str(run), "--clear", "--model", "another"]) == 0
    assert shard.exists()
    assert main(["cache", "--folder", str(run), "--clear", "--model", "zimage"]) == 0
    assert not shard.exists()
    assert "removed" in capsys.readouterr().out


def test_a_cache_that_is_off_has_no_folder(monkeypatch, capsys):
    monkeypatch.setenv("DANCEOPD_CACHE", "off")
    assert main(["cache"]) == 2
    assert "--folder" in capsys.readouterr().err
