"""The laws of the native backbone, each file of `laws` in a ComfyUI process of its own; some on a CUDA card too."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from ..comfyui import comfyui_python, comfyui_root

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HELPERS = ("runner", "tiny_models", "card_models", "configs", "diffusers_pairs", "diffusers_backbones")
LONG = ("native_editors",)
"""Of shipped weights alone, which change with a new build."""
CARD = "cuda"
FILES = sorted(file.stem for file in (HERE / "laws").glob("*.py") if file.stem not in (*HELPERS, CARD))
STARTS = {
    (): (),
    ("--disable-dynamic-vram",): (),
    ("--lowvram",): ("test_it_trains_or_is_refused_in_one_sentence",),
    ("--novram",): ("test_it_trains_or_is_refused_in_one_sentence",),
}
"""ComfyUI's start options, and the laws of a card that are tried under them; none: all."""
ON_A_CARD_TOO = ("gradients", "loras", "training")
"""Files whose laws hold on a card as on a CPU; GGUF models have one of their own there."""


def broken(laws, *more):
    """The tracebacks of the laws that do not hold; what is printed beside them is passed on."""
    root = comfyui_root()
    # Without the project on the path: its folder `nodes` would stand in for ComfyUI's module of that name.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [comfyui_python(), HERE / "laws" / "runner.py", root, ROOT, laws, *more],
        capture_output=True,
        text=True,
        cwd=root,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    if skipped := [line["skipped"] for line in lines if "skipped" in line]:
        pytest.skip(skipped[0])
    found = [line for line in lines if "law" in line]
    assert found, "the file holds no law"
    faults = {law["law"]: law["fault"] for law in found if law["fault"]}
    return "\n".join(f"{name}:\n{fault}" for name, fault in faults.items())


@pytest.mark.parametrize(
    "laws", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in FILES]
)
def test_the_laws_hold_in_comfyui(laws):
    faults = broken(laws)
    assert not faults, faults


@pytest.fixture
def card():
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA card, which these laws are about")


@pytest.mark.parametrize("options", STARTS, ids=" ".join)
def test_the_laws_of_a_card_hold(options, card):
    faults = broken(CARD, *STARTS[options], "--card", *options)
    assert not faults, faults


@pytest.mark.parametrize("laws", ON_A_CARD_TOO)
def test_the_laws_hold_on_a_card_too(laws, card):
    faults = broken(laws, "--card")
    assert not faults, faults
