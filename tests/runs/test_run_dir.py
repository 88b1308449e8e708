"""Laws of a run's folder: what it resumes from, what it refuses, and that one process at a time has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from danceopd_core.cli.parser import main
from danceopd_core.runs.files.run_lock import LOCK, RunLock
from danceopd_core.runs.files.train_state import load_state, save_state

from .endings import assert_same_run, history, write_recipe

FIXTURE = Path(__file__).parent / "fixtures" / "run_of_0_1_0" / "cli"


@pytest.fixture(scope="module")
def runs(zimage_folder, tmp_path_factory) -> Path:
    """A folder with recipe.yaml, the run `whole` of its 6 updates, and the run `part` of the first 4."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = write_recipe(folder, zimage_folder)
    assert main(["train", str(recipe), f"out={folder / 'part'}", "steps=4"]) == 0
    copytree(folder / "part", folder / "whole")
    assert main(["train", str(recipe), f"out={folder / 'whole'}", "--resume"]) == 0
    return folder


@pytest.fixture
def part(runs, tmp_path) -> Path:
    """A copy of the run of 4 updates."""
    return copytree(runs / "part", tmp_path / "run")


@pytest.fixture
def resume(runs, part, capfd):
    """Resumes the copy to 6 updates; returns the status and what was said."""

    def train(*words: str, status: int = 0) -> str:
        capfd.readouterr()
        assert main(["train", str(runs / "recipe.yaml"), f"out={part}", "--resume", *words]) == status
        told = capfd.readouterr().err
        assert "Traceback" not in told
        if not status:
            assert_same_run(part, runs / "whole")
        return told

    return train


def changed_state(path: Path, **changes) -> None:
    save_state(path, {**load_state(path), **changes})


