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
        "add_patches", "cached_patcher_init", "callbacks", "cleanup", "clone", "get_model_object", "injections",
        "is_clone", "is_dynamic", "load_device", "memory_required", "model", "model_options", "model_size",
        "object_patches", "patches", "patches_uuid", "pre_run", "size", "wrappers",
    ),
    "comfy.model_base.BaseModel": (
        "apply_model", "diffusion_model", "extra_conds", "get_dtype_inference", "latent_format", "model_config",
        "process_latent_in", "process_latent_out",
    ),
    "comfy.sd.CLIP": ("encode_from_tokens_scheduled", "patcher", "tokenize"),
    "comfy.sd.VAE": (
        "decode", "downscale_ratio", "encode", "latent_channels", "latent_dim", "patcher",
        "spacial_compression_encode", "upscale_ratio",
    ),
    "comfy.latent_formats.LatentFormat": (
        "latent_channels", "latent_dimensions", "latent_rgb_factors", "spacial_downscale_ratio",
    ),
    "comfy.weight_adapter.LoRAAdapter": ("loaded_keys", "weights"),
    "comfy.conds.CONDRegular": ("can_concat", "concat", "cond", "process_cond"),
}  # fmt: skip
"""What is used of objects that ComfyUI hands over, by the class that has it."""
VARIABLES = {
    "patcher": "comfy.model_patcher.ModelPatcher", "own": "comfy.model_patcher.ModelPatcher",
    "model": "comfy.model_base.BaseModel", "clip": "comfy.sd.CLIP", "vae": "comfy.sd.VAE",
    "latent_format": "comfy.latent_formats.LatentFormat", "patch": "comfy.weight_adapter.LoRAAdapter",
    "cond": "comfy.conds.CONDRegular",
}  # fmt: skip
"""What the code calls such objects, as a variable or as an attribute."""
ELSEWHERE = {
    # torch's, ours, or what a ModelPatcher notes on its model
    "model": {
        "_modules", "clip", "current_weight_patches_uuid", "digest", "edit", "model_lowvram", "patcher",
        "requires_grad_", "scheduler", "space", "vae",
    },
    "own": {"get", "items", "keys", "nulls"},
    "cond": {"samples", "shape", "to"},
}  # fmt: skip
"""What is read of other objects that have the same names."""


def accesses():
    """(variable or attribute, attribute read of it) in all of the code."""
    for file in OURS:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value
                yield (owner.id if isinstance(owner, ast.Name) else owner.attr), node.attr


def modules():
    """Name in the code -> module of ComfyUI, of all that are imported as modules."""
    for file in OURS:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
                yield from ((alias.name, alias.name) for alias in node.names if "." not in alias.name)


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


def test_the_lists_are_complete():
    """Every attribute that the code reads of such an object is listed, and every one that is listed is read."""
    read = {}
    for variable, name in accesses():
        if variable in VARIABLES and name not in ELSEWHERE.get(variable, ()):
            read.setdefault(VARIABLES[variable], set()).add(name)
    indirect = {"comfy.conds.CONDRegular": {"can_concat", "concat", "cond"}}  # by ComfyUI's own cond_cat
    for kind, names in ATTRIBUTES.items():
        expected = read.get(kind, set()) | indirect.get(kind, set())
        assert set(names) == expected, (kind, set(names) ^ expected)


def test_every_attribute_of_a_module_is_there():
    """Of those that the code imports as modules, such as `management`: all that it reads of them."""
    named = {name: module for name, module in modules() if module.split(".")[0] in THEIRS}
    read = {(named[variable], name) for variable, name in accesses() if variable in named}
    assert len(read) > 15
    missing = [f"{module}.{name}" for module, name in sorted(read) if not found(module, name)]
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
