"""The results in assets/bench stay valid: each is recognised as its trial's, and the reports made again are equal."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from shutil import copytree

import pytest

from danceopd_core.cli.parser import main
from danceopd_core.research.bench.benches import BENCHES, trials_of
from danceopd_core.research.bench.identity import STORED, trial_identity
from danceopd_core.research.bench.results import as_record, finished_results, read_result
from danceopd_core.research.bench.trials import BenchPlan
from danceopd_core.shapes import MODEL

COMMITTED = Path(__file__).parents[2] / "assets" / "bench"
RUNS = {
    "t2i_edit": ("composition", "t2i_edit", (0, 1, 2), BenchPlan(60, 64, 8, dtype="bfloat16")),
    "local_global": ("composition", "local_global", (0, 1, 2), BenchPlan(120, 64, 8, dtype="bfloat16")),
    "t2i_edit_slower": ("composition", "t2i_edit", (0, 1, 2), BenchPlan(240, 64, 8, lr=1e-4, dtype="bfloat16")),
    "ablations": ("ablations", "local_global", (0,), BenchPlan(60, 64, 8, dtype="bfloat16")),
    "operators": ("operators", "t2i_edit", (0,), BenchPlan(60, 64, 8, dtype="bfloat16")),
    "turning": ("turning", "local_global", (0,), BenchPlan(120, 16, 16, dtype="bfloat16")),
    "starts": ("starts", "t2i_edit_from_local", (0, 1, 2), BenchPlan(60, 128, 1, dtype="bfloat16")),
}
"""Folder -> the bench, task, seeds and plan of its results."""
RATES = {
    "starts": {
        "offpolicy": 5e-4, "diffusionopd": 2e-3, "flowopd": 2e-4, "danceopd": 5e-4, "danceopd-uniform": 1e-3,
    }
}  # fmt: skip
"""Of single rows: `--lr`."""
COMPLETE = {"t2i_edit", "local_global", "ablations", "operators", "turning"}
"""Folders with every row of their bench."""

pytestmark = pytest.mark.skipif(not (MODEL / "model_index.json").is_file(), reason="needs the embedded model's weights")


@pytest.mark.parametrize("folder", RUNS)
def test_every_committed_result_is_its_trials(folder):
    bench, task, seeds, plan = RUNS[folder]
    rates = RATES.get(folder, {})
    trials = [
        replace(trial, config=replace(trial.config, lr=rates.get(trial.row)))
        for trial in trials_of(BENCHES[bench], (task,), seeds)
    ]
    results = finished_results(trials, plan, COMMITTED / folder)
    committed = {file.name for file in (COMMITTED / folder).glob(f"{task}-*.json")}
    assert len(results) == len(committed)
    assert (len(results) == len(trials)) == (folder in COMPLETE)


def test_a_result_is_read_and_written_without_loss():
    bench, task, seeds, plan = RUNS["operators"]
    for trial in trials_of(BENCHES[bench], (task,), seeds):
        text = (COMMITTED / "operators" / trial.file_name).read_text()
        result = read_result(trial, plan, COMMITTED / "operators")
        assert json.dumps(as_record(result, trial_identity(trial, plan))) + "\n" == text


def test_the_reports_made_again_equal_the_committed_ones(tmp_path):
    out = copytree(COMMITTED / "t2i_edit", tmp_path / "t2i_edit")
    reports = {name: (out / name).read_bytes() for name in ("composition.json", "composition.md")}
    for name in reports:
        (out / name).unlink()
    options = "--setting t2i_edit --steps 60 --seeds 0,1,2 --each 64 --brief 8 --dtype bfloat16 --finished"
    assert main(["bench", "composition", *options.split(), "--out", str(out)]) == 0
    assert {name: (out / name).read_bytes() for name in reports} == reports


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.__name__)
def test_an_identity_holds_every_field(kind):
    """A field that is added must be stored too, or two different trials would have the same identity."""
    assert [*STORED[kind].fields, *STORED[kind].later] == [field.name for field in fields(kind)]
