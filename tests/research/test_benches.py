"""The benches from end to end, on an untrained model of the embedded model's classes and a few updates."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from danceopd_core.cli.parser import main
from danceopd_core.research.bench import workers
from danceopd_core.research.bench.benches import BENCHES, trials_of
from danceopd_core.research.bench.context import BenchContext
from danceopd_core.research.bench.figure import curves
from danceopd_core.research.bench.identity import trial_identity, weights_checksum
from danceopd_core.research.bench.report_rows import columns, report_rows
from danceopd_core.research.bench.results import ScoredPoint, TrialResult
from danceopd_core.research.bench.runner import run_trial, score_point
from danceopd_core.research.bench.schedule import path_forwards
from danceopd_core.research.bench.trials import BenchPlan, MethodConfig, Trial
from danceopd_core.shapes.language import EDIT, T2I
from danceopd_core.weights.adapters import STUDENT
from danceopd_core.weights.lora_io import read_lora

PLAN = BenchPlan(steps=2, items=1, curve_items=1, batch=4, prompts=3, rank=4)
CPU = torch.device("cpu")


@pytest.fixture
def context(world):
    return BenchContext(PLAN, CPU)


def test_all_students_of_a_task_start_equal(context, world):
    for trial in trials_of(BENCHES["composition"], ("t2i_edit",), (0,)):
        if trial.config.trains and trial.config.regime in ("prompts", "teachers"):
            opened = context.open(trial)
            start = read_lora(world / "loras" / "edit.safetensors", opened.adapters.shapes)
            student = opened.adapters.student()
            assert all(torch.equal(student.down[name], start.down[name]) for name in start.down)
            assert all(torch.equal(student.scale * student.up[name], start.up[name]) for name in start.up)


def test_a_row_has_its_own_learning_rate(context):
    trial = Trial("t2i_edit_from_local", "danceopd", MethodConfig(lr=1e-3), 0, True, False)
    assert [context.open(t).trainer.settings.lr for t in (trial, replace(trial, config=MethodConfig()))] == [1e-3, 5e-4]
    assert trial_identity(trial, PLAN) != trial_identity(replace(trial, config=MethodConfig()), PLAN)
    assert "lr=None" not in trial_identity(replace(trial, config=MethodConfig()), PLAN)


def test_a_start_is_part_of_the_weights_of_a_trial(context, world):
    before, file = weights_checksum.__wrapped__("t2i_edit_from_local"), world / "loras" / "local_edit.safetensors"
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    changed = weights_checksum.__wrapped__("t2i_edit_from_local")
    file.write_bytes(content)
    assert changed != before


@pytest.mark.parametrize(
    "config", [MethodConfig(), MethodConfig(mix_teachers=True), MethodConfig(method="joint", regime="few")]
)
def test_counted_forwards_are_the_formulas(context, config):
    trial = Trial("t2i_edit", "row", config, 0)
    opened = context.open(trial)
    assert opened.counter.count == 0
    expected = path_forwards(trial, context.sigmas)
    for result in opened.trainer:
        before, opened.counter.count = opened.counter.count, 0
        (route,) = result.losses
        # The rollout's actual length is that of the sampled indices.
        rollout = sum(result.indices) if config.method == "danceopd" else 0
        calls = {"joint": 0}.get(config.method, 3 if config.mix_teachers else {"base": 2, "edit": 1}[route])
        assert before == rollout + PLAN.batch * (calls + 3)
        mean = opened.trainer.method.query(context.sigmas(8), 20_000, torch.Generator().manual_seed(0)).double().mean()
        offset = mean.item() if rollout else 0.0
        assert expected[route] == pytest.approx(offset + calls + 3)


def test_generated_targets_are_counted(context):
    opened = context.open(Trial("t2i_edit", "row", MethodConfig(method="offpolicy", regime="teachers"), 0))
    assert opened.counter.count == PLAN.prompts * 8 * (2 + 1)
    assert all(len(route.clean) == PLAN.prompts for route in opened.trainer.routes)


def test_scoring_leaves_student_and_count_alone(context):
    trial = Trial("realism", "row", MethodConfig(), 0)
    opened = context.open(trial)
    list(opened.trainer)  # two updates: the first has a learning rate of 0
    before, count = {k: v.clone() for k, v in opened.adapters.state_dict().items()}, opened.counter.count
    (point,) = score_point(trial, context, opened, 1, 0.0, ("updates",))
    assert opened.counter.count == count
    assert all(torch.equal(value, before[name]) for name, value in opened.adapters.state_dict().items())
    assert point.inference_forwards == 8
    assert set(point.scores) == {*T2I, "lit"}
    with opened.averaged():
        assert any(not torch.equal(v, before[name]) for name, v in opened.adapters.state_dict().items())


def test_guidance_at_inference_costs_a_second_forward(context):
    result = run_trial(Trial("t2i_edit", "bare", MethodConfig(field="bare", betas=(1.0, 2.0)), 0), context)
    assert [point.inference_forwards for point in result.points] == [8, 16]


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
    files = sorted(tmp_path.glob("*seed-0.json"))
    assert len(files) == 6
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
    files[0].unlink()
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


def test_parallel_trials_equal_sequential_ones(tmp_path):
    """With the shipped model: worker processes do not see a test's own one."""
    for jobs in ("1", "2"):
        out = ["--steps", "2", "--each", "1", "--out", str(tmp_path / jobs), "--jobs", jobs, "--dtype", "bfloat16"]
        assert main(["bench", "operators", "--quick", "--setting", "realism", "--only", "base,danceopd", *out]) == 0
    for name in ("base", "danceopd"):
        one, two = (json.loads((tmp_path / jobs / f"realism-{name}-seed-0.json").read_text()) for jobs in ("1", "2"))
        assert one["cell"] == two["cell"]
        assert "bfloat16" in one["cell"]
        for a, b in zip(one["points"], two["points"], strict=True):
            # The order of float additions depends on the number of threads, so images may differ in their last bits.
            assert (a["update"], a["forwards"], a["marks"]) == (b["update"], b["forwards"], b["marks"])
            assert abs(np.mean(a["scores"]["single"]) - np.mean(b["scores"]["single"])) <= 0.5


