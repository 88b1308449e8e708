"""The identity of a run: which changes of its files make it another run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from danceopd_core.recipe.schema import Bucket, LearnedRouter, Recipe, Route, Student, Teacher
from danceopd_core.runs.files.identity import run_identity

FILES = [
    "model/transformer/weights.safetensors", "vae.safetensors", "lora.safetensors", "full.safetensors",
    "start.safetensors", "prompts.csv", "source.png", "target.png", "more.csv", "more.png",
]  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe with every kind of file; the weights are never opened."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "prompts.csv").write_text("prompt,source_image,target_image\na,source.png,target.png\n")
    (tmp_path / "more.csv").write_text("prompt,source_image\nb,more.png\n")
    bucket = Bucket(csv=str(tmp_path / "prompts.csv"))
    return Recipe(
        str(tmp_path / "model"),
        (Route("one", "lora", bucket), Route("two", "full", bucket)),
        {
            "lora": Teacher(lora=str(tmp_path / "lora.safetensors")),
            "full": Teacher(checkpoint=str(tmp_path / "full.safetensors")),
        },
        student=Student(start=str(tmp_path / "start.safetensors")),
        components={"vae": str(tmp_path / "vae.safetensors")},
        learned_router=LearnedRouter(Bucket(csv=str(tmp_path / "more.csv"))),
    )


@pytest.mark.parametrize("name", FILES)
def test_a_run_is_another_one_when_any_of_its_files_changes(name, recipe, tmp_path):
    file, before = tmp_path / name, run_identity(recipe)
    assert run_identity(recipe) == before
    content, stat = file.read_bytes(), file.stat()
    file.write_bytes(content + b"\n")
    assert run_identity(recipe) != before
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run_identity(recipe) == before


def test_a_base_lora_counts_too(recipe, tmp_path):
    base = tmp_path / "base.safetensors"
    base.write_bytes(b"one")
    with_base = Recipe(recipe.model, recipe.routes, recipe.teachers, student=Student(base_lora=str(base)))
    before = run_identity(with_base)
    base.write_bytes(b"two")
    assert run_identity(with_base) != before
