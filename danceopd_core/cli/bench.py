"""`danceopd bench`: compares methods, ablations and operators in the embedded world."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .console import log
from .options import require_research


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("bench", help="methods, ablations and operators compared in the embedded world")
    parser.add_argument("bench", metavar="NAME", help="composition, ablations, operators or turning")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; finished ones are kept")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--each", type=int, default=256, help="held-out items per category")
    parser.add_argument("--brief", type=int, default=32, help="the same for the intermediate points of the curves")
    parser.add_argument("--steps", type=int, default=120, help="updates of a student")
    parser.add_argument("--lr", type=float, default=5e-4, help="Adam's learning rate, the same for every student")
    parser.add_argument("--setting", default="", help="t2i_edit, local_global, three_way, realism; comma-separated")
    parser.add_argument("--only", default="", help="only these rows, comma-separated, e.g. base,joint-few,danceopd")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the frozen transformer")
    parser.add_argument("--jobs", type=int, default=1, help="cells in parallel, which share the processor's cores")
    parser.add_argument("--finished", action="store_true", help="report what is finished by now, and run nothing")
    parser.add_argument("--quick", action="store_true", help="one seed, few items and updates: a smoke test")
    parser.add_argument("--device", default="auto")


def run(args: Namespace) -> None:
    require_research("danceopd bench")
    from ..research.bench.command import run_bench

    run_bench(args, log)
