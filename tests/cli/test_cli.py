"""The commands on a tiny Z-Image: train, resume, sample, several processes; and every bad input, one message each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from danceopd_core.algorithm.trainer import ProcessGroup
from danceopd_core.cli import options
from danceopd_core.cli.parser import COMMANDS, main
from danceopd_core.cli.progress import ProgressBar
from danceopd_core.recipe.io import read_recipe
from danceopd_core.runs.files.run_id import facts_of_lora
from danceopd_core.runs.training.run_dir import RunFolder
from danceopd_core.weights.lora_io import lora_metadata, write_lora

from ..loras import random_lora
from . import two_processes

RECIPE = """
model: {model}
teachers:
  base: {{guidance: 3}}
  edit: {{lora: {lora}}}
routes:
  - {{name: draw, teacher: base, bucket: {{prompts: [a red cat, a dog, no]}}}}
  - {{name: edit, teacher: edit, bucket: {{csv: {csv}}}}}
student: {{start: fresh, rank: 4}}
optimizer: {{lr: 1e-3, ema: 0.5}}
router: round_robin
steps: 4
batch: 2
accumulate: 2
rollout_steps: 3
width: 32
height: 32
save_every: 2
dtype: float32
device: cpu
out: {out}
"""


@pytest.fixture
def recipe(zimage_folder: Path, opened_zimage, tmp_path: Path) -> Path:
    """A recipe file with all that it needs: two routes, one of them editing with a LoRA teacher."""
    from danceopd_core.weights.linear_like import linear_shapes

    lora = random_lora(linear_shapes(opened_zimage.network), 4, seed=1)
    write_lora(tmp_path / "edit.safetensors", lora, lora_metadata(lora, family="zimage", title="edit"))
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "edits.csv").write_text(
        "prompt,task,source_image\nmake it blue,edit,one.png\nremove it,edit,two.png\n", encoding="utf-8"
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(
        RECIPE.format(model=zimage_folder, lora="edit.safetensors", csv="edits.csv", out=tmp_path / "run"),
        encoding="utf-8",
    )
    return file


def factors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def test_a_run_leaves_what_it_promises(recipe, tmp_path):
    assert main(["train", str(recipe)]) == 0
    run = tmp_path / "run"
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [entry["update"] for entry in history] == [1, 2, 3, 4]
    assert [list(entry["losses"]) for entry in history] == [["draw"], ["edit"], ["draw"], ["edit"]]
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["student-000002.safetensors", "student-000004.safetensors"]
    with safe_open(run / "student.safetensors", "pt") as file:
        keys, metadata = list(file.keys()), file.metadata()
    assert all(key.startswith("transformer.") and key.endswith((".lora_A.weight", ".lora_B.weight")) for key in keys)
    assert metadata["ss_steps"] == "4"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "4"
    assert json.loads(metadata["danceopd"])["recipe"]["method"] == "danceopd"
    validations = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [(entry["update"], list(entry["errors"])) for entry in validations] == [
        (update, ["draw", "edit"]) for update in (0, 2, 4)
    ]
    assert facts_of_lora(run / "best.safetensors")["update"] in (2, 4)
    assert not list(run.glob("best-*"))


def test_a_resumed_run_is_the_run_that_was_not_interrupted(recipe, tmp_path):
    """History lines of updates after the saved state, as a killed process leaves them, are replaced."""
    assert main(["train", str(recipe), f"out={tmp_path / 'whole'}"]) == 0
    assert main(["train", str(recipe), "steps=2"]) == 0
    folder = RunFolder(tmp_path / "run")
    with (tmp_path / "run/history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**folder.history()[-1], "update": 3, "grad_norm": -1.0}) + "\n")
    assert main(["train", str(recipe), "--resume"]) == 0
    whole, pieces = factors(tmp_path / "whole/student.safetensors"), factors(tmp_path / "run/student.safetensors")
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    entries = [RunFolder(tmp_path / name).history() for name in ("whole", "run")]
    for first, second in zip(*entries, strict=True):
        assert {**first, "seconds": {}} == {**second, "seconds": {}}


def test_how_often_a_run_is_saved_does_not_change_it(recipe, tmp_path):
    """Although the moving average replaces the student's weights while it is written."""
    for every in (1, 100):
        assert main(["train", str(recipe), f"save_every={every}", f"out={tmp_path / str(every)}"]) == 0
    often, never = (factors(tmp_path / every / "student.safetensors") for every in ("1", "100"))
    assert all(torch.equal(often[key], never[key]) for key in often)
    updates = [1, 2, 3, 4]
    assert [int(file.stem[-6:]) for file in sorted((tmp_path / "1" / "checkpoints").iterdir())] == updates
    assert [entry["update"] for entry in RunFolder(tmp_path / "1").history()] == updates


