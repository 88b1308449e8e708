"""`danceopd cache`: what is kept of encoded prompts and pictures, and its removal."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime
from typing import Any

from ..errors import InputError


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("cache", help="show or clear the encoded prompts and pictures kept between runs")
    parser.add_argument("--folder", help="of the cache; the default is what a training takes")
    parser.add_argument("--clear", action="store_true", help="remove them; runs encode again what they need")
    parser.add_argument("--model", default="", help="only those of the model whose name or path contains this")


def run(args: Namespace) -> None:
    from ..data.cache_folder import CacheFolder, cache_folder, size_limit

    root, limit = cache_folder(args.folder), size_limit()
    if root is None:
        raise InputError("the cache is off (DANCEOPD_CACHE): name its folder with --folder")
    folder = CacheFolder(root, limit)
    models = [model for model in folder.models() if args.model in f"{model.title} {model.name}"]
    for model in models:
        used = datetime.fromtimestamp(model.used).isoformat(" ", "minutes")
        print(f"{_gib(model.size)}  used {used}  {model.title}  ({model.shards} files)")
    print(f"{_gib(sum(model.size for model in models))} of at most {_gib(limit)} in {root}")
    if args.clear:
        print(f"removed {_gib(folder.clear([model.name for model in models]))}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
