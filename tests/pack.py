"""The pack's modules that know no ComfyUI, imported as ComfyUI imports them: below one package of any name."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
NAME = "danceopd_pack"


def part(name: str) -> ModuleType:
    """`part("nodes.runs")` is that module; its core is `part("danceopd_core....")`, not the installed one."""
    if NAME not in sys.modules:
        package = ModuleType(NAME)
        package.__path__ = [str(ROOT)]
        sys.modules[NAME] = package
    return importlib.import_module(f"{NAME}.{name}")
