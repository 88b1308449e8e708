"""Two processes on this machine: what they say to each other, what each encodes, and one base model shared by both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from danceopd_core.algorithm.trainer import ProcessGroup
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import read_recipe
from danceopd_core.runs.training.session import open_session

from . import in_processes

RECIPE = """
model: {model}
teachers: {{base: {{guidance: 2.0, negative: ugly and dull}}, plain: {{}}}}
router: balanced
routes:
  - {{name: one, teacher: base, bucket: {{prompts: [{prompts}]}}}}
  - {{name: watched, teacher: plain, weight: 0, bucket: {{prompts: [a dog, no]}}}}
student: {{rank: 2, targets: [to_q, to_v]}}
optimizer: {{lr: 1e-2}}
query: {{bias: uniform, k: 2}}
steps: 4
batch: 2
accumulate: 2
rollout_steps: 5
width: 32
height: 32
dtype: float32
device: cpu
"""


@pytest.fixture
def recipe(zimage_folder, tmp_path) -> Path:
    file = tmp_path / "recipe.yaml"
    prompts = ", ".join(f"a cat {'of many words ' * (number % 3)}{number}" for number in range(40))
    file.write_text(RECIPE.format(model=zimage_folder, prompts=prompts), encoding="utf-8")
    return file


def in_two(recipe: Path, out: Path, *flags: str) -> list[dict]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # A crash of one process ends both; the limit is for a wait that has no end.
    done = subprocess.run(
        [*command, in_processes.__file__, str(recipe), str(out), *flags],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_with_a_shared_base_train_what_two_with_a_whole_one_train(recipe, tmp_path):
    """Every process draws its own queries, so the number of its forwards differs, and each needs all processes."""
    plain, shared = in_two(recipe, tmp_path / "plain"), in_two(recipe, tmp_path / "shared", "--fsdp")
    for rank in range(2):
        for update in range(4):
            expected = pytest.approx(plain[rank]["losses"][update]["one"], rel=1e-5)
            assert shared[rank]["losses"][update]["one"] == expected
        assert shared[rank]["student"] == pytest.approx(plain[rank]["student"], rel=1e-4, abs=1e-5)
        assert shared[rank]["held"] < 0.52 * shared[rank]["whole"]
        assert plain[rank]["held"] == plain[rank]["whole"]
    for two in (plain, shared):
        assert two[0]["students"] == two[1]["students"]
        assert two[0]["losses"] != two[1]["losses"]
    # The gradients of the student alone travel, in one message an update of 4 bytes a trained weight, and of a
    # measurement, as of the router before the first update, an error a row.
    assert plain[0]["messages"] == [["all_reduce", 4 + 2], *[["all_reduce", plain[0]["trained"]]] * 4]
    assert [message for message in shared[0]["messages"] if message[1] > 1] == plain[0]["messages"]
    alone = open_session(read_recipe(recipe), cache="off").errors()
    for two in (plain, shared):
        assert two[0]["errors"] == two[1]["errors"]
        assert two[0]["errors"][0] == pytest.approx(alone, rel=1e-5)
        assert two[0]["measured"] == two[1]["measured"] == list(two[0]["errors"][0].values())
    assert shared[0]["errors"][1] == pytest.approx(plain[0]["errors"][1], rel=1e-4)
    assert plain[0]["errors"][1] != plain[0]["errors"][0]


def test_what_both_need_is_encoded_once(recipe, tmp_path):
    ranks = in_two(recipe, tmp_path / "run", "--on-disk")
    each = [Counter(rank["encoded"]) for rank in ranks]
    first = set(each[0]) & set(each[1])
    assert len(first) <= 2  # the first of each bucket is encoded by both, to know its size
    drawn = set(each[0]) | set(each[1])
    assert len(drawn) > 30
    assert all(len(own) > 5 for own in each)
    again = in_two(recipe, tmp_path / "run", "--on-disk")
    assert [rank["encoded"] for rank in again] == [[], []]
    assert [rank["losses"] for rank in again] == [rank["losses"] for rank in ranks]


def test_a_base_that_cannot_be_shared_is_refused_with_every_fault(recipe):
    read = read_recipe(recipe, ["quantise=int8", "teachers.base.model=shapes"])
    with pytest.raises(InputError) as caught:
        open_session(read, ProcessGroup(), sharded=True)
    text = str(caught.value)
    assert all(word in text for word in ("torchrun", "quantise", "teachers.base.model"))