def test_a_run_that_was_interrupted_within_an_update_is_resumed_to_the_bit(recipe, tmp_path, monkeypatch):
    """The state that is saved is that after the last complete update."""
    assert main(["train", str(recipe), f"out={tmp_path / 'whole'}"]) == 0
    optimizer_step = torch.optim.AdamW.step
    steps = []

    def interrupted(self, *args):
        steps.append(1)
        if len(steps) == 3:  # the gradients of the third update are there
            raise KeyboardInterrupt
        return optimizer_step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    assert main(["train", str(recipe), "save_every=100"]) == 130
    assert main(["train", str(recipe), "save_every=100", "--resume"]) == 0
    whole, pieces = factors(tmp_path / "whole/student.safetensors"), factors(tmp_path / "run/student.safetensors")
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["student-000002.safetensors", "student-000004.safetensors"]
    assert [entry["update"] for entry in RunFolder(tmp_path / "run").history()] == [1, 2, 3, 4]


def test_an_interrupted_run_is_saved_and_resumes_to_the_same_weights(recipe, tmp_path, monkeypatch):
    assert main(["train", str(recipe), f"out={tmp_path / 'whole'}"]) == 0
    update = ProgressBar.on_update

    def interrupted(self, result):
        update(self, result)
        if result.update == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "on_update", interrupted)
    assert main(["train", str(recipe)]) == 130
    monkeypatch.undo()
    assert main(["train", str(recipe), "--resume"]) == 0
    whole, pieces = factors(tmp_path / "whole/student.safetensors"), factors(tmp_path / "run/student.safetensors")
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    assert len((tmp_path / "run/history.jsonl").read_text().splitlines()) == 4


def test_a_student_on_a_base_lora_is_one_file_and_resumes_on_that_lora_alone(recipe, tmp_path, capsys):
    own = "student.base_lora=" + str(tmp_path / "edit.safetensors")
    assert main(["train", str(recipe), own, f"out={tmp_path / 'whole'}"]) == 0
    assert main(["train", str(recipe), own, "steps=2"]) == 0
    assert main(["train", str(recipe), own, "--resume"]) == 0
    base = factors(tmp_path / "edit.safetensors")
    whole, pieces = factors(tmp_path / "whole/student.safetensors"), factors(tmp_path / "run/student.safetensors")
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    assert all(torch.equal(whole[key][:4], down) for key, down in base.items() if "lora_A" in key)
    spoil(tmp_path / "edit.safetensors", lambda tensors: tensors[first_key(tensors)].mul_(2))
    assert main(["train", str(recipe), own, "steps=6", "--resume"]) == 2
    assert "edit.safetensors: changed since" in capsys.readouterr().err
    (tmp_path / "run/run.json").unlink()  # as in runs of version 0.1.0
    assert main(["train", str(recipe), own, "steps=6", "--resume"]) == 2
    assert "student.base_lora" in capsys.readouterr().err


def test_the_student_file_is_sampled_and_scored_like_any_lora(recipe, tmp_path, zimage_folder):
    assert main(["train", str(recipe)]) == 0
    common = ["--model", str(zimage_folder), "--width", "32", "--height", "32", "--steps", "2", "--device", "cpu"]
    for name, more in {
        "base": [],
        "student": ["--lora", str(tmp_path / "run/student.safetensors")],
        "edit": ["--source", str(tmp_path / "one.png"), "--guidance", "2"],
    }.items():
        assert main(["sample", "a red cat", *common, *more, "--out", str(tmp_path / f"{name}.png")]) == 0
        assert Image.open(tmp_path / f"{name}.png").size == (32, 32)
    base, student = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("base", "student"))
    assert (base != student).any()


