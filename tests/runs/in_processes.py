"""As a script, in each of the processes that a launcher starts: trains a recipe and writes what this process saw.

RECIPE OUT [--fsdp] [--on-disk]: OUT/rank0.json and so on have the losses, a digest of the student after every update,
the prompts that the process encoded, every message by its operation and number of elements, and the errors before and
after the training, with those that a balanced router measured.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from danceopd_core.recipe.io import read_recipe
from danceopd_core.runs.encoded import bucket_encoders
from danceopd_core.runs.files import stored_samples
from danceopd_core.runs.training.distributed import join_process_group
from danceopd_core.runs.training.session import open_session


def main(recipe: str, out: str, *flags: str) -> None:
    torch.set_num_threads(1)
    processes, _ = join_process_group("cpu")
    if "--on-disk" in flags:
        stored_samples.SMALL = 0
        stored_samples.CHUNK = 2
    encoded: list[str] = []
    encode = bucket_encoders.encode_items

    def spied(backbone, items, *others):
        encoded.extend(item.prompt for item in items)
        return encode(backbone, items, *others)

    bucket_encoders.encode_items = spied
    session = open_session(read_recipe(recipe), processes, cache=Path(out) / "cache", sharded="--fsdp" in flags)
    errors, measured = [session.errors()], []
    router = session.trainer.router
    learn = getattr(router, "learn", None)

    def heard(update, distances):
        measured.extend(distances)
        learn(update, distances)

    if learn:
        router.learn = heard
    messages: list[tuple[str, int]] = []
    reduce = torch.distributed.all_reduce

    def counted(tensor, *others, **more):
        messages.append(("all_reduce", tensor.numel()))
        return reduce(tensor, *others, **more)

    torch.distributed.all_reduce = counted
    losses, students = [], []
    for result in session.trainer:
        losses.append(result.losses)
        state = session.adapters.state_dict().values()
        students.append(hashlib.sha256(b"".join(part.numpy().tobytes() for part in state)).hexdigest())
    torch.distributed.all_reduce = reduce
    found = {
        "measured": measured,
        "losses": losses,
        "students": students,
        "encoded": encoded,
        "messages": messages,
        "trained": sum(part.numel() for part in session.adapters.parameters()),
        "held": sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in session.backbone.network.parameters()),
        "whole": sum(p.numel() for p in session.backbone.network.parameters()),
        "student": [float(part.double().sum()) for part in session.adapters.state_dict().values()],
    }
    # After that: between a forward without a backward and the next, what lies outside of the blocks stays whole.
    found["errors"] = [*errors, session.errors()]
    (Path(out) / f"rank{processes.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
