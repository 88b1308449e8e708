"""Run by the tests in a Python that has ComfyUI's requirements: the laws of one file of this folder.

Usage: runner.py COMFYUI PACK LAWS [NAME...] [--card [OPTION...]]. Prints a line of JSON for every law: its name and its
traceback or "". On a CPU; after --card on the card that torch finds, as a server with these start options uses it, or
a line of JSON says why that is skipped.
"""

import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

CARD = "--card"


def bare_package(name: str, folder: Path) -> None:
    """A package of that folder whose __init__ is not run: the pack's would start the server's parts."""
    module = ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def on_the_cpu() -> None:
    from comfy.cli_args import args

    args.cpu = True
    import torch

    torch.set_num_threads(1)


def on_the_card(options: list[str]) -> bool:
    """Whether there is one. As main.py starts, without the server: its allocator, its options, dynamic VRAM."""
    sys.argv = ["main.py", *options]
    import comfy.options

    comfy.options.enable_args_parsing()
    importlib.import_module("cuda_malloc")
    import torch

    if not (torch.cuda.is_available() or "--cpu" in options):
        return False
    importlib.import_module("main")
    return True


def main(comfyui: Path, pack: Path, laws: str, names: list[str], options: list[str] | None) -> None:
    sys.path[0] = str(comfyui)  # in the place of this folder, whose names others have too
    if options is None:
        on_the_cpu()
    elif not on_the_card(options):
        print(json.dumps({"skipped": "torch finds no CUDA card"}))
        return
    bare_package("pack", pack)
    bare_package("pack_tests", pack / "tests")
    bare_package("pack_laws", pack / "tests" / "native" / "laws")
    module = importlib.import_module(f"pack_laws.{laws}")
    for name, law in vars(module).items():
        if name.startswith("test_") and law.__module__ == module.__name__ and (not names or name in names):
            start, fault = time.perf_counter(), ""
            try:
                law()
            except Exception:
                fault = traceback.format_exc()
            seconds = round(time.perf_counter() - start, 1)
            print("\n" + json.dumps({"law": name, "fault": fault, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    given = sys.argv[4:]
    at = given.index(CARD) if CARD in given else len(given)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], given[:at], given[at + 1 :] if CARD in given else None)
