"""LoRA files, their metadata, and training states: any header is read or refused, and what was written is read."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from danceopd_core.errors import InputError
from danceopd_core.research.soak.inputs import SHAPES
from danceopd_core.runs.files.run_id import same_weights
from danceopd_core.runs.files.train_state import load_state, save_state
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.lora import Lora
from danceopd_core.weights.lora_io import lora_metadata, read_lora, write_lora
from danceopd_core.weights.safetensors_io import open_safetensors

from .texts import TREES, taken

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
KEYS = st.sampled_from(
    ["lora_adapter_metadata", "danceopd", "ss_network_alpha", "ss_network_dim", "alpha", "format", "modelspec.title"]
)
NAMES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "transformer.", "diffusion_model.", "lora_unet_", "base_model.model.", "lora_te_"]),
        st.sampled_from(sorted(SHAPES)) | TEXT,
        st.sampled_from(
            [".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".alpha", ".diff", ""]
        ),
    ),
)
TENSORS = st.sampled_from(
    [
        torch.ones(4, 32), torch.ones(32, 4), torch.tensor(2.0), torch.ones(0, 32), torch.full((4, 32), float("nan")),
        torch.ones(4, 32, dtype=torch.float16), torch.ones(4, 32, dtype=torch.int64), torch.ones(2, 3, 4),
        torch.ones(4, 32, dtype=torch.float8_e4m3fn),
    ]
)  # fmt: skip


@given(
    st.dictionaries(NAMES, TENSORS, max_size=6), st.dictionaries(KEYS | TEXT, TEXT | TREES.map(json.dumps), max_size=3)
)
def test_any_tensors_and_metadata_are_a_lora_or_a_sentence(tmp_path, tensors, metadata):
    (tmp_path / "lora.safetensors").write_bytes(save({k: t.clone() for k, t in tensors.items()}, metadata))
    found = taken(lambda: read_lora(tmp_path / "lora.safetensors", SHAPES))
    if found is not None:
        assert set(found.down) <= SHAPES.keys()
        assert all(torch.isfinite(factor).all() for factor in (*found.down.values(), *found.up.values()))


BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "C64": 64, "I64": 64,
    "U64": 64,
}  # fmt: skip
"""The types of tensors that safetensors knows."""


def raw(path, shapes):
    """A file of zeros. shapes: by name, with the type."""
    header, at = {}, 0
    for name, (dtype, *shape) in shapes.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at := at + size]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return path


@pytest.mark.parametrize("dtype", BITS)
def test_every_type_of_tensor_is_read_or_refused(dtype, tmp_path):
    module = sorted(SHAPES)[0]
    factors = {f"{module}.lora_A.weight": ("F32", 4, 32), f"{module}.lora_B.weight": ("F32", SHAPES[module][0], 4)}
    for name, shape in {"lora_A.weight": (4, 32), "diff": (32, 32), "alpha": (8 if BITS[dtype] < 8 else 1,)}.items():
        file = raw(tmp_path / "lora.safetensors", factors | {f"{module}.{name}": (dtype, *shape)})
        found = taken(lambda file=file: read_lora(file, SHAPES))
        assert found is not None or dtype not in ("F16", "BF16", "F32", "F64")
        assert same_weights(file, file) in (True, False)
        taken(lambda file=file: load_state(file))
    linear = torch.nn.Sequential(torch.nn.Linear(8, 8))
    file = raw(tmp_path / "full.safetensors", {"0.weight": (dtype, 8, 8), "0.bias": (dtype, 8)})
    taken(lambda: load_full_checkpoint(linear, file))


def test_weights_of_other_types_are_other_weights(tmp_path):
    one, other = (
        raw(tmp_path / name, {"a": (dtype, 8)})
        for name, dtype in {"a.safetensors": "F32", "b.safetensors": "F16"}.items()
    )
    assert same_weights(one, one)
    assert not same_weights(one, other)


@pytest.mark.parametrize("alpha", [1e308, -1e308, 1e38])
def test_an_alpha_beyond_float32_is_refused(alpha, tmp_path):
    module = sorted(SHAPES)[0]
    tensors = {
        f"{module}.lora_A.weight": torch.ones(4, 32),
        f"{module}.lora_B.weight": 1e9 * torch.ones(SHAPES[module][0], 4),
    }
    metadata = {"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": alpha})}
    (tmp_path / "lora.safetensors").write_bytes(save(tensors, metadata))
    with pytest.raises(InputError, match="an alpha that makes them infinite"):
        read_lora(tmp_path / "lora.safetensors", SHAPES)


@given(TREES, TREES)
def test_any_settings_beside_a_lora(tmp_path, alphas, more):
    tensors = {}
    for module in SHAPES:
        tensors |= {f"base_model.model.{module}.lora_A.weight": torch.ones(4, 32)}
        tensors |= {f"base_model.model.{module}.lora_B.weight": torch.ones(32, 4)}
    (tmp_path / "adapter_model.safetensors").write_bytes(save(tensors))
    config = {"r": 4, "lora_alpha": more, "alpha_pattern": alphas, "rank_pattern": alphas, "use_rslora": more}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    taken(lambda: read_lora(tmp_path, SHAPES))


@given(TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=3))
def test_metadata_that_was_written_is_read(tmp_path, title, hint, date, extra):
    shape = {module: torch.ones(2, 32) for module in SHAPES}
    lora = Lora(shape, {module: torch.ones(32, 2) for module in SHAPES}, 1.0)
    metadata = lora_metadata(lora, family="zimage", title=title, date=date, usage_hint=hint, steps=3, extra=extra)
    write_lora(tmp_path / "own.safetensors", lora, metadata=metadata)
    with open_safetensors(tmp_path / "own.safetensors") as handle:
        found = handle.metadata()
    assert metadata.items() <= found.items()
    assert not extra or json.loads(found["danceopd"]) == extra


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
STATES = st.dictionaries(
    TEXT,
    st.recursive(
        VALUES | st.builds(lambda n: torch.arange(float(n)), st.integers(0, 5)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


@given(STATES)
def test_a_state_that_was_saved_is_loaded(tmp_path, state):
    save_state(tmp_path / "state.safetensors", state)
    assert same(load_state(tmp_path / "state.safetensors"), state)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_state_with_another_bit_is_refused(tmp_path, at, bit):
    state = {"update": 3, "student": {"a": torch.arange(6.0)}, "samples": {"draw": [3, 0]}}
    save_state(tmp_path / "state.safetensors", state)
    data = bytearray((tmp_path / "state.safetensors").read_bytes())
    data[at % len(data)] ^= 1 << bit
    (tmp_path / "state.safetensors").write_bytes(data)
    found = taken(lambda: load_state(tmp_path / "state.safetensors"))
    assert found is None or same(found, state)  # padding, or the format's own name, say nothing


@given(TREES)
def test_any_header_is_a_state_or_a_sentence(tmp_path, tree):
    (tmp_path / "state.safetensors").write_bytes(save({"0": torch.ones(2)}, {"danceopd_state": json.dumps(tree)}))
    taken(lambda: load_state(tmp_path / "state.safetensors"))
