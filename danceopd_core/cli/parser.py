"""The headless commands. Bad input is one message and exit status 2, with nothing written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError

PARTS = "weights of a part of the model in one file, as ComfyUI has them: transformer=FILE, vae=FILE, text_encoder=FILE"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="danceopd", description="Distils many image-generation capabilities into one LoRA."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="the whole method in minutes on a CPU, in the embedded world")
    demo.add_argument("--out", type=Path, default=Path("danceopd-demo"), help="folder for the results")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--steps", type=int, help="updates instead of the demo's own number")

    train = commands.add_parser("train", help="train what a recipe file describes")
    train.add_argument("recipe", type=Path)
    train.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optimizer.lr=1e-4 steps=500")
    train.add_argument("--resume", action="store_true", help="go on with the run in the recipe's 'out' folder")
    train.add_argument("--dry-run", action="store_true", help="check everything, open no model, write nothing")

    memory = commands.add_parser("memory", help="what a recipe's weights will take, without reading any")
    memory.add_argument("recipe", type=Path, nargs="?")
    memory.add_argument("overrides", nargs="*", metavar="key=value")
    memory.add_argument("--like", metavar="NAME", help="a table for a released model's shape: zimage or sd35m")

    recipes = commands.add_parser("recipes", help="the paper's recipes: a list, or one of them to fill in")
    recipes.add_argument("name", nargs="?", help="of the recipe to print, e.g. into recipe.yaml")
    recipes.add_argument("--reference", action="store_true", help="every setting of a recipe, as Markdown")
    recipes.add_argument("--fast", action="store_true", help="with 8 rollout steps, nearly as good in the paper")

    sample = commands.add_parser("sample", help="a picture from a model and a LoRA")
    sample.add_argument("prompt")
    sample.add_argument("--model", default="shapes", help="'shapes' (embedded), a diffusers folder or Hugging Face id")
    sample.add_argument("--component", action="append", default=[], metavar="PART=FILE", help=PARTS)
    sample.add_argument("--lora", help="a LoRA file, or 'shapes:NAME'")
    sample.add_argument("--strength", type=float, default=1.0)
    sample.add_argument("--source", type=Path, help="picture to edit")
    sample.add_argument("--steps", type=int, default=8)
    sample.add_argument("--guidance", type=float, default=1.0)
    sample.add_argument("--negative", default="")
    sample.add_argument("--width", type=int)
    sample.add_argument("--height", type=int)
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--device", default="auto")
    sample.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    sample.add_argument("--out", type=Path, default=Path("sample.png"))

    told = "pictures of a benchmark's prompts where its official scorer reads them"
    evaluation = commands.add_parser("eval", help=told).add_subparsers(dest="eval", required=True)
    geneval = evaluation.add_parser("geneval", help="GenEval, text-to-image")
    geneval.add_argument("prompts", type=Path, help="its evaluation_metadata.jsonl")
    geneval.add_argument("--samples", type=int, default=4, help="pictures a prompt")
    geneval.add_argument("--width", type=int)
    geneval.add_argument("--height", type=int)
    geneval.add_argument("--only", default="", help="prompts of these tags, by commas, e.g. counting,position")
    gedit = evaluation.add_parser("gedit", help="GEdit-Bench, edits")
    gedit.add_argument("source", help="a .csv, .json, .jsonl or .parquet file, a folder, or stepfun-ai/GEdit-Bench")
    gedit.add_argument("--name", required=True, help="what the scorer is to call the model: the folder in --out")
    gedit.add_argument("--language", default="en", choices=("en", "cn", "all"))
    gedit.add_argument("--tasks", default="", help="of these task types, by commas; 'paper' for DanceOPD's six")
    gedit.add_argument("--pixels", type=int, default=1024 * 1024, help="larger sources are made smaller, to so many")
    for benchmark in (geneval, gedit):
        benchmark.add_argument("--out", type=Path, required=True, help="folder; what is finished there is kept")
        benchmark.add_argument("--model", required=True, help="'shapes', a diffusers folder or Hugging Face id")
        benchmark.add_argument("--component", action="append", default=[], metavar="PART=FILE", help=PARTS)
        benchmark.add_argument("--lora", help="a LoRA file, or 'shapes:NAME'")
        benchmark.add_argument("--strength", type=float, default=1.0)
        benchmark.add_argument("--steps", type=int, default=28)
        benchmark.add_argument("--guidance", type=float, default=1.0)
        benchmark.add_argument("--negative", default="")
        benchmark.add_argument("--seed", type=int, default=0)
        benchmark.add_argument("--batch", type=int, default=4, help="pictures at once")
        benchmark.add_argument("--limit", type=int, help="no more than this many prompts")
        benchmark.add_argument("--device", default="auto")
        benchmark.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))

    bench = commands.add_parser("bench", help="methods, ablations and operators compared in the embedded world")
    bench.add_argument("bench", metavar="NAME", help="composition, ablations, operators or turning")
    bench.add_argument("--out", type=Path, required=True, help="folder of the results; what is finished there is kept")
    bench.add_argument("--seeds", default="0,1,2")
    bench.add_argument("--each", type=int, default=256, help="held-out items a category")
    bench.add_argument("--brief", type=int, default=32, help="the same for the points of the curves on the way")
    bench.add_argument("--steps", type=int, default=120, help="updates of a student")
    bench.add_argument("--lr", type=float, default=5e-4, help="Adam's rate, the same for every student")
    bench.add_argument("--setting", default="", help="t2i_edit, local_global, three_way, realism; several by commas")
    bench.add_argument("--only", default="", help="these rows only, by commas, e.g. base,joint-few,danceopd")
    bench.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the frozen transformer")
    bench.add_argument("--jobs", type=int, default=1, help="cells at a time, which share the processor's cores")
    bench.add_argument("--finished", action="store_true", help="report what is finished by now, and run nothing")
    bench.add_argument("--quick", action="store_true", help="one seed, few items and updates: a smoke test")
    bench.add_argument("--device", default="auto")

    data = commands.add_parser("data", help="training data from elsewhere").add_subparsers(dest="data", required=True)
    omniedit = data.add_parser("omniedit", help="OmniEdit's metadata as a CSV with local_edit and global_edit")
    omniedit.add_argument("metadata", help="a .csv, .json or .jsonl file, or a Hugging Face dataset, owner/name")
    omniedit.add_argument("--out", type=Path, required=True, help="folder for edits.csv and its pictures")
    omniedit.add_argument("--split", default="train", help="split of the dataset")
    omniedit.add_argument("--limit", type=int, help="write no more than this many edits")
    omniedit.add_argument("--min-score", type=float, help="only edits with at least this o_score")
    omniedit.add_argument("--skip-bad", action="store_true", help="leave out rows that cannot be used, and tell them")

    shapes = commands.add_parser("shapes", help="the embedded world").add_subparsers(dest="shapes", required=True)
    build = shapes.add_parser("build", help="make the embedded model again from a seed; resumable")
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--device", default="auto")
    build.add_argument("--only", nargs="*", help="these stages only")
    score = shapes.add_parser("score", help="the judge's table for a model or LoRA")
    score.add_argument("--model", default="shapes")
    score.add_argument("--component", action="append", default=[], metavar="PART=FILE", help=PARTS)
    score.add_argument("--lora", action="append", default=[], help="a file or 'shapes:NAME'; may be repeated")
    score.add_argument("--checkpoint", help="a full checkpoint, or 'shapes:realism'")
    score.add_argument("--guidance", type=float, default=1.0)
    score.add_argument("--each", type=int, default=64, help="held-out items a category")
    score.add_argument("--seeds", type=int, nargs="+", default=[0])
    score.add_argument("--steps", type=int, default=8)
    score.add_argument("--size", type=int, default=64)
    score.add_argument("--style", choices=("flat", "shaded"), help="score the style instead of the content")
    score.add_argument("--json", type=Path, help="write the table there too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if args.command == "train":
        # argparse takes no positional after an option; people write overrides anywhere.
        args.overrides += [word for word in rest if "=" in word and not word.startswith("-")]
        rest = [word for word in rest if word not in args.overrides]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # Imported when chosen: torch takes seconds, and --help should not.
    from ..cli import commands

    commands.quiet()
    try:
        getattr(commands, args.command)(args)
    except InputError as error:
        print(f"danceopd: {error}", file=sys.stderr)
        return 2
    except commands.Diverged as error:
        print(f"danceopd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("danceopd: stopped", file=sys.stderr)
        return 130
    return 0
