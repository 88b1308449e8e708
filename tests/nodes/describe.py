"""Run by the tests in a Python that has ComfyUI's requirements: prints the node schemas as JSON, without a server.

Usage: describe.py COMFYUI PACK
"""

import asyncio
import importlib.util
import json
import sys
import time
from pathlib import Path


def main(comfyui: Path, pack: Path) -> None:
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    import comfy.model_management
    import server  # noqa: F401 (a pack is loaded after the server's module)

    import nodes as stock

    spec = importlib.util.spec_from_file_location("pack", pack / "__init__.py", submodule_search_locations=[str(pack)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    before, began = set(sys.modules), time.process_time()
    spec.loader.exec_module(module)
    seconds = time.process_time() - began
    found = {
        "seconds": seconds,
        "imported": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
        "web": module.WEB_DIRECTORY,
        "mappings": hasattr(module, "NODE_CLASS_MAPPINGS"),
        "stock": sorted(stock.NODE_CLASS_MAPPINGS)[:3],
        "device": str(comfy.model_management.get_torch_device()),
        "nodes": {},
    }
    for node in asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list()):
        schema = node.GET_SCHEMA()
        schema.validate()
        info = schema.get_v1_info(node)
        found["nodes"][schema.node_id] = {
            "class": node.__name__,
            "bases": [base.__name__ for base in node.__bases__],
            "category": schema.category,
            "display_name": schema.display_name,
            "description": schema.description,
            "search_aliases": schema.search_aliases,
            "is_output_node": schema.is_output_node,
            "not_idempotent": schema.not_idempotent,
            "input": info.input,
            "outputs": [
                {"id": out.id, "type": out.get_io_type(), "display_name": out.display_name, "tooltip": out.tooltip}
                for out in schema.outputs
            ],
        }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
