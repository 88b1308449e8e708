"""The benches from end to end, on an untrained model of the embedded model's classes and a few updates."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from danceopd_core.cli.parser import main
from danceopd_core.research.bench import loop, workers
from danceopd_core.research.bench.benches import BENCHES, cells_of
from danceopd_core.research.bench.cells import BenchPlan, MethodConfig, Trial
from danceopd_core.research.bench.figure import curves
from danceopd_core.research.bench.lines import columns, lines
from danceopd_core.research.bench.loop import run_cell
from danceopd_core.research.bench.schedule import path_forwards
from danceopd_core.research.bench.stage import BenchContext
from danceopd_core.shapes.language import EDIT, T2I
from danceopd_core.weights.adapters import STUDENT
from danceopd_core.weights.lora_io import read_lora

PLAN = BenchPlan(steps=2, each=1, brief=1, batch=4, prompts=3, rank=4)
CPU = torch.device("cpu")


@pytest.fixture
def stage(world):
    return BenchContext(PLAN, CPU)


def test_all_students_of_a_setting_start_equal(stage, world):
    for cell in cells_of(BENCHES["composition"], ("t2i_edit",), (0,)):
        if cell.approach.trains and cell.approach.data in ("prompts", "teachers"):
            opened = stage.open(cell)
            start = read_lora(world / "loras" / "edit.safetensors", opened.adapters.shapes)
            student = opened.adapters.student()
            assert all(torch.equal(student.down[name], start.down[name]) for name in start.down)
            assert all(torch.equal(student.scale * student.up[name], start.up[name]) for name in start.up)


@pytest.mark.parametrize(
    "approach", [MethodConfig(), MethodConfig(soft=True), MethodConfig(method="joint", data="few")]
)
def test_counted_forwards_are_the_formulas(stage, approach):
    cell = Trial("t2i_edit", "row", approach, 0)
    opened = stage.open(cell)
    assert opened.tally.count == 0
    expected = path_forwards(cell, stage.sigmas)
    for result in opened.trainer:
        before, opened.tally.count = opened.tally.count, 0
        (route,) = result.losses
        # What the rollout took is what the drawn indices say, whatever is expected of them.
        rollout = sum(result.indices) if approach.method == "danceopd" else 0
        calls = {"joint": 0}.get(approach.method, 3 if approach.soft else {"base": 2, "edit": 1}[route])
        assert before == rollout + PLAN.batch * (calls + 3)
        mean = opened.trainer.method.query(stage.sigmas(8), 20_000, torch.Generator().manual_seed(0)).double().mean()
        offset = mean.item() if rollout else 0.0
        assert expected[route] == pytest.approx(offset + calls + 3)


def test_teachers_pictures_are_counted(stage):
    opened = stage.open(Trial("t2i_edit", "row", MethodConfig(method="offpolicy", data="teachers"), 0))
    assert opened.tally.count == PLAN.prompts * 8 * (2 + 1)
    assert all(len(lane.clean) == PLAN.prompts for lane in opened.trainer.routes)


def test_scoring_leaves_student_and_count_alone(stage):
    cell = Trial("realism", "row", MethodConfig(), 0)
    opened = stage.open(cell)
    list(opened.trainer)  # two updates: the warmup's first has no rate
    before, count = {k: v.clone() for k, v in opened.adapters.state_dict().items()}, opened.tally.count
    (point,) = loop._look(cell, stage, opened, {"update": 1, "marks": ("updates",)})
    assert opened.tally.count == count
    assert all(torch.equal(value, before[name]) for name, value in opened.adapters.state_dict().items())
    assert point["inference"] == 8
    assert set(point["scores"]) == {*T2I, "lit"}
    with opened.averaged():
        assert any(not torch.equal(v, before[name]) for name, v in opened.adapters.state_dict().items())


def test_guidance_at_inference_costs_a_second_forward(stage):
    result = run_cell(Trial("t2i_edit", "bare", MethodConfig(field="bare", betas=(1.0, 2.0)), 0), stage)
    assert [point["inference"] for point in result["points"]] == [8, 16]


def test_a_second_call_runs_nothing_and_gives_the_same_table(world, tmp_path, monkeypatch, capsys):
    arguments = [
        "bench",
        "composition",
        "--quick",
        "--steps",
        "2",
        "--each",
        "1",
        "--setting",
        "t2i_edit",
        "--out",
        str(tmp_path),
    ]
    arguments += ["--only", "base,merge,joint-faulty,diffusionopd,flowopd,danceopd"]
    assert main(arguments) == 0
    cells = sorted(tmp_path.glob("*seed-0.json"))
    assert len(cells) == 6
    first = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"}
    assert min(Image.open(tmp_path / "composition.png").size) > 300
    whole = json.loads((tmp_path / "composition.json").read_text())
    assert {(line["row"], line["mark"]) for line in whole["lines"]} >= {("danceopd", "forwards"), ("base", "updates")}
    share = ("share",) if any("share" in line["marks"] for line in whole["lines"]) else ()
    for line in whole["lines"]:
        line["marks"].pop("share", None)  # an untrained model may have nothing to be a share of
        delta = {"delta"} if line["row"] != "danceopd" else set()
        assert set(line["marks"]) == {"both", "t2i", "edit", "local", "global", *T2I, *EDIT} | delta
        assert all(low <= mean <= high for mean, low, high in line["marks"].values())
        both = (line["marks"]["t2i"][0] + line["marks"]["edit"][0]) / 2
        assert line["marks"]["both"][0] == pytest.approx(both, abs=1e-3)
    table = (tmp_path / "composition.md").read_text()
    (head,) = {line for line in table.splitlines() if line.startswith("| row")}
    means, costs = ("both", "delta", *share, "t2i", "edit"), ("seeds", "updates", "forwards", "seconds", "inference")
    assert head == "| " + " | ".join(["row", "data", "β", *means, *T2I, *EDIT, *costs]) + " |"

    monkeypatch.setattr(workers, "BenchContext", None)  # nothing may be opened
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in first} == first
    cells[0].unlink()
    with pytest.raises(TypeError):
        main(arguments)
    assert main([*arguments, "--finished"]) == 0
    assert len(json.loads((tmp_path / "composition.json").read_text())["lines"]) == len(whole["lines"]) - 2
    assert main([*arguments, "--finished", "--seeds", "5"]) == 2
    assert "without --finished" in capsys.readouterr().err


def test_results_of_another_plan_are_refused(world, tmp_path, capsys):
    arguments = ["bench", "operators", "--quick", "--setting", "realism", "--only", "base", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert main([*arguments, "--each", "1"]) == 2
    assert "--out" in capsys.readouterr().err


def test_cells_at_a_time_are_those_of_one_after_another(tmp_path):
    """With the shipped model: other processes do not see a test's own."""
    for jobs in ("1", "2"):
        out = ["--steps", "2", "--each", "1", "--out", str(tmp_path / jobs), "--jobs", jobs, "--dtype", "bfloat16"]
        assert main(["bench", "operators", "--quick", "--setting", "realism", "--only", "base,danceopd", *out]) == 0
    for name in ("base", "danceopd"):
        one, two = (json.loads((tmp_path / jobs / f"realism-{name}-seed-0.json").read_text()) for jobs in ("1", "2"))
        assert one["cell"] == two["cell"]
        assert "bfloat16" in one["cell"]
        for a, b in zip(one["points"], two["points"], strict=True):
            # Where a core adds up its share is another's matter, so pictures may differ in their last bits.
            assert (a["update"], a["forwards"], a["marks"]) == (b["update"], b["forwards"], b["marks"])
            assert abs(np.mean(a["scores"]["single"]) - np.mean(b["scores"]["single"])) <= 0.5


