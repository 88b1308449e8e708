"""The command line: assembles the commands and maps errors to exit statuses.

0: done. 1: the training diverged, ran out of memory, lost one of its processes or could not be saved, doctor-env found
what an install would change, doctor a LoRA that is dead or broken, or soak something bad. 2: bad input, reported in one
message with nothing written. 130: interrupted; 143 and 129: by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import InputError, shown
from . import bench, cache, data, demo, doctor, doctor_env, evaluate, memory, push, recipes, sample, shapes, soak, train
from .console import encode_anything, log, quiet_libraries

COMMANDS = {
    "demo": demo,
    "train": train,
    "memory": memory,
    "cache": cache,
    "recipes": recipes,
    "sample": sample,
    "eval": evaluate,
    "bench": bench,
    "data": data,
    "shapes": shapes,
    "soak": soak,
    "push": push,
    "doctor": doctor,
    "doctor-env": doctor_env,
}
"""Each module has `add_arguments(subparsers)`, which adds its parser, and `run(args)`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    encode_anything()
    args = _parse(arguments)
    if args.command == "doctor-env":  # it is for a Python in which torch and the others may not import
        return doctor_env.run(args)
    # Imported after the arguments are parsed: torch takes seconds, and --help must not.
    from torch import OutOfMemoryError

    from ..algorithm.relief import OutOfMemory
    from ..algorithm.updates import Diverged
    from ..runs.training.distributed import ProcessLost
    from ..runs.training.rescue import SaveFailed
    from ..signals import Terminated

    quiet_libraries()
    try:
        status: int | None = COMMANDS[args.command].run(args)
    except InputError as error:
        return _report(error, 2)
    except (Diverged, OutOfMemory, ProcessLost, SaveFailed) as error:
        return _report(error, 1)
    except OutOfMemoryError as error:
        told = str(error).partition("\n")[0].partition(". ")[0]
        return _report(f"out of memory: set gradient_checkpointing, or lower batch, width and height ({told})", 1)
    except OSError as error:
        if error.filename is None:
            raise
        return _report(f"{error.filename}: {error.strerror}", 1)
    except Terminated as error:
        return _report(error, 128 + error.number)
    except KeyboardInterrupt:
        return _report("stopped", 130)
    return status or 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="danceopd", description="Distils many image-generation capabilities into one LoRA."
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        command.add_arguments(subparsers)
    args, rest = parser.parse_known_args(arguments)
    if args.command == "train":
        # argparse takes no positional argument after an option, and overrides may stand anywhere.
        args.overrides += [word for word in rest if "=" in word and not word.startswith("-")]
        rest = [word for word in rest if word not in args.overrides]
    if rest:
        parser.error(shown(f"unrecognized arguments: {' '.join(rest)}"))
    return args


def _report(error: object, status: int) -> int:
    log(str(error))
    return status
