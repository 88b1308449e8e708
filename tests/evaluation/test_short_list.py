"""The Evaluate node's work without ComfyUI: what it asks for, where it writes, and that it goes on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from danceopd_core.data.csv_rows import Item
from danceopd_core.errors import InputError
from danceopd_core.evaluation import short_list as evaluation
from danceopd_core.evaluation.generate import GenerationConfig
from danceopd_core.recipe import graph as specs
from danceopd_core.recipe.schema import Teacher

LINE = '{"tag": "counting",  "include": [{"class": "cow", "count": 2}], "prompt": "two cows"}'


class Cancelled(BaseException):
    pass


class Host:
    def __init__(self, cancel_at=10**9):
        self.told, self.cancel_at = [], cancel_at

    def check(self):
        pass

    def preparing(self, done, total):
        pass

    def progress(self, value, total):
        if value >= self.cancel_at:
            raise Cancelled
        self.told.append((value, total))


def source(width=48, height=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def go(zimage_folder, tmp_path):
    def run(items, layout, name="list", host=None, **settings):
        settings = {"samples": 2, "steps": 2, "width": 32, "height": 32, "batch": 2, **settings}
        model = specs.ModelSpec(str(zimage_folder), "float32")
        asked = evaluation.benchmark_prompts(items, layout)
        folder = evaluation.eval_folder(tmp_path, name)
        made = evaluation.evaluate(
            model, Teacher(), asked, layout, GenerationConfig(**settings), folder, host or Host()
        )
        return made, folder

    return run


def test_a_list_in_genevals_layout_keeps_its_lines(go):
    host = Host()
    made, folder = go([Item("a red cat"), Item(LINE)], "geneval", host=host)
    assert made.shape == (4, 32, 32, 3)
    assert (folder / "00001/metadata.jsonl").read_text() == f"{LINE}\n"
    assert json.loads((folder / "00000/metadata.jsonl").read_text())["prompt"] == "a red cat"
    third = np.asarray(Image.open(folder / "00001/samples/00000.png"))
    assert torch.equal(made[2], torch.from_numpy(third.copy()).float() / 255)
    assert host.told == [(step, 4) for step in (1, 2, 3, 4)]


def test_a_cancelled_list_goes_on_and_a_finished_one_opens_nothing(go, monkeypatch):
    items = [Item("a red cat"), Item("a dog")]
    whole, _ = go(items, "geneval", "whole")
    with pytest.raises(Cancelled):
        go(items, "geneval", "cut", Host(cancel_at=3))
    host = Host()
    made, _ = go(items, "geneval", "cut", host)
    assert host.told == [(1, 2), (2, 2)]
    assert torch.equal(made, whole)
    monkeypatch.setattr(evaluation, "graph_source", None)
    assert torch.equal(go(items, "geneval", "cut")[0], whole)
    with pytest.raises(InputError, match="steps 2 and not 3"):
        go(items, "geneval", "cut", steps=3)


def test_edits_lie_beside_their_sources_and_keep_their_sizes(go):
    first, second = source(), source(32, 48, seed=1)
    made, folder = go([Item("bluer", first, task="local"), Item("as a sketch", second)], "gedit")
    assert made.shape == (4, 32, 48, 3)
    names = {path.relative_to(folder / "fullset").as_posix() for path in (folder / "fullset").rglob("*.png")}
    stems = ("local/en/00000", "local/en/00000_1", "short_list/en/00001", "short_list/en/00001_1")
    assert names == {f"{stem}{end}.png" for stem in stems for end in ("", "_SRCIMG")}
    assert (np.asarray(Image.open(folder / "fullset/short_list/en/00001_1_SRCIMG.png")) == second).all()
    assert Image.open(folder / "fullset/short_list/en/00001_1.png").size == (32, 48)


@pytest.mark.parametrize("name", ["", "  ", "..", "../x", "a/b", "a\\b", "/etc", "C:x", ".hidden", "x\0", "x" * 200])
def test_no_name_leaves_the_output_folder(tmp_path, name):
    with pytest.raises(InputError, match="name: "):
        evaluation.eval_folder(tmp_path, name)


@pytest.mark.parametrize(
    ("items", "layout", "told"),
    [
        ([], "geneval", "prompts: there are none"),
        ([Item("a", source())], "geneval", "sources: GenEval is text-to-image"),
        ([Item("a", source()), Item("b")], "gedit", "sources: GEdit-Bench needs one"),
        ([Item("a", source(), task="../up")], "gedit", "the task of prompt 1"),
        ([Item("a"), Item('{"tag": "x"}')], "geneval", "prompt 2 has no prompt; has no include"),
        ([Item("a")], "imgedit", "no layout is named 'imgedit'"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(items, layout, told):
    with pytest.raises(InputError, match=told):
        evaluation.benchmark_prompts(items, layout)