def test_a_dry_run_writes_nothing(recipe, tmp_path, capsys):
    assert main(["train", str(recipe), "--dry-run", "method=diffusionopd"]) == 0
    assert "diffusionopd, 4 updates" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_where_the_teachers_are_asked(recipe, capsys):
    def told(*overrides):
        assert main(["train", str(recipe), "--dry-run", *overrides]) == 0
        return capsys.readouterr().out.splitlines()[1]

    assert told("query.bias=every") == "queries at sigma 1 33 %, 0.86 33 %, 0.6 33 %"
    assert told("query.bias=every", "sigmas.shift=1") == "queries at sigma 1 33 %, 0.67 33 %, 0.33 33 %"
    assert told("query.sigma=[0.5, 0.7]") == "queries at sigma 0.6 100 %"


def test_a_run_on_another_grid_asks_there(recipe, tmp_path):
    assert main(["train", str(recipe), "sigmas={shift: 1}", "steps=2"]) == 0
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert {round(sigma, 3) for entry in history for sigma in entry["sigmas"]} <= {1.0, 0.667, 0.333}
    assert main(["train", str(recipe), "--resume", "steps=3"]) == 2


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("diffusionopd", []),
        ("flowopd", ["group=2", "anchor=0.1", "router=all"]),
        ("offpolicy", []),
        ("danceopd", ["query.sigma=[0.1, 0.6]", "gradient_checkpointing=true"]),
        ("danceopd", ["query.bias=uniform", "query.k=2", "dtype=bfloat16"]),
    ],
)
def test_every_method_trains_a_real_family(recipe, tmp_path, method, more):
    """Both routes edit, since off-policy needs target pictures."""
    (tmp_path / "edits.csv").write_text(
        "prompt,task,source_image,target_image\nmake it blue,edit,one.png,two.png\n", encoding="utf-8"
    )
    bucket = f"routes.0.bucket={{csv: {tmp_path / 'edits.csv'}}}"
    assert main(["train", str(recipe), f"method={method}", bucket, "steps=2", *more]) == 0
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert all(loss > 0 for entry in history for loss in entry["losses"].values())
    assert all(entry["grad_norm"] > 0 for entry in history)


def launched(*command: str) -> None:
    """Runs a command in two processes, as the README says."""
    with socket.socket() as free:  # other tests may be running beside this one
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [*launch, *plain, "--main_process_port", str(port), *command],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_equal_one_with_twice_the_accumulation(recipe, tmp_path):
    """Micro-step m of rank r has the samples of micro-step 2 m + r of the single process.

    An update takes 2 processes x 2 micro-steps x batch 2 = the 8 prompts of its route's bucket, each once.
    """
    rows = [f"edit {number},edit,{'one' if number % 2 else 'two'}.png" for number in range(8)]
    (tmp_path / "edits.csv").write_text("\n".join(["prompt,task,source_image", *rows]) + "\n", encoding="utf-8")
    text = recipe.read_text(encoding="utf-8")
    prompts = ", ".join(f"cat {number}" for number in range(8))
    recipe.write_text(text.replace("[a red cat, a dog, no]", f"[{prompts}]"), encoding="utf-8")
    launched(str(Path(two_processes.__file__)), str(recipe))
    one, gradients = two_processes.record(read_recipe(recipe, ["accumulate=4"]), ProcessGroup())
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    averages = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    assert len(one) == 4
    assert len({update["weights"] for update in ranks[0]}) == 4
    for number, (whole, first, second) in enumerate(zip(one, *ranks, strict=True), 1):
        (route,) = whole["losses"]
        assert list(first["losses"]) == list(second["losses"]) == [route]
        assert first["weights"] == second["weights"]
        assert first["losses"] != second["losses"]
        assert whole["losses"][route] == pytest.approx((first["losses"][route] + second["losses"][route]) / 2, rel=1e-4)
        dealt = [key for m in (0, 2) for update in (first, second) for key in update["samples"][m : m + 2]]
        assert dealt == whole["samples"]
        assert len(set(whole["samples"])) == 8
        average, other, expected = averages[0][str(number)], averages[1][str(number)], gradients[str(number)]
        assert torch.equal(average, other)
        # Not bit for bit: the gradients of the micro-steps are summed in another order.
        assert (average - expected).norm() < 1e-3 * expected.norm()
    noises = [noise for updates in ranks for update in updates for noise in update["noises"]]
    assert len(set(noises)) == len(noises) == 4 * 8