def test_workers_exit_with_a_parent_that_is_killed(tmp_path):
    command = [sys.executable, "-m", "danceopd_core", "bench", "operators", "--quick", "--setting", "realism"]
    command += ["--jobs", "2", "--out", str(tmp_path)]
    bench = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert bench.stdout is not None
    assert any("1/3:" in line for line in bench.stdout)  # so the workers have started
    bench.kill()
    bench.communicate(timeout=60)  # returns when the workers have closed the shared output too


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["nonsense"], "composition, starts, ablations, operators"),
        (["composition", "--only", "dance"], "danceopd"),
        (["composition", "--setting", "local"], "local_global"),
        (["composition", "--seeds", "a"], "0,1,2"),
        (["composition", "--each", "0"], "at least 1"),
        (["composition", "--brief", "0"], "at least 1"),
        (["composition", "--jobs", "0"], "at least 1"),
        (["composition", "--lr", "0"], "above 0"),
        (["starts", "--lr", "danceopd=fast"], "ROW=NUMBER"),
        (["starts", "--lr", "danceop=1e-4"], "did you mean"),
    ],
)
def test_bad_options_are_refused_before_anything_is_opened(world, tmp_path, capsys, more, told):
    assert main(["bench", *more, "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_turning_uses_the_initial_lora_first_and_then_the_teacher(context):
    rows = BENCHES["turning"].rows("local_global")
    assert len(rows) == 2 + 7 + 7
    opened = context.open(Trial("local_global", "row", rows["global-after-3"], 0))
    plain = context.open(Trial("local_global", "row", rows["global"], 0))
    start = context.open(Trial("local_global", "row", rows["start"], 0))
    cond = context.held_out_set(Trial("local_global", "row", MethodConfig(), 0)).samples.select([6, 7])
    x, sigmas = torch.randn(2, *context.backbone.latent_shape(64, 64)), context.sigmas(8)
    with torch.no_grad():
        for step, want in ((2, start.fields["start"]), (3, plain.fields["global"])):
            sigma = sigmas[step].repeat(2)
            assert torch.equal(opened.fields["global"](x, sigma, cond), want(x, sigma, cond))


def test_realism_is_absorbed_from_nothing_to_the_teacher(context):
    results = [run_trial(Trial("realism", row, MethodConfig(field=row), 0), context) for row in ("base", "realism")]
    middle = replace(results[0], row=STUDENT)
    lit = zip([*results, middle], (0.25, 0.75, 0.5), strict=True)
    rows = report_rows([with_scores(result, lit=[value] * 6) for result, value in lit])
    closed = {row.row: row.means["closed"][0] for row in rows}
    assert closed == {"base": 0, STUDENT: 0.5, "realism": 1}
    assert columns("realism") == ("t2i", "lit", "closed", *T2I)


def with_scores(result, **scores):
    """The result with some scores of its only point replaced."""
    (point,) = result.points
    return replace(result, points=(replace(point, scores={**point.scores, **scores}),))


def result(row, t2i, edit, beta=1.0, seed=0):
    """Of items with these means, and the same deviations from them in every row."""
    deviations = np.array([-0.1, 0.1])
    scores = {**{c: (t2i + deviations).tolist() for c in T2I}, **{c: (edit + deviations).tolist() for c in EDIT}}
    return TrialResult("t2i_edit", row, "", seed, None, (ScoredPoint(0, 0, 0.0, ("updates",), beta, 8, scores),))


def test_the_share_is_of_the_best_source_of_each_capability():
    rows = [result("base", 0.8, 0.1), result("teacher-edit", 0.7, 0.9), result("merge", 1.0, 1.0)]
    found = {row.row: row.means for row in report_rows([*rows, result("danceopd", 0.76, 0.9)])}
    assert found["danceopd"]["share"] == (0.95,)
    assert found["danceopd"]["both"][0] == 0.83
    assert found["teacher-edit"]["share"] == (0.875,)
    assert found["merge"]["share"] == (1.1111,)
    assert "share" not in report_rows([result("danceopd", 0.76, 0.9)])[0].means
    assert columns("local_global")[:7] == ("both", "delta", "share", "local", "global", "t2i", "edit")


def test_the_share_of_a_row_with_fewer_seeds_uses_the_sources_on_these_seeds():
    # The row has no results on the second seed's easier items, and must not lose by them.
    rows = [result("base", 0.5 + seed / 4, 0.1, seed=seed) for seed in (0, 1)]
    rows += [result("teacher-edit", 0.4, 0.5 + seed / 4, seed=seed) for seed in (0, 1)]
    found = {
        row.row: row.means for row in report_rows([*rows, result("danceopd", 0.45, 0.5), result("merge", 1, 1, seed=7)])
    }
    assert found["danceopd"]["share"] == (0.9,)
    assert "share" not in found["merge"]


def test_rows_are_compared_with_danceopd_on_the_seeds_that_both_have():
    # Seeds differ widely and equally in all rows: only paired differences show a small effect.
    offsets = (0.1, 0.3, 0.2, 0.4)
    rows = [result("danceopd", offset, 0.5 + offset, seed=seed) for seed, offset in enumerate(offsets)]
    less = (0.021, 0.02, 0.019)
    rows += [result("mixed", offsets[n] - less[n], 0.5 + offsets[n] - less[n], seed=n) for n in range(3)]
    rows += [result("merge", 0.9, 0.9, seed=7)]
    found = {row.row: row.means for row in report_rows(rows)}
    mean, low, high = found["mixed"]["delta"]
    assert mean == pytest.approx(-0.02)
    assert high - low < (found["mixed"]["both"][2] - found["mixed"]["both"][1]) / 3
    assert "delta" not in found["danceopd"]
    assert "delta" not in found["merge"]


def test_the_held_out_set_of_the_curves_is_the_beginning_of_the_whole_one(world):
    context = BenchContext(BenchPlan(items=3, curve_items=1), CPU)
    trial = Trial("t2i_edit", "row", MethodConfig(), 5)
    whole, first = context.held_out_set(trial), context.held_out_set(trial, curve_only=True)
    assert [item.category for item in first.items] == [*T2I, *EDIT]
    assert whole.items[:12] == first.items
    assert whole.seed == first.seed != context.held_out_set(Trial("t2i_edit", "row", MethodConfig(), 6)).seed


def test_a_missing_teacher_is_refused_before_anything_is_run(world, tmp_path, capsys):
    kept = (world / "loras" / "global_edit.safetensors").rename(world / "kept")
    try:
        assert main(["bench", "composition", "--quick", "--out", str(tmp_path / "out")]) == 2
    finally:
        kept.rename(world / "loras" / "global_edit.safetensors")
    assert "shapes:global_edit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_curve_uses_the_items_that_every_point_has_and_a_style_as_a_capability():
    def point(update, items):
        lit = ([0.5] + [0.0] * (items - 1)) * len(T2I)
        scores = {**{c: [1.0] + [0.0] * (items - 1) for c in T2I}, "lit": lit}
        return ScoredPoint(update, 8 * update, 0.0, (), 1.0, 8, scores)

    found = curves([TrialResult("realism", "danceopd", "", 0, None, (point(1, 1), point(2, 4)))])
    assert found == {"realism": {"danceopd": [(1, 8, 0.75), (2, 16, 0.75)]}}
