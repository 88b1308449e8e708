"""Runs of two processes, as accelerate launches them: killed and told to end, they resume; who stalls is named."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from danceopd_core.cli.parser import main
from danceopd_core.recipe.io import read_recipe
from danceopd_core.runs.files.run_id import facts_of_lora
from danceopd_core.runs.training.session import open_session
from danceopd_core.runs.training.stall import Meetings

from .endings import assert_same_run, tensors, write_recipe

ROOT = Path(__file__).parents[2]


def launch(*command: str) -> subprocess.Popen[str]:
    """Starts a command in two processes, as the README says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    words += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return subprocess.Popen(
        [*words, "--main_process_port", str(port), *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def lines_of(run: Path) -> int:
    file = run / "history.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def end_at(process: subprocess.Popen[str], run: Path, updates: int, number: int, all_of_them: bool) -> str:
    """Sends a signal once the run has had so many updates; returns what was said."""
    while lines_of(run) < updates:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    for process_of_run in psutil.Process(process.pid).children(recursive=True) if all_of_them else ():
        process_of_run.send_signal(number)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode
    return said


@pytest.mark.slow
def test_two_processes_resume_to_the_run_that_nothing_ended(zimage_folder, tmp_path, capfd):
    """Killed before the first save, and told to end by the launcher after it."""
    recipe = write_recipe(tmp_path, zimage_folder)
    whole, run = tmp_path / "whole", tmp_path / "run"
    words = ["-m", "danceopd_core", "train", str(recipe), "steps=20", "save_every=15", "rollout_steps=8"]
    process = launch(*words, f"out={whole}")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    end_at(launch(*words, f"out={run}"), run, 3, signal.SIGKILL, all_of_them=True)
    assert not (run / "state.safetensors").exists()
    said = end_at(launch(*words, f"out={run}", "--resume"), run, 6, signal.SIGTERM, all_of_them=False)
    assert "saved after update" in said
    assert main(["train", str(recipe), "steps=20", "rollout_steps=8", f"out={run}", "--resume"]) == 2
    assert "2 processes" in capfd.readouterr().err
    process = launch(*words, f"out={run}", "--resume")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert_same_run(run, whole)
    validations = [(folder / "validation.jsonl").read_text(encoding="utf-8").splitlines() for folder in (run, whole)]
    assert validations[0] == validations[1]
    entries = [json.loads(line) for line in validations[0]]
    assert [entry["update"] for entry in entries] == [0, 15, 20]
    best, other = tensors(run / "best.safetensors"), tensors(whole / "best.safetensors")
    assert all(torch.equal(best[key], other[key]) for key in best)
    assert facts_of_lora(run / "best.safetensors")["update"] in (15, 20)
    one = open_session(read_recipe(recipe, ["rollout_steps=8"]), cache="off").errors()
    assert entries[0]["errors"] == pytest.approx(one, rel=1e-5)


STALL = """
import sys, time, torch
from danceopd_core.runs.training.distributed import join_process_group
group, _ = join_process_group("cpu", 0.5, lambda text: print(f"rank {group.rank}: {text}", file=sys.stderr, flush=True))
for update in range(2):
    if update and group.rank:
        time.sleep(2.2)
    tensor = torch.full((2,), float(group.rank))
    group.mean([tensor])
    assert tensor.tolist() == [0.5, 0.5]
assert group.share({"from": group.rank}) == {"from": 0}
torch.distributed.destroy_process_group()
"""


def test_the_process_that_waits_says_for_which_other_one(tmp_path):
    (tmp_path / "stall.py").write_text(STALL, encoding="utf-8")
    process = launch(str(tmp_path / "stall.py"))
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "rank 0: the run has waited for rank 1 for 1 s" in said
    assert "waited for rank 0" not in said


class Store(dict):
    """As torch's, within one process."""

    def add(self, key: str, number: int) -> int:
        self[key] = self.get(key, 0) + number
        return self[key]


def test_of_several_that_wait_one_speaks_and_names_all_that_are_missing():
    store, told = Store(), []
    meetings = [Meetings(store, rank, 4, 0.05, lambda text, rank=rank: told.append((rank, text))) for rank in range(4)]
    with meetings[1].meeting(), meetings[2].meeting():
        time.sleep(0.3)
    assert {rank for rank, _ in told} == {1}
    assert "waited for rank 0, 3 for" in told[-1][1]


def test_a_store_that_does_not_answer_is_told():
    class Gone(Store):
        def add(self, key, number):
            if number:
                return 1
            raise RuntimeError("connection reset")

    told: list[str] = []
    with Meetings(Gone(), 1, 2, 0.05, told.append).meeting():
        time.sleep(0.2)
    assert "rank 0, which does not answer" in told[0]
    assert threading.active_count() < 20
