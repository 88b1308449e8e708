"""`danceopd bench`: compares methods, ablations and operators in the embedded world."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .console import log
from .options import require_research


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("bench", help="methods, ablations and operators compared in the embedded world")
    kinds = "composition, starts, ablations, operators, turning, speed or peaks"
    parser.add_argument("bench", metavar="NAME", help=kinds)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; finished ones are kept")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--each", type=int, default=256, help="held-out items per category")
    parser.add_argument("--brief", type=int, default=32, help="the same for the intermediate points of the curves")
    parser.add_argument("--steps", type=int, default=120, help="updates of a student")
    parser.add_argument("--lr", default="", help="Adam's learning rate, 5e-4; of single rows too: 5e-4,danceopd=2e-4")
    names = "t2i_edit, t2i_edit_from_local, t2i_edit_from_fresh, local_global, three_way, realism; comma-separated"
    parser.add_argument("--setting", default="", help=names)
    parser.add_argument(
        "--only", default="", help="only these rows, comma-separated, e.g. base,joint-few,danceopd; of peaks: models"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the frozen transformer")
    parser.add_argument("--jobs", type=int, default=1, help="cells in parallel, which share the processor's cores")
    parser.add_argument("--finished", action="store_true", help="report what is finished by now, and run nothing")
    parser.add_argument("--quick", action="store_true", help="one seed, few items and updates: a smoke test")
    parser.add_argument("--device", default="auto")
    speed = parser.add_argument_group("speed", "an update's time beside the official trainer's and the bare network's")
    speed.add_argument("--official", type=Path, help="a checkout of worldbench/DanceOPD to compare with")
    speed.add_argument("--size", default="small", help="small (8 million parameters) or medium (as SD3.5 medium)")
    speed.add_argument("--pixels", type=int, default=256, help="of a side")
    speed.add_argument("--accumulate", type=int, default=4, help="micro-steps of an update, of one sample each")
    speed.add_argument("--updates", type=int, default=2, help="updates of each trainer in a repeat")
    speed.add_argument("--repeats", type=int, default=5)
    speed.add_argument("--threads", type=int, default=1, help="of the processor")
    speed.add_argument("--compile", action="store_true", help="time ours with compiled blocks too")
    speed.add_argument("--profile", action="store_true", help="also how much of an update a GPU is busy")
    speed.add_argument("--checkpointing", action="store_true", help="for ours too; the official trainer always has it")
    peaks = parser.add_argument_group("peaks", "updates at the size of released models, on an NVIDIA GPU")
    peaks.add_argument("--limits", action="store_true", help="also what `memory: auto` chooses, on limited memory")
    peaks.add_argument("--within", type=float, default=3600, metavar="SECONDS", help="after which no case begins")


def run(args: Namespace) -> None:
    require_research("danceopd bench")
    if args.bench == "speed":
        import torch

        from ..research.speed.command import run_speed

        torch.set_num_threads(args.threads)
        run_speed(args, log)
        return
    if args.bench == "peaks":
        from ..research.peaks.command import run_peaks

        run_peaks(args, log)
        return
    from ..research.bench.command import run_bench

    run_bench(args, log)
