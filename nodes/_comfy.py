"""The border to ComfyUI: the only module here that imports it."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.utils
import folder_paths
import numpy as np
import psutil
import torch
from comfy.cli_args import args
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..danceopd_core.data.cache_folder import FOLDER
from ..danceopd_core.data.folder_rows import CAPTION
from ..danceopd_core.errors import InputError, encodable, shown
from ..danceopd_core.files import write_bytes
from ..danceopd_core.runs.live.live_status import LiveStatus, RunRegistry
from ..danceopd_core.shapes import embedded, is_embedded

__all__ = ["RUNS", "ComfyExtension", "PromptServer", "io", "ui"]

RUNS = RunRegistry()
NONE = "none"
EVENT = "danceopd.step"
WILDCARDS = "wildcards"
BEAT = 10.0  # seconds; a client that hears nothing for two minutes gives the prompt up


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def readable_folders() -> tuple[Path, ...]:
    """Where the files that a table names have to lie: ComfyUI's input, output and temp folders."""
    folders = folder_paths.get_input_directory, folder_paths.get_output_directory, folder_paths.get_temp_directory
    return tuple(Path(folder()) for folder in folders)


def encoding_cache() -> str:
    """Where encoded prompts are kept between runs: what the environment says, else a folder that no page is shown."""
    return os.environ.get(FOLDER) or folder_paths.get_system_user_directory("danceopd_cache")


def device_name() -> str:
    return str(management.get_torch_device())


def dtype_name(chosen: str, folder: str) -> str:
    """The widget's choice; "auto" is bfloat16 if the device supports it, and float32 for the embedded model."""
    if chosen != "auto":
        return chosen
    device = management.get_torch_device()
    fast = device.type != "cpu" and management.should_use_bf16(device)
    return "bfloat16" if fast and not is_embedded(folder) else "float32"


def schedulers() -> list[str]:
    """The names of ComfyUI's schedulers, and that of Flux2Scheduler (`native.schedules`)."""
    from comfy.samplers import SCHEDULER_NAMES

    return [*SCHEDULER_NAMES, "flux2"]


# What the combos offer, and the file that a choice means. A workflow can carry any text, so a choice that is
# not offered now is refused, whatever the server's own validation did.


def model_choices() -> dict[str, str]:
    """The embedded model, and the diffusers pipeline folders below ComfyUI's model folders."""
    folders = {"shapes": "shapes"}
    for root in folder_paths.get_folder_paths("diffusers"):
        for folder, below, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                folders.setdefault(os.path.relpath(folder, root).replace(os.sep, "/"), folder)
                below.clear()
    return folders


def lora_choices() -> dict[str, str | None]:
    names = [name for name in embedded() if name not in ("shapes", "shapes:realism")]
    return {NONE: None} | {name: name for name in names} | _weights("loras")


def checkpoint_choices() -> dict[str, str | None]:
    """Single files, and the transformers of diffusers folders."""
    parts = {name: name for name in embedded() if name == "shapes:realism"}
    folders = {
        f"{name}/transformer": str(Path(folder) / "transformer")
        for name, folder in model_choices().items()
        if not is_embedded(folder)
    }
    return {NONE: None} | parts | folders | _weights("diffusion_models")


def diffusion_choices() -> dict[str, str | None]:
    """Single files of transformers."""
    return {NONE: None} | _weights("diffusion_models")


TABLES = (".csv", ".jsonl")


def csv_choices() -> dict[str, str]:
    """The tables in the input folder, CSV and JSONL, and its folders with captions, whose names end in /."""
    root = Path(folder_paths.get_input_directory())
    found: dict[str, str] = {}
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root).as_posix()
        if file.suffix.lower() in TABLES:
            found[name] = str(file)
        elif file.suffix.lower() == CAPTION and file.parent not in (root, root / WILDCARDS):
            found.setdefault(f"{file.parent.relative_to(root).as_posix()}/", str(file.parent))
    return found


def wildcard_files() -> str | None:
    """The folder of wildcards in the input folder, if there is one."""
    folder = Path(folder_paths.get_input_directory()) / WILDCARDS
    return str(folder) if folder.is_dir() else None


def chosen(choices: dict[str, Any], name: str, widget: str) -> Any:
    """What the choice means; InputError for one that is not offered."""
    if name not in choices:
        raise InputError(f"{widget}: '{name}' is not in ComfyUI's folders: choose one of the list")
    return choices[name]


