"""Every family, method and kind of teacher on a dummy CUDA device, which refuses what lies on the wrong device."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from ..versions import needs_diffusers
from .dummy_cuda import build

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("clang++")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="the dummy device needs Linux and g++"),
    pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="it is written for torch 2.13's headers"
    ),
    pytest.mark.skipif(torch.version.cuda is not None, reason="it stands in for CUDA in a CPU build of torch"),
]
ALWAYS = {"a copy to the CPU in algorithm/step_result.py, told_of": 1, "an event in algorithm/profiling.py, seconds": 1}
"""What every update waits for: its numbers, which travel once, and the time that it took."""
LIBRARIES = ("algorithm/updates.py, apply", "models/zimage.py, _edit_velocity", "models/qwen21.py, _group_velocity")
"""Where libraries copy small tensors for themselves: Adafactor of transformers, and diffusers' positions of edits,
and of all of Qwen-Image-2.1."""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """The compiled device, once for all workers of a run."""
    shared = tmp_path_factory.getbasetemp()
    folder = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(folder / "dummy.lock"):
        file = folder / "dummy_cuda.so"
        return file if file.exists() else build(folder, str(COMPILER))


def trained(library: Path, folder: Path, family: str) -> dict[tuple[str, str], dict]:
    """By case and device, what the trainings of a family came to."""
    command = [sys.executable, "-m", "tests.device.trainings", library, folder, family]
    # Memory of tensors is given back to the system once, at the end: most of the time would go into that.
    quick = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, **quick}
    )
    assert not done.returncode, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert not (failed := [one["failed"] for one in found if "failed" in one]), "\n".join(failed)
    return {(one["case"], one["device"]): one for one in found}


def small(waits: dict[str, int]) -> dict[str, int]:
    return {what: count for what, count in waits.items() if not what.endswith(LIBRARIES)}


@pytest.mark.parametrize(
    ("family", "cases"),
    [
        pytest.param("sd3", 7, marks=pytest.mark.slow),  # and resuming, the cache, memory that runs out
        pytest.param("flux", 4, marks=pytest.mark.long),
        pytest.param("kontext", 4, marks=pytest.mark.long),
        pytest.param("flux2", 4, marks=[pytest.mark.long, needs_diffusers("0.37")]),
        pytest.param("krea2", 4, marks=[pytest.mark.long, needs_diffusers("0.39")]),
        pytest.param("qwen", 4, marks=pytest.mark.long),
        pytest.param("qwen21", 4, marks=[pytest.mark.long, needs_diffusers("0.41")]),
        pytest.param("qwen-edit", 4, marks=pytest.mark.long),
        pytest.param("zimage", 11, marks=pytest.mark.long),  # and float16, a learned router, other kinds of teachers
    ],
)
def test_trainings(library, tmp_path, family, cases):
    found = trained(library, tmp_path, family)
    on_device = {case: one for (case, device), one in found.items() if device == "cuda"}
    assert len(on_device) == cases
    for case, one in on_device.items():
        assert (one["network"], one["optimizer"], one["vae"]) == (["cuda"], ["cuda"], "cpu"), case
        again = small(one["waits"])
        if case == "out of memory":  # what was read ahead was for the update that failed
            again = {what: count for what, count in again.items() if "reading_ahead" not in what}
        if len(one["losses"]) == 1 or case == "resumed":  # the first of a session, when networks fill their tables
            again = {what: count for what, count in again.items() if not what.startswith("a copy from memory")}
        assert again == ALWAYS, case
    assert small(on_device["danceopd"]["waits"]) == ALWAYS
    for case, one in ((case, one) for (case, device), one in found.items() if device == "cpu"):
        near = 1e-2 if case == "float16" else 1e-3
        for here, there in zip(one["losses"], on_device[case]["losses"], strict=True):
            assert there == pytest.approx(here, rel=near, abs=1e-7), case
        assert on_device[case]["errors"] == pytest.approx(one["errors"], rel=near), case
        assert on_device[case]["pictures"] == pytest.approx(one["pictures"], abs=1), case
    if "out of memory" in on_device:
        assert "2 of the batch of 4 at a time from now on" in on_device["out of memory"]["told"][-1]
