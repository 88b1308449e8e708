"""Buckets that are streams: data sets on disk, read by `datasets` as they are drawn from."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danceopd_core.algorithm.fields import ENDLESS
from danceopd_core.algorithm.sampling_order import SamplingOrder
from danceopd_core.data import stream_source
from danceopd_core.data.buckets import load_bucket
from danceopd_core.data.stream_items import StreamItems
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import parse_recipe
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Stream, Student, Teacher
from danceopd_core.runs.files.identity import changed_files, file_stamps
from danceopd_core.runs.files.stored_samples import picture_digest
from danceopd_core.runs.plans.drawing import drawn_rows

ROWS = 7


def picture(number: int) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def parquet(folder: Path) -> Stream:
    pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    for shard, rows in enumerate((range(4), range(4, ROWS))):
        table = pa.table(
            {
                "caption": [f"prompt {row}" for row in rows],
                "before": [{"bytes": picture(row), "path": None} for row in rows],
                "score": [float(row) for row in rows],
            }
        )
        pq.write_table(table, folder / f"train-{shard}.parquet")
    return Stream(str(folder), prompt="caption", source_image="before", buffer=1)


def jsonl(folder: Path) -> Stream:
    pytest.importorskip("datasets")
    folder.mkdir(exist_ok=True)
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(picture(row))
    lines = [json.dumps({"text": f" prompt  {row}", "before": f"{row}.png"}) for row in range(ROWS)]
    (folder / "rows.jsonl").write_text("\n".join([*lines, json.dumps({"text": " ", "before": ""})]) + "\n")
    return Stream(str(folder / "rows.jsonl"), prompt="text", source_image="before", buffer=1)


def webdataset(folder: Path) -> Stream:
    pytest.importorskip("datasets")
    folder.mkdir(exist_ok=True)
    for shard, rows in enumerate((range(3), range(3, ROWS))):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for row in rows:
                about = json.dumps({"caption": f"prompt {row}"}).encode()
                for name, data in ((f"{row:03}.source.png", picture(row)), (f"{row:03}.json", about)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return Stream(str(folder), prompt="json.caption", source_image="source.png", buffer=1)


KINDS = {"parquet": parquet, "jsonl": jsonl, "webdataset": webdataset}


def prompts(items: StreamItems, places) -> list[int]:
    return [int(items[place].prompt.removeprefix("prompt ")) for place in places]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_items(kind, tmp_path):
    items = load_bucket(Bucket(stream=KINDS[kind](tmp_path / "set")), 0)
    assert isinstance(items, StreamItems)
    assert prompts(items, range(2 * ROWS)) == [*range(ROWS), *range(ROWS)]
    assert [items[row].source for row in range(ROWS)] == [picture(row) for row in range(ROWS)]
    assert "the first prompt is 'prompt 0'" in items.text()
    (tmp_path / "0.png").write_bytes(picture(0))
    assert picture_digest(items[0].source) == picture_digest(tmp_path / "0.png")  # the key of an encoded CSV row


def test_blocks_are_shuffled_and_a_place_always_holds_the_same(tmp_path):
    stream = replace(parquet(tmp_path / "set"), buffer=3)
    found = prompts(StreamItems(stream, 0), range(3 * ROWS))
    for first in range(0, 3 * ROWS, ROWS):  # passes of blocks of 3, 3 and 1
        assert [sorted(found[first + at : first + at + 3]) for at in (0, 3)] == [[0, 1, 2], [3, 4, 5]]
        assert found[first + 6] == 6
    assert found[:ROWS] != found[ROWS : 2 * ROWS] or found[:ROWS] != found[2 * ROWS :]
    other = StreamItems(stream, 0)
    other._kept = 1
    other._begin()
    places = [20, 0, 13, 12, 19, 5]
    assert prompts(other, places) == [found[place] for place in places]
    assert any(prompts(StreamItems(stream, seed), range(ROWS)) != found[:ROWS] for seed in range(1, 5))


def test_processes_draw_different_parts_and_a_resumed_run_goes_on_at_its_place():
    orders = [SamplingOrder([ENDLESS], 2, 0, rank, 2) for rank in range(2)]
    drawn = [[order.rows(0, micro) for micro in range(2)] for order in orders]
    assert drawn == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    orders[0].advance(0, 2)
    resumed = SamplingOrder([ENDLESS], 2, 0, 0, 2)
    resumed.taken = list(orders[0].taken)
    assert resumed.rows(0, 0) == orders[0].rows(0, 0) == [8, 9]
    recipe = Recipe("m", (Route("a", "t", Bucket(prompts=("a",))),), {"t": Teacher()}, steps=3, batch=2, accumulate=2)
    assert drawn_rows(recipe, [ENDLESS], 2) == [list(range(24))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "captoin"}, r"it has no column 'captoin' \(did you mean 'caption'\?\).*stream\.prompt"),
        ({"prompt": "prompt"}, r"no column 'prompt' \(did you mean 'caption'\?\)"),
        ({"source_image": "befor"}, r"no column 'befor' \(did you mean 'before'\?\)"),
        ({"prompt": "score"}, r"row 1: score is no text but float"),
        ({"source_image": "caption"}, r"row 1: caption cannot be read|row 1: caption .*prompt 0"),
        ({"source_image": "score"}, r"row 1: score has no picture|row 1: score is no picture but float"),
        ({"split": "validation"}, r"no file in it has the split 'validation' in its name"),
        ({"config": "small"}, r"only a data set with an id has a config"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_stream(changes, message, tmp_path):
    stream = replace(parquet(tmp_path / "set"), **changes)
    with pytest.raises(InputError, match=rf"stream .*set: .*({message})"):
        StreamItems(stream, 0)


def test_a_broken_picture_is_told_with_its_row(tmp_path):
    stream = jsonl(tmp_path / "set")
    (tmp_path / "set" / "5.png").write_bytes(picture(5)[:900])
    with pytest.raises(InputError, match=r"row 6: before is not a readable picture"):
        StreamItems(stream, 0)  # among those that the dry run looks at
    (tmp_path / "set" / "5.png").unlink()
    with pytest.raises(InputError, match=r"row 6: before .*5\.png"):
        StreamItems(stream, 0)


def test_folders_of_something_else_are_refused(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text("raise SystemExit('code of a data set ran')")
    with pytest.raises(InputError, match=r"the folder holds no \.parquet"):
        StreamItems(Stream(str(tmp_path / "set")), 0)
    with pytest.raises(InputError, match=r"it is no \.parquet"):
        StreamItems(Stream(str(tmp_path / "set" / "set.py")), 0)
    with pytest.raises(InputError, match=r"neither a file or folder here nor"):
        StreamItems(Stream(str(tmp_path / "absent")), 0)
    (tmp_path / "set" / "a.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "set" / "a.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"files of json and webdataset: name one folder for each"):
        StreamItems(Stream(str(tmp_path / "set")), 0)


def test_a_stream_is_for_the_command_line_and_needs_its_library(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="on the command line only"):
        load_bucket(Bucket(stream=Stream("a/b")), 0, roots=(tmp_path,))
    monkeypatch.setattr(stream_source, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install danceopd\[stream\]"):
        load_bucket(Bucket(stream=Stream("a/b")), 0)


def test_the_recipe_says_what_a_stream_cannot_be():
    route = {"name": "a", "teacher": "t", "bucket": {"stream": {"source": "owner/name"}}}
    text = {"model": "m", "teachers": {"t": {}}, "routes": [route, {**route, "name": "b"}]}
    assert parse_recipe(text).routes[0].bucket.stream == Stream("owner/name")
    with pytest.raises(InputError, match=r"learned_router: it reads every prompt, and a stream has no end"):
        parse_recipe({**text, "learned_router": {"bucket": {"prompts": ["a"]}}})
    with pytest.raises(InputError, match=r"give exactly one of .*stream, not csv and stream"):
        parse_recipe({**text, "routes": [{**route, "bucket": {**route["bucket"], "csv": "a.csv"}}]})
    with pytest.raises(InputError, match=r"stream\.promt: there is no such setting \(did you mean 'prompt'\?\)"):
        parse_recipe({**text, "routes": [{**route, "bucket": {"stream": {"source": "a/b", "promt": "x"}}}]})


@pytest.fixture
def recipe(zimage_folder, tmp_path) -> Recipe:
    stream = replace(parquet(tmp_path / "set"), buffer=3)
    return Recipe(
        str(zimage_folder),
        (Route("edits", "base", Bucket(stream=stream)),),
        {"base": Teacher(guidance=2.0)},
        student=Student(rank=2),
        steps=4,
        batch=1,
        accumulate=2,
        rollout_steps=2,
        width=32,
        height=32,
        dtype="float32",
        device="cpu",
        out=str(tmp_path / "run"),
    )


@pytest.mark.parametrize("kept", [False, True])
def test_a_resumed_run_over_a_stream_is_the_run_that_was_not_interrupted(recipe, tmp_path, monkeypatch, kept):
    from danceopd_core.runs.files import stored_samples
    from danceopd_core.runs.training.session import open_session

    if kept:  # on the disk, as large ones are
        monkeypatch.setattr(stored_samples, "SMALL", 0)
    whole = open_session(recipe, cache=tmp_path / "cache")
    losses = [result.losses for result in whole.trainer]
    part = open_session(recipe, cache=tmp_path / "cache")
    first = [result.losses for result in islice(part.trainer, 2)]
    again = open_session(recipe, resumed=True, cache=tmp_path / "cache")
    again.trainer.load_state_dict(part.trainer.state_dict())
    assert first + [result.losses for result in again.trainer] == losses


def test_the_dry_run_tells_what_a_stream_holds_and_a_changed_file_is_noticed(recipe, tmp_path, capsys):
    from danceopd_core.cli.parser import main
    from danceopd_core.recipe.io import read_recipe, write_recipe

    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert read_recipe(tmp_path / "recipe.yaml").routes == recipe.routes
    assert main(["train", str(tmp_path / "recipe.yaml"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "columns caption, before, score; prompt from 'caption', source_image from 'before'" in told
    assert main(["train", str(tmp_path / "recipe.yaml"), "--dry-run", "method=offpolicy"]) == 2
    assert f"{ROWS} of {ROWS} rows have no target_image" in capsys.readouterr().err
    before = file_stamps(recipe)
    (tmp_path / "set" / "train-2.parquet").write_bytes((tmp_path / "set" / "train-0.parquet").read_bytes())
    assert changed_files(before, file_stamps(recipe)) == [str(tmp_path / "set")]
