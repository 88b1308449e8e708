"""The cases on the dummy CUDA device, some of them on the CPU as well, in a process of their own.

    python -m tests.device.trainings LIBRARY FOLDER FAMILY...

prints a line of JSON for each training.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from .dummy_cuda import install

if __name__ == "__main__":
    DEVICE = install(Path(sys.argv[1]))

import torch

from .cases import HELD, Family, cases_of, outcome, small_sources


def main(folder: Path, families: list[str]) -> None:
    torch.set_num_threads(1)
    for name in families:
        family = Family(name, folder / name)
        for case in cases_of(name):
            for device, on in (("cuda", DEVICE), *([("cpu", None)] if case in HELD else ())):
                found: dict[str, object] = {"family": name, "case": case, "device": device}
                try:
                    found |= outcome(family, case, device, on)
                except Exception:
                    found["failed"] = traceback.format_exc()
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    with small_sources():
        main(Path(sys.argv[2]), sys.argv[3:])
