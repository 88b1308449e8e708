"""Run by the tests in a Python that has ComfyUI's requirements: the laws of one file of this folder, on a CPU.

Usage: runner.py COMFYUI PACK LAWS [NAME...]. Prints a line of JSON for every law: its name and its traceback or "".
"""

import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType


def bare_package(name: str, folder: Path) -> None:
    """A package of that folder whose __init__ is not run: the pack's would start the server's parts."""
    module = ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def main(comfyui: Path, pack: Path, laws: str, names: list[str]) -> None:
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    import torch

    torch.set_num_threads(1)
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
            print("\n" + json.dumps({"law": name, "fault": fault, "seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
