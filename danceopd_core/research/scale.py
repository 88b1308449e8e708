"""What a run costs by the size of its buckets, its routes, its length and its processes, on the embedded model.

    python -m danceopd_core.research.scale shuffle     # what drawing the order of a bucket costs
    python -m danceopd_core.research.scale buckets     # 10 to 1,000,000 rows: seconds to the first update, memory
    python -m danceopd_core.research.scale edits       # the same for edits that are drawn, encoded and kept on disk
    python -m danceopd_core.research.scale routes      # 1 to 32 routes, and updates early and late in a run
    python -m danceopd_core.research.scale processes   # 1 and 2 processes on the CPU

Every row of a table is a process of its own, with one thread. Seconds are of the processor, so that other work on the
machine does not count; for `processes` they are of the clock. Prints a Markdown table.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess  # nosec B404
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RECIPE = """
model: shapes
teachers: {{{teachers}}}
routes:
{routes}
student: {{rank: 4}}
steps: {steps}
batch: 1
accumulate: 2
rollout_steps: 4
width: 64
height: 64
dtype: float32
device: cpu
"""

TEACHERS = {"base": "base: {guidance: 2.0}", "edit": 'edit: {lora: "shapes:edit"}'}


def measured(recipe: str, kept_from: int = 0, updates: int = 0) -> None:
    """Trains a recipe in this process and prints, as JSON, what it took. kept_from: bytes from which samples are kept
    on disk; 0: the default. updates: after which it stops; 0: all."""
    import torch

    from ..data.csv_rows import numbered_rows
    from ..recipe.io import read_recipe
    from ..runs.files import stored_samples
    from ..runs.training.distributed import join_process_group
    from ..runs.training.session import open_session

    torch.set_num_threads(1)
    if kept_from:
        stored_samples.SMALL = kept_from
    table = time.process_time()
    for route in read_recipe(recipe).routes:
        if route.bucket.csv:
            numbered_rows(route.bucket.csv)
    begin = time.process_time()
    processes, _ = join_process_group("cpu")
    session = open_session(read_recipe(recipe), processes, cache=Path(recipe).parent / "cache")
    seconds, first, last, wall = [], 0.0, time.process_time(), 0.0
    for result in session.trainer:
        first, wall = first or time.process_time(), wall or time.perf_counter()
        seconds.append(time.process_time() - last)
        last = time.process_time()
        if result.update == updates:
            break
    shards = (Path(recipe).parent / "cache").rglob("*.safetensors")
    if processes.rank == 0:
        found = {
            "table": begin - table,
            "first": first - begin,
            "early": sorted(seconds[1:6])[len(seconds[1:6]) // 2],
            "late": sorted(seconds[-5:])[len(seconds[-5:]) // 2],
            "wall": time.perf_counter() - wall,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "disk": sum(file.stat().st_size for file in shards) / 2**20,
            "trained": sum(factor.numel() for factor in session.adapters.parameters()),
        }
        print(json.dumps(found))


def buckets(folder: Path) -> Iterator[tuple[str, ...]]:
    yield "rows", "CPU seconds to the first update", "reading the table", "peak memory (MiB)"
    for rows in (10, 1000, 10_000, 100_000, 1_000_000):
        with (folder / "prompts.csv").open("w", encoding="utf-8") as file:
            file.write("prompt\n")
            file.writelines(f"a red circle left of a blue square number {row}\n" for row in range(rows))
        recipe = _written(folder, "  - {name: one, teacher: base, bucket: {csv: prompts.csv}}", 10)
        found = _run(recipe, "0", "2")
        yield f"{rows:,}", f"{found['first']:.1f}", f"{found['table']:.1f}", f"{found['memory']:.0f}"


def shuffle(folder: Path) -> Iterator[tuple[str, ...]]:
    from ..algorithm.sampling_order import SamplingOrder, shuffled

    yield "rows", "ms to shuffle a pass", "ms a sample"
    for rows in (1000, 1_000_000):
        begin = time.process_time()
        shuffled(0, 0, 0, rows)
        passed = time.process_time() - begin
        order, begin = SamplingOrder([rows], 1, 0), time.process_time()
        for micro in range(10_000):
            order.rows(0, micro)
        yield f"{rows:,}", f"{1000 * passed:.2f}", f"{(time.process_time() - begin) / 10:.4f}"


def edits(folder: Path) -> Iterator[tuple[str, ...]]:
    import numpy as np
    from PIL import Image

    yield (
        "edits drawn",
        "CPU seconds to the first update",
        "peak memory (MiB)",
        "on disk (MiB)",
        "second run, first update",
    )
    pictures = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    for rows in (100, 1000):
        lines = [f"make the circle red number {row},{row % 8}.png\n" for row in range(rows)]
        (folder / "edits.csv").write_text("prompt,source_image\n" + "".join(lines), encoding="utf-8")
        recipe = _written(folder, "  - {name: one, teacher: edit, bucket: {csv: edits.csv}}", rows)
        found, again = _run(recipe, "1", "12"), _run(recipe, "1", "12")
        yield (
            f"{rows:,}",
            f"{found['first']:.1f}",
            f"{found['memory']:.0f}",
            f"{found['disk']:.1f}",
            f"{again['first']:.1f}",
        )


def routes(folder: Path) -> Iterator[tuple[str, ...]]:
    yield "routes", "updates", "CPU ms an update, early", "at the end", "peak memory (MiB)"
    for count, steps in (*((count, 12) for count in (1, 2, 4, 8, 16, 32)), (4, 60), (4, 240)):
        lines = [
            f"  - {{name: r{n}, teacher: base, bucket: {{prompts: [a red circle {n}, a square {n}]}}}}"
            for n in range(count)
        ]
        found = _run(_written(folder, "\n".join(lines), steps))
        yield (
            str(count),
            str(steps),
            f"{1000 * found['early']:.0f}",
            f"{1000 * found['late']:.0f}",
            f"{found['memory']:.0f}",
        )


def processes(folder: Path) -> Iterator[tuple[str, ...]]:
    yield "processes", "samples a second", "of one process", "bytes sent an update"
    recipe = _written(folder, "  - {name: one, teacher: base, bucket: {shapes: t2i, count: 64}}", 12)
    alone = 0.0
    for count in (1, 2):
        found = _run(recipe, processes=count)
        rate = 2 * count * 11 / found["wall"]
        alone = alone or rate
        yield str(count), f"{rate:.2f}", f"{rate / alone:.2f}", f"{4 * int(found['trained']) * (count > 1):,}"


def _written(folder: Path, lines: str, steps: int) -> Path:
    file = folder / "recipe.yaml"
    used = [
        line for line in ("base: {guidance: 2.0}", 'edit: {lora: "shapes:edit"}') if f"teacher: {line[:4]}" in lines
    ]
    file.write_text(RECIPE.format(routes=lines, steps=steps, teachers=", ".join(used)), encoding="utf-8")
    return file


def _run(recipe: Path, *arguments: str, processes: int = 1) -> dict[str, Any]:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    )
    command = [sys.executable, *launch, "-m", "danceopd_core.research.scale", "one", str(recipe)]
    done = subprocess.run(  # nosec B603
        [*command, *arguments], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


TABLES: dict[str, Callable[[Path], Iterator[tuple[str, ...]]]] = {
    "shuffle": shuffle,
    "buckets": buckets,
    "edits": edits,
    "routes": routes,
    "processes": processes,
}


def main(arguments: list[str]) -> None:
    if arguments[0] == "one":
        measured(arguments[1], *map(int, arguments[2:]))
        return
    with TemporaryDirectory() as folder:
        for number, row in enumerate(TABLES[arguments[0]](Path(folder))):
            print(f"| {' | '.join(row)} |", flush=True)
            if not number:
                print("|" + "---|" * len(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
