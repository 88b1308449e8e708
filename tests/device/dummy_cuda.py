"""The Python side of the dummy "cuda" device: `install` before torch is imported, in a process of its own."""

from __future__ import annotations

import ctypes
import subprocess
import time
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

SOURCE = Path(__file__).with_suffix(".cpp")


def build(folder: Path, compiler: str) -> Path:
    """The compiled device in a folder; RuntimeError with what the compiler says if it cannot be built."""
    import torch

    root, library = Path(torch.__file__).parent, folder / "dummy_cuda.so"
    include = root / "include"
    command = [compiler, "-O1", "-std=c++20", "-shared", "-fPIC", f"-I{include}", f"-I{include}/torch/csrc/api/include"]
    command += [SOURCE, "-o", library, f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{root / 'lib'}"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return library


class Device:
    """Counters of the device. waits: what the host waited for since `restart`, by reason and line of the project."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("live", "peak"):
            getattr(library, f"dummy_{name}").restype = ctypes.c_int64
        library.dummy_limit.argtypes = (ctypes.c_int64,)
        library.dummy_pin.argtypes = library.dummy_unpin.argtypes = (ctypes.c_void_p,)
        self.waits: Counter[str] = Counter()
        self._hear = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(self._heard)  # kept: C calls it
        library.dummy_hear(self._hear)

    def _heard(self, what: bytes) -> None:
        self.waits[f"{what.decode()} in {_line()}"] += 1

    def waited_for(self, what: str) -> None:
        self.waits[f"{what} in {_line()}"] += 1

    def restart(self) -> None:
        self.waits.clear()
        self.library.dummy_restart()

    @property
    def live(self) -> int:
        return self.library.dummy_live()

    @property
    def peak(self) -> int:
        return self.library.dummy_peak()

    def limit(self, size: int) -> None:
        """Allocations beyond so many bytes fail from now on; 0: none."""
        self.library.dummy_limit(size)


def _line() -> str:
    """The innermost line of the project that runs."""
    for frame in reversed(traceback.extract_stack()):
        if "danceopd_core" in frame.filename:
            return f"{frame.filename.rpartition('danceopd_core/')[2]}, {frame.name}"
    return "a thread of torch"


def install(library: Path, free: int = 2**34) -> Device:
    """Makes this process one with a CUDA device of so much memory; torch must not have been imported yet."""
    device = Device(ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL))
    import torch

    class Event:
        def __init__(self, **_: object) -> None:
            self.seconds = 0.0

        def record(self, stream: object = None) -> None:
            self.seconds = time.perf_counter()

        def elapsed_time(self, end: Event) -> float:
            return 1000 * (end.seconds - self.seconds)

        def synchronize(self) -> None:
            device.waited_for("an event")

    class Context:
        def __init__(self, _: object) -> None: ...
        def __enter__(self) -> Context:
            return self

        def __exit__(self, *_: object) -> None: ...

    def register(address: int, size: int, flags: int) -> int:
        device.library.dummy_pin(address)
        return 0

    # What torch's own module asks of the CUDA build that this one is not.
    for name, answer in {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "synchronize": lambda _=None: device.waited_for("the device"),
        "is_bf16_supported": lambda *_: True,
        "get_rng_state": lambda _=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda _=None: (free - device.live, free),
        "memory_reserved": lambda _=None: device.live,
        "memory_allocated": lambda _=None: device.live,
        "current_stream": lambda _=None: None,
        "cudart": lambda: SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=device.library.dummy_unpin),
        "Event": Event,
        "device": Context,
    }.items():
        setattr(torch.cuda, name, answer)

    fused = torch.nn.functional.scaled_dot_product_attention

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if not query.is_cuda:
            return fused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -torch.inf)
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        one = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # of one operation, as CUDA's are
        return one(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]

    torch.nn.functional.scaled_dot_product_attention = attention
    return device
