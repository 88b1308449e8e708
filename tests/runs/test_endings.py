"""Whatever ends a run, it resumes to the bits of the run that nothing ended. On the command line, as users run it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from danceopd_core.algorithm import trainer as trainers
from danceopd_core.cli.parser import main
from danceopd_core.cli.progress import ProgressBar
from danceopd_core.research.soak.kills import kills
from danceopd_core.runs.files import state_files
from danceopd_core.runs.files.history import UpdateLines

from .endings import assert_same_run, history, write_recipe

STEPS_OF_TWO_UPDATES = 4  # calls of state_losses: two micro-steps in each


@pytest.fixture(scope="module")
def whole(zimage_folder, tmp_path_factory) -> tuple[Path, Path]:
    """(recipe, folder of the run that nothing ended)."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder, zimage_folder)
    assert main(["train", str(recipe), f"out={folder / 'run'}"]) == 0
    return recipe, folder / "run"


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path, monkeypatch):
    """Rescued students are in the test's own folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def ends(whole, tmp_path, monkeypatch):
    """Trains until `fault` ends the run with a status, resumes it, and compares it with the run that nothing ended.

    Returns how many updates it had in between.
    """
    recipe, expected = whole

    def train(fault: Callable[[pytest.MonkeyPatch], None], status: int, *overrides: str) -> int:
        words = ["train", str(recipe), f"out={tmp_path / 'run'}", *overrides]
        with monkeypatch.context() as patch:
            fault(patch)
            assert main(words) == status
        file = tmp_path / "run" / "history.jsonl"
        updates = len(history(tmp_path / "run")) if file.exists() else 0
        assert main([*words, "--resume"]) == 0
        assert_same_run(tmp_path / "run", expected)
        return updates

    return train


def at_call(number: int, owner: object, name: str, before=None, after=None) -> Callable[[pytest.MonkeyPatch], None]:
    """Calls `before` or `after` with the arguments around that call of a function."""

    def fault(patch: pytest.MonkeyPatch) -> None:
        function, calls = getattr(owner, name), []

        def counted(*args, **kwargs):
            calls.append(1)
            if len(calls) == number and before:
                before()
            result = function(*args, **kwargs)
            if len(calls) == number and after:
                return after(result)
            return result

        patch.setattr(owner, name, counted)

    return fault


PLACES = {  # where a signal comes
    "in a teacher's call": (STEPS_OF_TWO_UPDATES + 2, trainers, "state_losses"),
    "while an update is applied": (3, torch.optim.AdamW, "step"),
    "before the line of the history": (3, UpdateLines, "add"),
    "between two updates": (3, ProgressBar, "on_update"),
    "in a save": (1, state_files, "save_state"),
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_saves_and_the_run_goes_on_from_there(ends, name, place, capfd):
    number = getattr(signal, name)
    fault = at_call(*PLACES[place], before=lambda: signal.raise_signal(number))
    assert ends(fault, 128 + number, "save_every=100" if place != "in a save" else "save_every=3") in (2, 3)
    told = capfd.readouterr().err
    assert f"stopped by {name}" in told
    assert "--resume goes on from there" in told
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_does_not_break_the_save(ends):
    """As launchers pass Ctrl-C on to processes that have had it from the terminal."""

    def twice(patch):
        at_call(3, ProgressBar, "on_update", before=lambda: signal.raise_signal(signal.SIGINT))(patch)
        at_call(1, state_files, "save_state", before=lambda: signal.raise_signal(signal.SIGTERM))(patch)

    assert ends(twice, 130, "save_every=100") == 3


def test_a_signal_before_the_first_update_leaves_a_run_that_begins_again(ends):
    assert ends(at_call(1, trainers, "state_losses", before=lambda: signal.raise_signal(signal.SIGTERM)), 143) == 0


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_out_of_memory_in_an_update(ends, capfd):
    place = STEPS_OF_TWO_UPDATES * 2 - 1, trainers, "state_losses"
    assert ends(at_call(*place, before=out_of_memory), 1, "save_every=100", "memory=manual") == 3
    assert "out of memory: " in capfd.readouterr().err


def test_out_of_memory_below_the_last_rung_is_one_sentence(whole, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(trainers, "state_losses", lambda *given: out_of_memory())
    assert main(["train", str(whole[0]), f"out={tmp_path / 'run'}"]) == 1
    told = capfd.readouterr().err
    assert "nothing is left to turn down" in told
    assert "Traceback" not in told


def test_out_of_memory_before_an_update_is_applied(ends):
    fault = at_call(4, torch.optim.AdamW, "step", before=out_of_memory)
    assert ends(fault, 1, "save_every=100", "memory=manual") == 3


@pytest.mark.parametrize(("save_every", "before"), [(2, 4), (100, 0)])
def test_out_of_memory_while_an_update_is_applied_is_not_saved(ends, capfd, save_every, before):
    """Half an update is of no run: what was saved before stands, or nothing."""

    def half(patch):
        def foreach(*args):
            out_of_memory()

        at_call(5, torch.optim.AdamW, "step", before=lambda: patch.setattr(torch, "_foreach_lerp_", foreach))(patch)

    assert ends(half, 1, f"save_every={save_every}") == 4
    assert f"as it was at update {before}" in capfd.readouterr().err


def test_a_loss_that_is_not_finite(ends):
    def spoiled(terms):
        return (replace(term, loss=term.loss * math.nan) for term in terms)

    assert ends(at_call(STEPS_OF_TWO_UPDATES + 2, trainers, "state_losses", after=spoiled), 1, "save_every=100") == 2


def full(*args) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("call", [1, 3, 4, 5, 6])  # the best student, the first state, and what the saves write
def test_a_full_disk_is_one_sentence_and_leaves_the_state_before_it(ends, capfd, call):
    from safetensors import torch as library

    ends(at_call(call, library, "save_file", before=full), 1)
    told = capfd.readouterr().err
    assert "No space left on device" in told
    assert "Traceback" not in told
    place = Path(told.partition("the student of update ")[2].partition(" is in ")[2].split(". ")[0])
    assert place.is_file()  # the one that could not be saved in the run's folder


def test_a_history_that_cannot_be_written(ends, capfd):
    def refuse():
        raise OSError(28, "No space left on device")

    ends(at_call(6, UpdateLines, "add", before=refuse), 1)
    assert "its last whole state is of update 2" in capfd.readouterr().err


@pytest.mark.parametrize(("limit", "rescued"), [(30000, True), (8000, False)])
def test_a_file_size_limit(whole, tmp_path, limit, rescued):
    """As `ulimit -f` sets it: the system refuses to write more, in the middle of a file."""
    recipe, expected = whole
    code = (
        "import resource, signal, sys; from danceopd_core.cli.parser import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY)); "
        "sys.exit(main(['train', sys.argv[1], 'out=' + sys.argv[2]]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe), str(tmp_path / "run")],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert ("could not be written to" in done.stderr) == (not rescued)  # the student is smaller than the state
    assert len(list(tmp_path.glob("danceopd-*.safetensors"))) == rescued
    assert "Traceback" not in done.stderr
    assert main(["train", str(recipe), f"out={tmp_path / 'run'}", "--resume"]) == 0
    assert_same_run(tmp_path / "run", expected)


def test_a_folder_that_is_removed_in_mid_run(whole, tmp_path, capfd, monkeypatch):
    recipe, _ = whole
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_call(3, ProgressBar, "on_update", before=lambda: run.rename(tmp_path / "elsewhere"))(patch)
        assert main(["train", str(recipe), f"out={run}"]) == 1
    told = capfd.readouterr().err
    assert "is gone" in told
    assert "Traceback" not in told
    assert not run.exists()
    assert Path(told.partition(" is in ")[2].split(". ")[0]).is_file()
    (tmp_path / "elsewhere").rename(run)
    assert main(["train", str(recipe), f"out={run}", "--resume"]) == 0


def test_a_killed_process(tmp_path):
    """The short form of `danceopd soak`."""
    counts = kills(2, 3, tmp_path / "kills")
    assert (counts["kills"], counts["differ"], counts["failed"]) == (2, 0, 0)
