"""Every name of ComfyUI that the pack uses is there: a release that moved one is told apart from a fault of ours."""

import ast
import importlib
from pathlib import Path

import pack

NODES = Path(pack.__path__[0]) / "nodes"
OURS = [NODES / "_comfy.py", *sorted((NODES / "native").glob("*.py"))]
THEIRS = (
    "comfy", "comfy_extras", "comfy_api", "comfy_execution", "comfy_kitchen", "folder_paths", "server", "node_helpers",
)  # fmt: skip
ATTRIBUTES = {
    "comfy.model_patcher.ModelPatcher": (
        "clone", "get_model_object", "is_dynamic", "pre_run", "model_options", "wrappers", "callbacks", "load_device",
        "cached_patcher_init", "memory_required", "model_size",
        "patches_uuid", "partially_unload", "detach",
    ),
    "comfy.model_base.BaseModel": (
        "apply_model", "extra_conds", "process_latent_in", "process_latent_out", "diffusion_model", "latent_format",
        "model_config",
    ),
    "comfy.sd.CLIP": ("tokenize", "encode_from_tokens_scheduled", "patcher"),
    "comfy.sd.VAE": (
        "encode", "decode", "spacial_compression_encode", "patcher", "latent_channels", "downscale_ratio",
        "upscale_ratio",
    ),
    "comfy.latent_formats.LatentFormat": (
        "latent_channels", "latent_dimensions", "spacial_downscale_ratio", "latent_rgb_factors",
    ),
    "comfy.weight_adapter.LoRAAdapter": ("loaded_keys", "weights"),
    "comfy.conds.CONDRegular": ("process_cond", "can_concat", "concat"),
    "comfy.model_management": (
        "in_training", "load_models_gpu", "unload_model_and_clones", "unload_all_models", "soft_empty_cache",
        "get_torch_device", "throw_exception_if_processing_interrupted", "InterruptProcessingException", "is_oom",
        "get_free_memory", "OOM_EXCEPTION",
    ),
}  # fmt: skip
"""What is used of objects that ComfyUI hands over, by the class that has it."""


def used():
    """(module, name) of every import from ComfyUI; name None for the module itself."""
    for file in OURS:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] in THEIRS)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in THEIRS:
                yield from ((node.module, alias.name) for alias in node.names)


def found(module, name):
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        return False
    return name is None or name in vars(loaded) or is_module(f"{module}.{name}")


def is_module(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def resolved(path):
    module, _, name = path.rpartition(".")
    return vars(importlib.import_module(module))[name] if not is_module(path) else importlib.import_module(path)


def has(owner, name):
    """In the class or module, or set on itself in its __init__."""
    if any(name in vars(kind) for kind in getattr(owner, "__mro__", (owner,))):
        return True
    return name in owner.__init__.__code__.co_names if isinstance(owner, type) else False


def test_every_import_is_there():
    names = sorted(set(used()), key=str)
    assert len(names) > 40
    missing = [f"{module}.{name or ''}" for module, name in names if not found(module, name)]
    assert not missing, f"this ComfyUI has no {', '.join(missing)}"


def test_every_attribute_is_there():
    missing = [
        f"{owner}.{name}" for owner, names in ATTRIBUTES.items() for name in names if not has(resolved(owner), name)
    ]
    assert not missing, f"this ComfyUI has no {', '.join(missing)}"


def test_a_loader_can_be_asked_for_a_second_copy():
    """The MODELs of the stock loaders carry a factory that takes `disable_dynamic`."""
    import inspect

    import comfy.sd

    for factory in (comfy.sd.load_diffusion_model, comfy.sd.load_checkpoint_guess_config):
        assert "disable_dynamic" in inspect.signature(factory).parameters
        assert "cached_patcher_init" in factory.__code__.co_names
    assert "force_deepcopy" in inspect.signature(comfy.model_patcher.ModelPatcher.clone).parameters


def test_the_nodes_offer_what_the_backbone_has():
    """Their lists are written out, so that the pack loads quickly."""
    from pack.nodes.native.encoding import EDITS
    from pack.nodes.native.schedules import SCHEDULERS

    def parsed(name):
        return ast.parse((NODES / name).read_text(encoding="utf-8")).body

    assignments = [node for node in parsed("native_nodes.py") if isinstance(node, ast.Assign)]
    (offered,) = (ast.literal_eval(node.value) for node in assignments if node.targets[0].id == "EDITS")
    assert offered == ["auto", *EDITS]
    functions = [node for node in parsed("_comfy.py") if isinstance(node, ast.FunctionDef)]
    (listed,) = (ast.unparse(node) for node in functions if node.name == "schedulers")
    assert SCHEDULERS[-1] in listed
