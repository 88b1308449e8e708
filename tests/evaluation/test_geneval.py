"""GenEval's pictures: in its layout, from its metadata, the same however the work was cut."""

import json

import numpy as np
import pytest
from PIL import Image

from danceopd_core.cli.parser import main
from danceopd_core.evaluation import folder
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import lora_metadata, write_lora

from ..loras import random_lora
from .conftest import PROMPTS, SMALL, contents, geneval_sees, pixels


@pytest.fixture
def go(prompts, zimage_folder, tmp_path):
    def run(out="out", *more, model=zimage_folder, size=("--width", "32", "--height", "48")):
        given = ["eval", "geneval", str(prompts), "--model", str(model), "--out", str(tmp_path / out)]
        return main([*given, "--samples", "3", *size, *SMALL, *more])

    return run


@pytest.fixture
def lora(opened_zimage, tmp_path):
    made = random_lora(linear_shapes(opened_zimage.network), 4, seed=1)
    write_lora(tmp_path / "a.safetensors", made, lora_metadata(made, family="zimage", title="a"))
    return tmp_path / "a.safetensors"


def test_the_scorer_finds_every_prompt_with_its_own_line_and_pictures(go, tmp_path):
    assert go() == 0
    found = geneval_sees(tmp_path / "out")
    names = ["00000.png", "00001.png", "00002.png"]
    assert found == {f"{number:05d}": (f"{line}\n", names) for number, line in enumerate(PROMPTS)}
    for path in (tmp_path / "out").rglob("*.png"):
        assert Image.open(path).size == (32, 48)
    assert len({path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}) == 9


def test_an_interrupted_evaluation_ends_as_one_that_was_not(go, tmp_path, monkeypatch, capsys):
    assert go("whole") == 0
    write = folder.write_bytes
    left = [5]

    def failing(path, data):
        if path.suffix == ".png":
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        write(path, data)

    monkeypatch.setattr(folder, "write_bytes", failing)
    assert go("cut") == 130
    monkeypatch.undo()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.png")}
    assert len(made) == 5
    assert go("cut") == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    monkeypatch.setattr("danceopd_core.cli.evaluate.open_field", None)  # nothing is left to open a model for
    capsys.readouterr()
    assert go("cut") == 0
    assert "all 9 pictures are in" in capsys.readouterr().err


def test_a_picture_depends_on_its_prompt_and_sample_and_not_on_its_neighbours(go, tmp_path):
    assert go("whole") == 0
    assert go("alone", "--batch", "1", "--only", "counting") == 0
    assert set(geneval_sees(tmp_path / "alone")) == {"00001"}
    for sample in range(3):
        one, other = (pixels(tmp_path / f / f"00001/samples/{sample:05d}.png") for f in ("whole", "alone"))
        assert np.abs(one - other).max() <= 1  # a batch of another size rounds its sums otherwise
    assert go("first", "--limit", "1") == 0
    assert set(geneval_sees(tmp_path / "first")) == {"00000"}
    assert go("first") == 0  # the rest, into the same folder
    assert set(geneval_sees(tmp_path / "first")) == {"00000", "00001", "00002"}


def test_lora_guidance_and_seed_change_the_pictures(go, lora, tmp_path):
    told = {"plain": [], "lora": ["--lora", str(lora)], "guided": ["--guidance", "3"], "seed": ["--seed", "1"]}
    for name, more in told.items():
        assert go(name, "--limit", "1", *more) == 0
    found = [pixels(tmp_path / name / "00000/samples/00000.png") for name in told]
    assert all((found[0] != other).any() for other in found[1:])
    assert go("none", "--limit", "1", "--lora", str(lora), "--strength", "0") == 0
    assert (found[0] == pixels(tmp_path / "none/00000/samples/00000.png")).all()


def test_another_setting_in_the_same_folder_is_refused(go, lora, prompts, tmp_path, capsys):
    assert go("out", "--limit", "1", "--lora", str(lora)) == 0
    before = contents(tmp_path / "out")
    for more, told in (
        (["--steps", "3"], "steps 2 and not 3"),
        (["--seed", "1", "--samples", "2"], "samples 3 and not 2, seed 0 and not 1"),
        (["--strength", "0.5"], "strength 1.0 and not 0.5"),
    ):
        assert go("out", "--lora", str(lora), *more) == 2
        assert f"{tmp_path / 'out'} was made with {told}: give the same, or choose" in capsys.readouterr().err
    assert go("out") == 2
    assert "lora" in capsys.readouterr().err
    prompts.write_text(PROMPTS[0] + "\n", encoding="utf-8")
    assert go("out", "--lora", str(lora)) == 2
    assert "prompts" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_a_folder_of_something_else_is_left_alone(go, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert go() == 2
    assert "something else" in capsys.readouterr().err
    assert contents(tmp_path / "out") == {"thesis.txt": b"mine"}


def test_all_faults_are_one_message_and_no_model_is_opened(go, prompts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("danceopd_core.cli.evaluate.open_field", None)
    good = json.loads(PROMPTS[0])
    lines = ["{", "[]", "", *(json.dumps({k: v for k, v in good.items() if k != gone}) for gone in good)]
    lines.append(json.dumps(good | {"include": [{"class": "cow"}]}))
    prompts.write_text("\n".join([PROMPTS[0], *lines]) + "\n", encoding="utf-8")
    assert go("out", "--lora", "nowhere.safetensors", size=("--width", "40")) == 2
    told = capsys.readouterr().err
    for word in (
        "9 faults", "line 2: is no JSON", "line 3: is no mapping", "line 4: is blank", "line 5: has no tag",
        "line 6: has no include", "line 7: has no prompt", "line 8: its include is no list", "nowhere.safetensors",
        "--width: 40 is not a multiple of 16",
    ):  # fmt: skip
        assert word in told, told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--only", "counting,nothing"], "no prompt is of nothing: there are single_object, counting, colors"),
        (["--samples", "0"], "samples: 0"),
        (["--limit", "0"], "--limit 0"),
        (["--guidance", "nan"], "guidance"),
        (["--model", "nowhere/at/all"], "model_index.json"),
    ],
)
def test_bad_options_are_refused(go, tmp_path, capsys, more, told):
    assert go("out", *more) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_embedded_model_draws_them_too(go, tmp_path):
    assert go("out", "--limit", "1", "--samples", "1", model="shapes", size=()) == 0
    assert Image.open(tmp_path / "out/00000/samples/00000.png").size == (64, 64)
