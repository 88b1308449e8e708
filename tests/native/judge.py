"""Run in a Python that has ComfyUI's requirements: the exact judge on the embedded model in ComfyUI's own network.

judge.py COMFYUI score [--lora NAME ...]   a table of scores, as `danceopd shapes score` for the diffusers pipeline
judge.py COMFYUI demo [--seeds N ...]      the recipe of `danceopd demo` with native teachers, scored before and after
judge.py COMFYUI stock --lora NAME         pictures of stock nodes against those of Sample Student, scored and compared
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "laws"))
from runner import bare_package

ROOT = Path(__file__).parent.parent.parent
EDITOR = "shapes:native_edit"
SEED = 7
"""Of the held-out items."""


def main(args: argparse.Namespace) -> None:
    sys.path.insert(0, str(args.comfyui))
    from comfy.cli_args import args as comfy_args

    comfy_args.cpu = True
    import torch

    torch.set_num_threads(args.threads)
    bare_package("pack", ROOT)
    {"score": score, "demo": demo, "stock": stock}[args.command](args)


def graph_model(weights: str):
    """The MODEL, CLIP and VAE as Load Shapes gives them, and the flow model over them."""
    import torch
    from pack.danceopd_core.recipe.graph import ModelSpec
    from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
    from pack.nodes.native.source import NativeModel

    with torch.inference_mode():  # as a loader node runs
        parts = shapes_model(weights=weights), shapes_clip(), shapes_vae()
    live = NativeModel(*parts, weights)
    return parts, ModelSpec(live.name, live.dtype, live=live)


def kinds(each: dict[str, int]):
    from pack.danceopd_core.shapes.language import KINDS

    return {KINDS[kind]: count for kind, count in each.items() if count}


def score(args: argparse.Namespace) -> None:
    import torch
    from pack.danceopd_core.recipe.graph import ModelSpec
    from pack.danceopd_core.recipe.schema import Teacher
    from pack.danceopd_core.runs.plans.opening import open_teachers
    from pack.danceopd_core.runs.plans.sources import graph_source
    from pack.danceopd_core.shapes.score import HeldOutSet, score_markdown, score_table

    spec = ModelSpec("shapes", "float32") if args.pipeline else graph_model(args.weights)[1]
    source = graph_source(spec, [])
    backbone = source.open(torch.float32, "cpu")
    teachers = {name or "base": Teacher(lora=name, guidance=args.guidance) for name in args.lora or [None]}
    _, fields = open_teachers(teachers, backbone, weights=source.weights)
    held_out = HeldOutSet.of(backbone, kinds({"t2i": args.t2i, "edit": args.edits}), args.items_seed)
    tables = {name: score_table(held_out, list(held_out.generate(backbone, fields[name]))) for name in teachers}
    print(score_markdown(tables))


def demo(args: argparse.Namespace) -> None:
    import comfy.model_management as management
    from pack.danceopd_core.cli.demo import HELD_OUT, STEPS, demo_recipe
    from pack.danceopd_core.recipe.schema import Student
    from pack.danceopd_core.runs.plans.sources import graph_source
    from pack.danceopd_core.runs.training.session import TrainingSession, open_session
    from pack.danceopd_core.shapes.score import HeldOutSet, score_table
    from pack.danceopd_core.weights.adapters import STUDENT

    _, spec = graph_model(args.weights)
    sets: dict[str, HeldOutSet] = {}

    def mean(session: TrainingSession, field: str, kind: str) -> float:
        if kind not in sets:
            sets[kind] = HeldOutSet.of(session.backbone, kinds({kind: HELD_OUT[kind]}), SEED)
        told(f"scoring {field} on {len(sets[kind].items)} held-out items")
        images = list(sets[kind].generate(session.backbone, session.fields[field]))
        return score_table(sets[kind], images)[kind].mean

    sources: dict[str, float] = {}
    for seed in args.seeds:
        out = args.out / f"{args.weights}-{seed}"
        recipe = demo_recipe(out, seed, args.steps or STEPS)
        teachers = {**recipe.teachers, "edit": replace(recipe.teachers["edit"], lora=EDITOR)}
        recipe = replace(recipe, model=spec.folder, dtype=spec.dtype, teachers=teachers, student=Student(start=EDITOR))
        session = open_session(recipe, source=graph_source(spec, []), log=told)
        sources = sources or {"t2i": mean(session, "base", "t2i"), "edit": mean(session, "edit", "edit")}
        management.in_training, began = True, time.perf_counter()
        for result in session.trainer:
            if result.update % 20 == 0:
                told(f"update {result.update}, loss {result.loss:.5f}, {time.perf_counter() - began:.0f} s")
        management.in_training = False
        session.write_student(out / "student.safetensors")
        student = {kind: mean(session, STUDENT, kind) for kind in sources}
        report = {
            "weights": args.weights,
            "seed": seed,
            "steps": recipe.steps,
            "sources": rounded(sources),
            "student": rounded(student),
            "kept": rounded({kind: student[kind] / sources[kind] for kind in sources}),
        }
        print(json.dumps(report), flush=True)


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {kind: round(value, 4) for kind, value in scores.items()}


def stock(args: argparse.Namespace) -> None:
    """Load LoRA, CLIP Text Encode or Text Encode Z-Image Omni, KSampler (euler, simple), VAE Decode; cfg 1."""
    import comfy.sd
    import comfy.utils
    import numpy as np
    import torch
    from comfy_extras.nodes_zimage import TextEncodeZImageOmni
    from pack.danceopd_core.data.csv_rows import Item
    from pack.danceopd_core.recipe.graph import FieldSpec
    from pack.danceopd_core.recipe.schema import Teacher
    from pack.danceopd_core.runs.pictures.field_sampling import SamplingSettings, sample_fields
    from pack.danceopd_core.shapes import locate
    from pack.danceopd_core.shapes.language import Edit, items
    from pack.danceopd_core.shapes.render import render
    from pack.danceopd_core.shapes.score import HeldOutSet, score_markdown, score_table

    import nodes

    (model, clip, vae), spec = graph_model(args.weights)
    (lora,) = args.lora
    every = kinds({"t2i": args.t2i, "edit": args.edits})
    chosen = [item for kind, count in every.items() for item in items(kind, count, args.items_seed)]
    rows = [Item(item.text, render(item.source, 64) if isinstance(item, Edit) else None) for item in chosen]
    field = FieldSpec(spec, "student", ((Teacher(lora=lora), 1.0),))
    with torch.no_grad():
        found = sample_fields(spec, {"student": field}, rows, SamplingSettings(8, 64, 64, 0, "cpu"), Host())
    ours = [(picture * 255).round().to(torch.uint8).numpy() for picture in found["student"]]
    theirs = []
    with torch.inference_mode():
        state = comfy.utils.load_torch_file(str(locate(lora)), safe_load=True)
        patched, _ = comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0)
        for number, row in enumerate(rows):
            if row.source is None:
                (text,) = nodes.CLIPTextEncode().encode(clip, row.prompt)
            else:
                picture = torch.from_numpy(row.source).float()[None] / 255
                text = TextEncodeZImageOmni.execute(clip, row.prompt, None, False, vae, picture).args[0]
            (empty,) = nodes.EmptyLatentImage().generate(64, 64, 1)
            (latent,) = nodes.common_ksampler(patched, number, 8, 1.0, "euler", "simple", text, text, empty)
            theirs.append((nodes.VAEDecode().decode(vae, latent)[0][0] * 255).round().to(torch.uint8).numpy())
    held_out = HeldOutSet(tuple(chosen), None, 0)
    tables = {"Sample Student": score_table(held_out, ours), "KSampler": score_table(held_out, theirs)}
    print(score_markdown(tables))
    apart = [int(np.abs(one.astype(int) - other.astype(int)).max()) for one, other in zip(ours, theirs, strict=True)]
    print(json.dumps({"pictures": len(ours), "largest difference of 255": max(apart), "by picture": apart}))


class Host:
    """No one watches."""

    cancelled = KeyboardInterrupt

    def check(self) -> None: ...
    def progress(self, value, total) -> None: ...
    def preparing(self, done, total) -> None: ...
    def memory_mb(self) -> float:
        return 0.0


def told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="a checkout of ComfyUI")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("score", "demo", "stock"):
        command = commands.add_parser(name)
        command.add_argument("--weights", choices=("float32", "bfloat16", "fp8"), default="float32")
        command.add_argument("--threads", type=int, default=1)
        if name == "demo":
            command.add_argument("--seeds", type=int, nargs="+", default=[0])
            command.add_argument("--steps", type=int)
            command.add_argument("--out", type=Path, default=Path("native-demo"))
        else:
            command.add_argument("--lora", action="append", help="a file or shapes:NAME; may be repeated")
            command.add_argument("--t2i", type=int, default=16, help="held-out captions per category")
            command.add_argument("--edits", type=int, default=16, help="held-out edits per category")
            command.add_argument("--items-seed", type=int, default=SEED)
        if name == "score":
            command.add_argument("--guidance", type=float, default=1.0)
            command.add_argument("--pipeline", action="store_true", help="the diffusers pipeline, for comparison")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