def stamp(*paths: str | None) -> str:
    """Changes when one of the files does, or one in one of the folders, for `fingerprint_inputs`."""
    found = [(path, entry) for path in paths if path for entry in _entries(Path(path))]
    return repr([(path, entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for path, entry in found])


def size_of(table: Path) -> int:
    """The bytes of a table, or of the tables and captions of a folder."""
    return sum(file.stat().st_size for file in _entries(table) if file.suffix.lower() in (*TABLES, CAPTION))


def _entries(path: Path) -> list[Path]:
    return sorted(file for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file())


def _weights(kind: str) -> dict[str, str]:
    names = [name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(".safetensors")]
    paths = {name: folder_paths.get_full_path(kind, name) for name in names}
    return {name: path for name, path in paths.items() if path}


def as_arrays(images: Tensor | None, widget: str) -> tuple[np.ndarray, ...]:
    """An IMAGE batch (B, H, W, C) in [0, 1] as uint8 RGB pictures."""
    if images is None:
        return ()
    if not torch.isfinite(images).all():
        raise InputError(f"{widget}: the pictures hold NaN or infinity: look at the node that makes them")
    rgb = images[..., :3].detach().float().cpu().clamp(0, 1)
    return tuple((picture * 255).round().to(torch.uint8).numpy().copy() for picture in rgb)


def as_image(picture: Image.Image) -> Tensor:
    """A picture as an IMAGE batch (1, H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).float()[None] / 255


def lora_file(lora: dict[str, Tensor]) -> Path:
    """A LORA_MODEL as a file named by its contents, in the folder that ComfyUI empties."""
    from safetensors.torch import save

    data = save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in lora.items()})
    path = Path(folder_paths.get_temp_directory()) / f"danceopd-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    write_bytes(path, data)
    return path


@contextmanager
def workspace(training: bool) -> Iterator[None]:
    """Frees memory before and after, enables gradients while training, and restores ComfyUI's modes.

    ComfyUI runs every node in inference mode: weights loaded there could never be trained through.
    """
    before = management.in_training
    management.unload_all_models()
    management.soft_empty_cache()
    management.in_training = training
    try:
        with torch.inference_mode(False), torch.set_grad_enabled(training):
            yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they hold the models as long as the error is handled
        if isinstance(error, Exception) and management.is_oom(error):
            raise RuntimeError(
                "out of memory: set gradient_checkpointing, or lower batch, or width and height "
                f"(the device reported: {str(error).splitlines()[0]})"
            ) from None
        raise
    finally:
        management.in_training = before
        gc.collect()
        management.soft_empty_cache()


class ComfyHost:
    """A node at work, as ComfyUI sees it."""

    cancelled = management.InterruptProcessingException

    def __init__(self, node: str, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(total, node)

    def check(self) -> None:
        management.throw_exception_if_processing_interrupted()

    def progress(self, value: int, total: int) -> None:
        self._bar.update_absolute(value, total)

    def preparing(self, done: int, total: int) -> None:
        self._bar.update_absolute(done, total)

    def memory_mb(self) -> float:
        """What the device holds, or the process on a CPU."""
        device = management.get_torch_device()
        if device.type == "cuda":
            return torch.cuda.memory_reserved(device) / 1e6
        return psutil.Process().memory_info().rss / 1e6


def blocked(message: str) -> ExecutionBlocker:
    """In place of an output: the nodes that use it do not run, and show the message; all others do."""
    return ExecutionBlocker(message)


def send(data: dict[str, Any]) -> None:
    """Sends a status to every page, and stores it for pages that are loaded later."""
    RUNS.store(data)
    if server := current_server():
        server.send_sync(EVENT, data)


def current_server() -> Any:
    """The server, once there is one."""
    return vars(PromptServer).get("instance")


def other_origins() -> bool:
    """Whether the server was started to take requests of pages of other origins."""
    return bool(args.enable_cors_header)


def show_text(text: str, node: str | None) -> None:
    """Text on the node itself."""
    if node and encodable(node) and (server := current_server()):
        server.send_progress_text(shown(text), node)


def display_node(node: str) -> str:
    """The node that the person sees, for one that another node expanded into."""
    prompt = get_progress_state().dynprompt
    return prompt.get_display_node_id(node) if prompt.has_node(node) else node


@contextmanager
def heartbeat(status: LiveStatus) -> Iterator[None]:
    """Sends the status at intervals, so that no client takes a long load for a hang."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            send(status.data)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
