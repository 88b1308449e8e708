"""Prompt files as the benchmarks have them, the options of a small run, and scorers that only walk the folders."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROMPTS = (
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}',
    '{"tag":"counting",  "include": [{"class": "cow", "count": 2}],'
    ' "exclude": [{"class": "cow", "count": 3}], "prompt": "a photo of two cows"}',
    '{"tag": "colors", "include": [{"class": "é", "count": 1, "color": "red"}], "prompt": "a photo of a red é"}',
)
SMALL = ("--steps", "2", "--device", "cpu")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Three prompts in GenEval's format, written in three styles."""
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def edits(tmp_path: Path):
    """Writes a table in GEdit-Bench's format with the pictures that it names; a change replaces a row's values."""
    rng = np.random.default_rng(0)
    for name, size in {"a": (48, 32), "a_raw": (100, 60), "b": (32, 32)}.items():
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def write(changes=None) -> Path:
        rows = [
            row("k1", "subject-add", "add a cat", "en", "a.png", "a_raw.png"),
            row("k1", "subject-add", "加一只猫", "cn", "a.png", "a_raw.png"),
            row("k2", "style_change", "as a sketch", "en", "b.png"),
            row("k3", "text_change", "say HI", "en", "b.png"),
        ]
        for number, change in (changes or {}).items():
            rows[number] |= change
        path = tmp_path / "edits.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return path

    return write


def row(key, task, instruction, language, picture, raw=None):
    return {
        "key": key, "task_type": task, "instruction": instruction, "instruction_language": language,
        "input_image": picture, "Intersection_exist": True, **({"input_image_raw": raw} if raw else {}),
    }  # fmt: skip


def geneval_sees(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """What GenEval's evaluate_images would score: by folder its metadata's text and the pictures."""
    found = {}
    for name in os.listdir(folder):
        place = folder / name
        if not place.is_dir() or not name.isdigit():
            continue
        text = (place / "metadata.jsonl").read_text(encoding="utf-8")
        metadata = json.loads(text)
        assert metadata["tag"]
        assert metadata["prompt"]
        pictures = [p for p in os.listdir(place / "samples") if re.match(r"\d+\.png", p)]
        assert sorted(pictures) == sorted(os.listdir(place / "samples")), "something lies there that is no picture"
        found[name] = text, sorted(pictures)
    return found


def gedit_sees(save: Path, model: str, rows: list[dict]) -> dict[tuple[str, str], tuple[Image.Image, Image.Image]]:
    """What GEdit-Bench's test_gedit_score would score, by key and language: source and edit."""
    found = {}
    for one in rows:
        folder = save / model / "fullset" / one["task_type"] / one["instruction_language"]
        source, edit = folder / f"{one['key']}_SRCIMG.png", folder / f"{one['key']}.png"
        if source.exists() and edit.exists():
            found[one["key"], one["instruction_language"]] = Image.open(source), Image.open(edit)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)
