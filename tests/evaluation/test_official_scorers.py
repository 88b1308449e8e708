"""GenEval's and GEdit-Bench's own scripts read what `danceopd eval` writes; only their networks are stand-ins.

GENEVAL_PATH: a checkout of djghosh13/geneval. GEDIT_PATH: the folder GEdit-Bench of stepfun-ai/Step1X-Edit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from danceopd_core.cli.parser import main

from .conftest import SMALL

RUNNER = Path(__file__).with_name("official.py")
pytestmark = pytest.mark.skipif(find_spec("pandas") is None, reason="the scorers need pandas")


def checkout(name: str, script: str) -> Path:
    folder = Path(os.environ.get(name, ""))
    if not (folder / script).is_file():
        pytest.skip(f"{name} names no folder with {script}")
    return folder


def run(script: Path, *words: object, **environment: str) -> str:
    command = [sys.executable, RUNNER, script, *words]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_geneval_scores_every_picture_of_every_prompt(prompts, zimage_folder, tmp_path):
    scripts = checkout("GENEVAL_PATH", "evaluation/evaluate_images.py") / "evaluation"
    out, results = tmp_path / "out", tmp_path / "results.jsonl"
    given = ["eval", "geneval", str(prompts), "--model", str(zimage_folder), "--out", str(out), "--samples", "2"]
    assert main([*given, "--width", "32", "--height", "48", *SMALL]) == 0
    run(scripts / "evaluate_images.py", out, "--outfile", results)
    found = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    pictures = {out / f"{number:05d}" / "samples" / f"{sample:05d}.png" for number in range(3) for sample in range(2)}
    assert {Path(row["filename"]) for row in found} == pictures
    assert {row["tag"] for row in found if row["correct"]} == {"single_object"}  # the one with a bench
    summary = run(scripts / "summary_scores.py", results)
    assert "Total images: 6" in summary
    assert "Total prompts: 3" in summary
    assert "single_object    = 100.00% (2 / 2)" in summary
    assert "counting         = 0.00% (0 / 2)" in summary


def test_gedit_scores_every_edit_beside_its_source(edits, zimage_folder, tmp_path):
    scripts = checkout("GEDIT_PATH", "test_gedit_score.py")
    table, out = edits(), tmp_path / "out"
    given = ["eval", "gedit", str(table), "--model", str(zimage_folder), "--name", "mine", "--out", str(out)]
    assert main([*given, "--language", "all", *SMALL]) == 0
    run(scripts / "test_gedit_score.py", "--save_path", out, "--model_name", "mine", ROWS=str(table))
    combined = (out / "mine/gpt4o/eval_results_new/mine_combined_gpt_score.csv").read_text(encoding="utf-8")
    assert len(combined.splitlines()) == 1 + 4
    told = run(scripts / "calculate_statistics.py", "--save_path", out, "--model_name", "mine")
    for task in ("subject-add", "style_change", "text_change"):
        assert f"{task}: 8.000, 5.000, 6.325" in told
