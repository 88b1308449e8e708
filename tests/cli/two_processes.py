"""Trains a recipe and writes, per process, what each update did and a hash of the weights after it."""

import hashlib
import json
import sys
from pathlib import Path

from danceopd_core.recipe.io import read_recipe
from danceopd_core.runs.distributed import join_process_group
from danceopd_core.runs.session import open_session

recipe = read_recipe(sys.argv[1])
processes, _ = join_process_group("cpu")
run = open_session(recipe, processes)
updates = []
for result in run.trainer:
    digest = hashlib.sha256()
    for tensor in run.adapters.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    updates.append({"routes": list(result.losses), "losses": result.losses, "weights": digest.hexdigest()})
Path(sys.argv[1]).with_name(f"rank{processes.rank}.json").write_text(json.dumps({"updates": updates}))