def flip(path: Path, place: float) -> None:
    """Flips a bit at a share of the file."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)


def test_the_newest_states_are_kept(part, resume):
    assert sorted(path.name for path in part.glob("state*")) == ["state-000002.safetensors", "state.safetensors"]
    resume()
    assert sorted(path.name for path in part.glob("state*")) == ["state-000004.safetensors", "state.safetensors"]
    assert load_state(part / "state-000004.safetensors")["update"] == 4


def test_as_many_states_as_the_recipe_says(runs, tmp_path):
    words = ["train", str(runs / "recipe.yaml"), "save_every=1", "steps=4"]
    for kept, earlier in ((1, []), (3, [2, 3])):
        assert main([*words, f"keep_states={kept}", f"out={tmp_path / str(kept)}"]) == 0
        names = sorted(path.name for path in (tmp_path / str(kept)).glob("state-*"))
        assert names == [f"state-{update:06d}.safetensors" for update in earlier]


def test_a_torn_line_is_dropped_and_told(part, resume):
    lines = (part / "history.jsonl").read_text()
    (part / "history.jsonl").write_text(lines + '{"update": 5, "losses": {"on')
    assert "1 incomplete line" in resume()


def test_a_torn_line_of_a_saved_update_is_told(runs, part, resume):
    file = part / "history.jsonl"
    file.write_text(file.read_text()[:-40])
    assert main(["train", str(runs / "recipe.yaml"), f"out={part}", "--resume"]) == 0
    assert [entry["update"] for entry in history(part)] == [1, 2, 3, 5, 6]


@pytest.mark.parametrize(
    "damage", [lambda p: flip(p, 0.7), lambda p: flip(p, 0.02), lambda p: p.write_bytes(b"x" * 99)]
)
def test_a_damaged_state_is_replaced_by_the_one_before_it(part, resume, damage):
    damage(part / "state.safetensors")
    told = resume()
    assert "state.safetensors" in told
    assert "goes on from the state before it, of update 2" in told
    assert (part / "state-damaged.safetensors").exists()


def test_a_process_killed_between_two_states_leaves_one(part, resume):
    (part / "state.safetensors").unlink()
    resume()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"update": -1}, "counters"),
        ({"update": 10**12}, "counters"),
        ({"taken": [-2, 4]}, "counters"),
        ({"taken": [10**30, 4]}, "counters"),
        ({"taken": [4, 2]}, "do not take"),
        ({"taken": "many"}, "counters"),
        ({"update": True}, "counters"),
        ({"schedule": None}, "counters"),
        ({"recipe": "0" * 64}, "another run"),
        ({"seed": 7}, "another run"),
        ({"student": {}}, "another LoRA"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "not a state of this run"),
        ({"average": 3}, "not a state of this run"),
    ],
)
def test_a_state_of_no_run_or_of_another_is_refused_in_one_sentence(part, resume, change, told):
    (part / "state-000002.safetensors").unlink()
    changed_state(part / "state.safetensors", **change)
    before = (part / "student.safetensors").read_bytes()
    assert told in resume(status=2)
    assert (part / "student.safetensors").read_bytes() == before


@pytest.mark.parametrize("place", [0.001, 0.1, 0.5, 0.999])
def test_a_flipped_bit_is_refused(part, resume, place):
    (part / "state-000002.safetensors").unlink()
    flip(part / "state.safetensors", place)
    assert "state.safetensors" in resume(status=2)


def test_a_process_killed_between_a_state_and_its_student_leaves_no_gap(runs, part, resume):
    (part / "checkpoints/student-000004.safetensors").unlink()
    resume()
    assert {path.name for path in (part / "checkpoints").iterdir()} == {
        path.name for path in (runs / "whole/checkpoints").iterdir()
    }


def test_a_deleted_state_is_no_reason_to_begin_anew(part, resume):
    for state in part.glob("state*"):
        state.unlink()
    assert "student.start=" in resume(status=2)
    for lora in (part / "student.safetensors", *(part / "checkpoints").iterdir()):
        lora.unlink()
    assert "student.start=" in resume(status=2)  # the history is longer than what a kill leaves


def test_a_changed_csv_or_picture_or_weights_is_named(runs, part, resume):
    csv = runs / "prompts.csv"
    text = csv.read_text()
    csv.write_text(text.replace("fish", "frog"))
    assert f"{csv}: changed since" in resume(status=2)
    csv.write_text(text)
    facts = json.loads((part / "run.json").read_text())
    facts["stamps"][str(csv)] = facts["stamps"][str(csv)][:64] + "0" * 64
    (part / "run.json").write_text(json.dumps(facts))
    assert f"a picture that {csv} names: changed since" in resume("--dry-run", status=2)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_more_steps_only_where_they_leave_the_past_as_it_is(runs, tmp_path, capfd, schedule):
    words = ["train", str(runs / "recipe.yaml"), f"optimizer.schedule={schedule}", "optimizer.warmup=2"]
    assert main([*words, f"out={tmp_path / 'run'}", "steps=2"]) == 0
    status = main([*words, f"out={tmp_path / 'run'}", "steps=4", "--resume"])
    if schedule == "constant_with_warmup":
        assert main([*words, f"out={tmp_path / 'one'}", "steps=4"]) == status == 0
        assert_same_run(tmp_path / "run", tmp_path / "one")
    else:
        assert status == 2
        assert "resume with steps=2" in capfd.readouterr().err


def test_what_killed_processes_left_is_removed_and_other_files_are_not(part, resume):
    left = [".danceopd-00000000-77-0.part", ".state.safetensors.4711.part", "checkpoints/.tmpAb3dE9"]
    kept = ["notes.tmp", ".tmp-a", ".keep", "checkpoints/mine.safetensors"]
    for name in (*left, *kept):
        (part / name).write_bytes(b"")
    (part / ".danceopd-00000000-77-1.d.part").mkdir()
    assert "removed 4 incomplete files" in resume()
    assert not any((part / name).exists() for name in left)
    assert all((part / name).exists() for name in kept)


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", ".danceopd-00000000-77-0.part", "run.json"]])
@pytest.mark.parametrize("words", [[], ["--resume"]])
def test_a_run_killed_before_its_recipe_was_written_locks_nothing(runs, tmp_path, left, words):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_bytes(b"")
    status = main(["train", str(runs / "recipe.yaml"), f"out={tmp_path / 'run'}", "steps=1", *words])
    assert status == (2 if words and not left else 0)  # an empty folder is not the beginning of a run


def test_a_run_killed_before_its_first_save_begins_again_without_doubled_lines(runs, tmp_path):
    run = copytree(runs / "part", tmp_path / "run")
    for file in (*run.glob("state*"), run / "student.safetensors", *(run / "checkpoints").iterdir()):
        file.unlink()
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(lines[:2]))
    assert main(["train", str(runs / "recipe.yaml"), f"out={run}", "--resume"]) == 0
    assert_same_run(run, runs / "whole")


def test_a_state_of_version_0_1_0_has_no_checksums_and_is_read():
    assert load_state(FIXTURE / "state.safetensors")["update"] == 3


def test_two_processes_do_not_have_one_folder(runs, part, resume, capfd):
    with RunLock(part):
        told = resume(status=2)
        assert f"in use by process {os.getpid()} on " in told
        assert main(["train", str(runs / "recipe.yaml"), f"out={part}", "--resume", "--dry-run"]) == 0
    resume()


def test_a_lock_of_a_process_that_was_killed_is_free(part, resume):
    code = (
        "import os, signal, sys; from pathlib import Path; from danceopd_core.runs.files.run_lock import RunLock; "
        "RunLock(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(part)], cwd=Path(__file__).parents[2], check=False)
    assert (part / ".holder.json").exists()
    resume()
    assert not (part / ".holder.json").exists()


def test_a_run_that_is_refused_leaves_no_folder(runs, tmp_path):
    assert main(["train", str(runs / "recipe.yaml"), f"out={tmp_path / 'a/b'}", "routes.0.bucket={csv: none.csv}"]) == 2
    assert not (tmp_path / "a").exists()


def test_files_have_the_permissions_of_the_umask(runs, tmp_path):
    before = os.umask(0o027)
    try:
        assert main(["train", str(runs / "recipe.yaml"), f"out={tmp_path / 'run'}", "steps=2", "save_every=1"]) == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    files.remove(tmp_path / "run" / LOCK)  # filelock 3.12 gives its own permissions to it, and it is empty
    assert len(files) > 6
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_a_run_of_two_processes_is_not_gone_on_with_by_one(part, resume):
    changed_state(
        part / "state.safetensors", processes=2, taken=[2 * n for n in load_state(part / "state.safetensors")["taken"]]
    )
    assert "2 processes" in resume(status=2)
