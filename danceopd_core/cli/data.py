"""`danceopd data`: converts public data sets to training data."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .console import log


def add_arguments(subparsers: Any) -> None:
    sources = subparsers.add_parser("data", help="training data from public data sets")
    omniedit = sources.add_subparsers(dest="data", required=True).add_parser(
        "omniedit", help="OmniEdit's metadata as a CSV with the tasks local_edit and global_edit"
    )
    omniedit.add_argument("metadata", help="a .csv, .json or .jsonl file, or a Hugging Face dataset, owner/name")
    omniedit.add_argument("--out", type=Path, required=True, help="folder for edits.csv and its pictures")
    omniedit.add_argument("--split", default="train", help="split of the dataset")
    omniedit.add_argument("--limit", type=int, help="write no more than this many edits")
    omniedit.add_argument("--min-score", type=float, help="only edits with at least this o_score")
    omniedit.add_argument("--skip-bad", action="store_true", help="leave out rows that cannot be used, and list them")
    omniedit.set_defaults(run_data=_omniedit)


def run(args: Namespace) -> None:
    args.run_data(args)


def _omniedit(args: Namespace) -> None:
    from ..data.omniedit import convert_omniedit

    converted = convert_omniedit(
        args.metadata,
        args.out,
        split=args.split,
        limit=args.limit,
        min_score=args.min_score,
        skip_bad=args.skip_bad,
    )
    for fault in converted.left_out:
        log(f"left out {fault}")
    counts = ", ".join(f"{count} {task}" for task, count in sorted(converted.tasks.items()))
    log(f"wrote {args.out / 'edits.csv'}: {counts}")
