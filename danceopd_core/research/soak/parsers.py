"""Hostile files for every function that reads what others made: one attack a function, one file a seed.

An attack writes its files to an empty folder and reads them. It returns where they were taken, and raises InputError
where they were refused.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

from ...errors import InputError
from . import inputs
from .mutation import mutated_bytes, mutated_safetensors, mutated_tree

Attack = Callable[[Path, Random], None]


class Different(Exception):
    """What was read, written and read again is another thing."""


def recipe(folder: Path, rng: Random) -> None:
    import yaml

    from ...recipe.io import read_recipe, write_recipe

    _put(folder / "table.csv", inputs.TABLE)
    _put(folder / "picture.png", inputs.picture("PNG"))
    if rng.random() < 0.4:
        _put(folder / "recipe.yaml", mutated_bytes(inputs.RECIPE.encode(), rng))
    else:
        tree = mutated_tree(yaml.safe_load(inputs.RECIPE), rng)
        _put(folder / "recipe.yaml", json.dumps(tree) if rng.random() < 0.5 else _yaml(tree))
    overrides = [mutated_bytes(b"optimizer.lr=1e-4", rng).decode(errors="surrogateescape")] * (rng.random() < 0.2)
    found = read_recipe(folder / "recipe.yaml", overrides)
    write_recipe(folder / "again.yaml", found, ["a note\x1b \ud800"])
    if read_recipe(folder / "again.yaml").digest() != found.digest():
        raise Different("the recipe")


def table(folder: Path, rng: Random) -> None:
    from ...data.csv_rows import read_csv
    from ...data.images import picture_fault

    _put(folder / "picture.png", inputs.picture("PNG"))
    _put(folder / "table.csv", mutated_bytes(inputs.TABLE.encode(), rng))
    for item in read_csv(folder / "table.csv", roots=(folder,)):
        for picture in (item.source, item.target):
            if isinstance(picture, Path):
                if not picture.resolve().is_relative_to(folder.resolve()):
                    raise Different(f"{picture} lies outside")
                picture_fault(picture)


def rows(folder: Path, rng: Random) -> None:
    from ...data.metadata_rows import metadata_rows

    suffix = rng.choice((".jsonl", ".csv", ".json"))
    whole = {".jsonl": inputs.ROWS, ".csv": inputs.TABLE, ".json": f"[{','.join(inputs.ROWS.splitlines())}]"}
    _put(folder / f"rows{suffix}", mutated_bytes(whole[suffix].encode(), rng))
    for row in metadata_rows(str(folder / f"rows{suffix}")):
        str(row.fault)


def lora(folder: Path, rng: Random) -> None:
    from ...weights.lora_io import read_lora

    layout = rng.choice(("peft", "diffusers", "kohya"))
    _put(folder / "lora.safetensors", mutated_safetensors(inputs.lora(layout), rng))
    read_lora(folder / "lora.safetensors", inputs.SHAPES)


def lora_folder(folder: Path, rng: Random) -> None:
    from ...weights.lora_io import read_lora

    _put(folder / "adapter_model.safetensors", inputs.lora("peft", described=False))
    config = {"r": 4, "lora_alpha": 8, "target_modules": "to_q|to_k", "rank_pattern": {"to_q": 4}, "alpha_pattern": {}}
    _put(folder / "adapter_config.json", json.dumps(mutated_tree(config, rng)))
    read_lora(folder, inputs.SHAPES)


def state(folder: Path, rng: Random) -> None:
    from ...runs.files.train_state import load_state, save_state

    save_state(folder / "whole.safetensors", inputs.state())
    whole = (folder / "whole.safetensors").read_bytes()
    _put(folder / "state.safetensors", mutated_safetensors(whole, rng))
    load_state(folder / "state.safetensors")


def bucket(folder: Path, rng: Random) -> None:
    import torch
    from safetensors.torch import save

    from ...data.encoded_bucket import read_encoded

    described = json.dumps({"format": "danceopd conditioning 1", "label": "given"})
    tensors = {"positive/0/-/text": torch.ones(3, 4), "positive/0/0/latents": torch.ones(1, 4, 2, 2)}
    data = save(tensors, {"danceopd_bucket": described})
    _put(folder / "bucket.safetensors", mutated_safetensors(data, rng))
    read_encoded(folder / "bucket.safetensors")


def run_folder(folder: Path, rng: Random) -> None:
    from ...runs.live.history_pages import history_page, json_pieces
    from ...runs.stored.records import RunRecord

    record = RunRecord(folder, "run")
    _put(record.path / "history.jsonl", mutated_bytes(inputs.HISTORY.encode(), rng))
    _put(record.path / "status.json", json.dumps(mutated_tree(inputs.STATUS, rng)))
    _put(record.path / "identity.json", json.dumps(mutated_tree({"version": 2, "recipe": "x", "steps": 3}, rng)))
    record.status()
    record.identity()
    page = history_page(record.path, rng.choice((0, 2, 9)), rng.choice((None, 1, 3)))
    json.loads(json_pieces(page.to_dict()))


def model_folder(folder: Path, rng: Random) -> None:
    from ...runs.plans.sources import FolderSource
    from ...shapes import MODEL

    files = sorted(path for path in MODEL.rglob("*.json") if "loras" not in path.parts and path.is_file())
    for path in files:
        _put(folder / path.relative_to(MODEL), path.read_bytes())
    for path in MODEL.rglob("*.safetensors"):
        if "loras" not in path.parts:
            (folder / path.relative_to(MODEL)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(MODEL)).symlink_to(path)
    chosen = rng.choice(files)
    text = json.dumps(mutated_tree(json.loads(chosen.read_bytes()), rng)).encode()
    _put(folder / chosen.relative_to(MODEL), text if rng.random() < 0.7 else mutated_bytes(text, rng))
    faults = FolderSource(str(folder)).facts().faults
    if faults:
        raise InputError(faults=faults)


def picture(folder: Path, rng: Random) -> None:
    from ...data.images import open_picture, picture_fault

    kind = rng.choice(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))
    file = folder / f"picture.{kind.lower()}"
    _put(file, mutated_bytes(inputs.picture("PNG" if kind == "PNG" else kind), rng))
    fault = picture_fault(file)
    try:
        open_picture(file, 16, 16)
    except InputError as error:
        if not fault:
            raise Different(f"the check passed what the run refuses: {error}") from error
        raise
    if fault:
        raise Different(f"the check refused what the run takes: {fault}")


def special_file(folder: Path, rng: Random) -> None:
    """A FIFO, a socket, a device, a folder or nothing at all in place of a file."""
    from ...data.csv_rows import read_csv
    from ...data.images import open_picture
    from ...recipe.io import read_recipe
    from ...runs.files.train_state import load_state
    from ...weights.lora_io import read_lora

    path = folder / "special"
    kind = rng.choice(("fifo", "socket", "device", "folder", "nothing", "link"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to(rng.choice(("/dev/zero", "/dev/tty", "/dev/full")))
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path)
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_recipe(path),
        lambda: read_csv(path),
        lambda: open_picture(path, 16, 16),
        lambda: load_state(path),
        lambda: read_lora(path, inputs.SHAPES),
    )
    rng.choice(readers)()
    raise Different(f"a {kind} was read as a file")


ATTACKS: dict[str, Attack] = {
    "recipe": recipe,
    "table": table,
    "rows": rows,
    "lora": lora,
    "lora folder": lora_folder,
    "state": state,
    "bucket": bucket,
    "run folder": run_folder,
    "model folder": model_folder,
    "picture": picture,
    **({"special file": special_file} if hasattr(os, "mkfifo") else {}),  # not on Windows
}


def _yaml(tree: object) -> str:
    import yaml

    try:
        return yaml.safe_dump(tree)
    except RecursionError:
        return json.dumps(tree)


def _put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