def test_the_module_runs_under_accelerate(recipe, tmp_path):
    launched("-m", "danceopd_core", "train", str(recipe))
    assert len((tmp_path / "run/history.jsonl").read_text().splitlines()) == 4


def spoil(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def first_key(tensors: dict) -> str:
    return sorted(tensors)[0]


def stray(tensors):
    tensors["transformer.nowhere.lora_A.weight"] = torch.ones(4, 4)


def nan(tensors):
    tensors[first_key(tensors)][0, 0] = torch.nan


def misshapen(tensors):
    tensors[first_key(tensors)] = torch.ones(4, 7)


@pytest.mark.parametrize(
    ("overrides", "damage", "told"),
    [
        (["method=danceopt"], None, ["danceopt", "danceopd", "flowopd"]),
        (["optimzer.lr=1"], None, ["optimzer", "optimizer"]),
        (["routes.0.bucket.prompts=[]"], None, ["routes[0].bucket", "prompts"]),
        (["routes.0.teacher=basis"], None, ["basis", "base"]),
        (["model=nowhere"], None, ["nowhere", "model_index.json"]),
        (["width=40"], None, ["40", "16"]),
        (["steps=0"], None, ["steps"]),
        (["device=meta"], None, ["device", "meta", "auto"]),
        (["device=hpu"], None, ["device", "hpu", "auto"]),
        (["device=cuda:99"], None, ["device", "cuda:99", "auto"]),
        ([f"out={'x' * 300}"], None, ["out", "300 bytes"]),
        (["eta=0.5"], None, ["eta", "flowopd"]),
        (["query.sigma=[0.1, 0.2]"], None, ["no state of the path", "0.857"]),
        (["sigmas=papre"], None, ["papre", "paper"]),
        (["method=offpolicy"], None, ["draw", "target"]),
        ([], lambda p: spoil(p, stray), ["edit.safetensors", "nowhere"]),
        ([], lambda p: spoil(p, nan), ["edit.safetensors", "NaN"]),
        ([], lambda p: spoil(p, misshapen), ["edit.safetensors"]),
        ([], lambda p: p.write_bytes(p.read_bytes()[:300]), ["edit.safetensors", "truncated"]),
        ([], lambda p: p.unlink(), ["edit.safetensors"]),
        ([], lambda p: (p.parent / "one.png").write_bytes(b"no picture"), ["one.png", "row 2"]),
        ([], lambda p: (p.parent / "edits.csv").write_text("prompt,task\n"), ["edits.csv"]),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(recipe, tmp_path, capsys, overrides, damage, told):
    if damage:
        damage(tmp_path / "edit.safetensors")
    assert main(["train", str(recipe), *overrides]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in told), message
    assert "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(recipe, tmp_path, capsys):
    assert main(["train", str(recipe)]) == 0
    before = (tmp_path / "run/student.safetensors").read_bytes()
    assert main(["train", str(recipe)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", str(recipe), "--resume", "optimizer.lr=1"]) == 2
    assert "differs" in capsys.readouterr().err
    assert (tmp_path / "run/student.safetensors").read_bytes() == before


def test_a_missing_recipe_or_lora_is_said(capsys, tmp_path):
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert main(["sample", "x", "--model", str(tmp_path)]) == 2
    assert "model_index.json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_system_refuses_is_one_message(capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    assert main(["sample", "a circle", "--steps", "1", "--out", str(tmp_path / "taken" / "picture.png")]) == 1
    assert "File exists" in capsys.readouterr().err


def test_help_is_shown_without_the_libraries():
    """They take seconds to import."""
    code = (
        "import sys; from danceopd_core.cli.parser import _parse\n"
        "try: _parse(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'diffusers', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", [["bench", "composition"], ["shapes", "build"]])
def test_a_command_that_is_not_installed_says_how_to_get_it(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(options, "RESEARCH", tmp_path / "research")  # left out of the archive of ComfyUI's registry
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert f"danceopd {command[0]}" in message
    assert "pip install" in message
    assert not (tmp_path / "out").exists()