def test_workers_leave_with_a_parent_that_is_killed(tmp_path):
    command = [sys.executable, "-m", "danceopd_core", "bench", "operators", "--quick", "--setting", "realism"]
    command += ["--jobs", "2", "--out", str(tmp_path)]
    bench = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert bench.stdout is not None
    assert any("1/3:" in line for line in bench.stdout)  # so the workers are there
    bench.kill()
    bench.communicate(timeout=60)  # until the workers, which have the same output, have closed it too


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["nonsense"], "composition, ablations, operators"),
        (["composition", "--only", "dance"], "danceopd"),
        (["composition", "--setting", "local"], "local_global"),
        (["composition", "--seeds", "a"], "0,1,2"),
        (["composition", "--each", "0"], "at least 1"),
        (["composition", "--brief", "0"], "at least 1"),
        (["composition", "--jobs", "0"], "at least 1"),
        (["composition", "--lr", "0"], "more than 0"),
    ],
)
def test_bad_options_are_told_before_anything_is_opened(world, tmp_path, capsys, more, told):
    assert main(["bench", *more, "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_turning_asks_the_start_first_and_then_the_teacher(stage):
    rows = BENCHES["turning"].rows("local_global")
    assert len(rows) == 2 + 7 + 7
    opened = stage.open(Trial("local_global", "row", rows["global-after-3"], 0))
    plain = stage.open(Trial("local_global", "row", rows["global"], 0))
    start = stage.open(Trial("local_global", "row", rows["start"], 0))
    cond = stage.exam(Trial("local_global", "row", MethodConfig(), 0)).samples.select([6, 7])
    x, sigmas = torch.randn(2, *stage.backbone.latent_shape(64, 64)), stage.sigmas(8)
    with torch.no_grad():
        for step, want in ((2, start.fields["start"]), (3, plain.fields["global"])):
            sigma = sigmas[step].repeat(2)
            assert torch.equal(opened.fields["global"](x, sigma, cond), want(x, sigma, cond))


def test_realism_is_absorbed_from_nothing_to_the_teacher(stage):
    results = [run_cell(Trial("realism", row, MethodConfig(field=row), 0), stage) for row in ("base", "realism")]
    for result, lit in zip(results, (0.25, 0.75), strict=True):
        result["points"][0]["scores"]["lit"] = [lit] * 6
    middle = {**results[0], "row": STUDENT, "points": [dict(results[0]["points"][0])]}
    middle["points"][0]["scores"] = {**middle["points"][0]["scores"], "lit": [0.5] * 6}
    closed = {line["row"]: line["marks"]["closed"][0] for line in lines([*results, middle])}
    assert closed == {"base": 0, STUDENT: 0.5, "realism": 1}
    assert columns("realism") == ("t2i", "lit", "closed", *T2I)


def result(row, drawn, edited, beta=1.0, seed=0):
    """Of items about these means, the same about them for every row."""
    about = np.array([-0.1, 0.1])
    scores = {**{c: (drawn + about).tolist() for c in T2I}, **{c: (edited + about).tolist() for c in EDIT}}
    point = {"update": 0, "forwards": 0, "seconds": 0, "marks": ["updates"], "beta": beta, "inference": 8}
    points = [{**point, "scores": scores}]
    return {"setting": "t2i_edit", "row": row, "data": "", "seed": seed, "diverged": None, "points": points}


def test_the_share_is_of_the_best_source_of_each_capability():
    rows = [result("base", 0.8, 0.1), result("teacher-edit", 0.7, 0.9), result("merge", 1.0, 1.0)]
    found = {line["row"]: line["marks"] for line in lines([*rows, result("danceopd", 0.76, 0.9)])}
    assert found["danceopd"]["share"] == (0.95,)
    assert found["danceopd"]["both"][0] == 0.83
    assert found["teacher-edit"]["share"] == (0.875,)
    assert found["merge"]["share"] == (1.1111,)
    assert "share" not in lines([result("danceopd", 0.76, 0.9)])[0]["marks"]
    assert columns("local_global")[:7] == ("both", "delta", "share", "local", "global", "t2i", "edit")


def test_the_share_of_a_row_with_fewer_seeds_is_of_the_sources_on_these_seeds():
    # Of the second seed's easier items the row knows nothing, and loses nothing by them.
    rows = [result("base", 0.5 + seed / 4, 0.1, seed=seed) for seed in (0, 1)]
    rows += [result("teacher-edit", 0.4, 0.5 + seed / 4, seed=seed) for seed in (0, 1)]
    found = {
        line["row"]: line["marks"]
        for line in lines([*rows, result("danceopd", 0.45, 0.5), result("merge", 1, 1, seed=7)])
    }
    assert found["danceopd"]["share"] == (0.9,)
    assert "share" not in found["merge"]


def test_rows_are_compared_with_danceopd_on_the_seeds_that_both_have():
    # Items and seeds differ widely, and are the same for all rows: a small difference shows in pairs alone.
    luck = (0.1, 0.3, 0.2, 0.4)
    rows = [result("danceopd", more, 0.5 + more, seed=seed) for seed, more in enumerate(luck)]
    less = (0.021, 0.02, 0.019)
    rows += [result("mixed", luck[n] - less[n], 0.5 + luck[n] - less[n], seed=n) for n in range(3)]
    rows += [result("merge", 0.9, 0.9, seed=7)]
    found = {line["row"]: line["marks"] for line in lines(rows)}
    mean, low, high = found["mixed"]["delta"]
    assert mean == pytest.approx(-0.02)
    assert high - low < (found["mixed"]["both"][2] - found["mixed"]["both"][1]) / 3
    assert "delta" not in found["danceopd"]
    assert "delta" not in found["merge"]


def test_a_brief_exam_is_the_beginning_of_the_whole_one(world):
    stage = BenchContext(BenchPlan(each=3, brief=1), CPU)
    cell = Trial("t2i_edit", "row", MethodConfig(), 5)
    whole, brief = stage.exam(cell), stage.exam(cell, brief=True)
    assert [item.category for item in brief.items] == [*T2I, *EDIT]
    assert whole.items[:12] == brief.items
    assert whole.seed == brief.seed != stage.exam(Trial("t2i_edit", "row", MethodConfig(), 6)).seed


def test_a_missing_teacher_is_told_before_anything_is_run(world, tmp_path, capsys):
    kept = (world / "loras" / "global_edit.safetensors").rename(world / "kept")
    try:
        assert main(["bench", "composition", "--quick", "--out", str(tmp_path / "out")]) == 2
    finally:
        kept.rename(world / "loras" / "global_edit.safetensors")
    assert "shapes:global_edit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_curve_counts_the_items_that_every_exam_asks_and_a_style_as_a_capability():
    def point(update, each):
        scores = {**{c: [1.0] + [0.0] * (each - 1) for c in T2I}, "lit": ([0.5] + [0.0] * (each - 1)) * len(T2I)}
        return {"update": update, "forwards": 8 * update, "seconds": 0, "marks": [], "beta": 1.0, "scores": scores}

    result = {"setting": "realism", "row": "danceopd", "data": "", "seed": 0, "diverged": None}
    found = curves([{**result, "points": [point(1, 1), point(2, 4)]}])
    assert found == {"realism": {"danceopd": [(1, 8, 0.75), (2, 16, 0.75)]}}
