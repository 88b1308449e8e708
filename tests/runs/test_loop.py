"""Laws of the training loop that the command line and the Train node share, with a session that trains nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from danceopd_core.algorithm.trainer import ProcessGroup
from danceopd_core.errors import InputError
from danceopd_core.runs.training.loop import train_loop
from danceopd_core.runs.training.rescue import SaveFailed


class Cancelled(BaseException):
    pass


@dataclass
class Trainer:
    """Counts updates; raises at the given one."""

    steps: int
    raises_at: int = 0
    update: int = 0
    torn: bool = False
    processes: ProcessGroup = field(default_factory=ProcessGroup)

    def __iter__(self):
        while self.update < self.steps:
            if self.update + 1 == self.raises_at:
                raise RuntimeError("diverged")
            self.update += 1
            yield SimpleNamespace(update=self.update)


@dataclass
class Recorder:
    """A run folder and an observer that write down each call with the update at which it came."""

    trainer: Trainer
    stop_at: int = 0
    cancel_at: int = 0
    broken_at: int = 0
    failure: type[Exception] = OSError
    calls: list = field(default_factory=list)
    cancelled = Cancelled
    path, id, saved = Path("no such folder"), "0123456789abcdef", 0

    def add(self, result):
        self.calls.append(("history", result.update))

    def save(self, session):
        if self.trainer.update == self.broken_at:
            raise self.failure("disk full")
        self.calls.append(("saved", self.trainer.update))

    def on_update(self, result):
        assert self.calls[-1] == ("history", result.update)
        if result.update == self.cancel_at:
            raise Cancelled

    def on_validate(self):
        self.calls.append(("validated", self.trainer.update))

    def on_save(self, state):
        assert self.calls[-1] == ("saved", self.trainer.update)
        self.calls[-1] = ("saved", self.trainer.update, state)

    def on_not_saved(self, why):
        self.calls.append(("not saved", why))

    def should_stop(self):
        return self.trainer.update == self.stop_at

    def but_history(self):
        return [call for call in self.calls if call[0] != "history"]


def run(trainer, validate_every=0, save_every=100, **observer):
    recorder = Recorder(trainer, **observer)
    session = SimpleNamespace(
        trainer=trainer,
        recipe=SimpleNamespace(steps=trainer.steps, save_every=save_every),
        write_student=lambda path, run: recorder.calls.append(("rescued", trainer.update)),
    )
    try:
        return train_loop(session, recorder, recorder, validate_every), recorder
    except BaseException as error:  # for the test to compare together with the calls
        return error, recorder


def test_every_update_is_in_the_history_and_validations_and_saves_keep_their_intervals():
    state, recorder = run(Trainer(5), validate_every=2, save_every=2)
    assert state == "done"
    assert [call for call in recorder.calls if call[0] == "history"] == [("history", n) for n in range(1, 6)]
    assert recorder.but_history() == [
        ("validated", 2), ("saved", 2, "training"), ("validated", 4), ("saved", 4, "training"), ("validated", 5),
        ("saved", 5, "done"),
    ]  # fmt: skip


def test_the_last_update_is_validated_and_saved_once():
    _, recorder = run(Trainer(4), validate_every=2, save_every=2)
    assert recorder.but_history()[-2:] == [("validated", 4), ("saved", 4, "done")]
    assert recorder.calls.count(("validated", 4)) == 1


def test_a_stop_request_validates_saves_and_ends():
    state, recorder = run(Trainer(5), stop_at=3)
    assert state == "stopped"
    assert recorder.but_history() == [("validated", 3), ("saved", 3, "stopped")]


def test_a_stop_request_at_the_last_update_is_a_finished_run():
    state, _ = run(Trainer(5), stop_at=5)
    assert state == "done"


def test_a_finished_run_that_resumes_trains_nothing_more():
    state, recorder = run(Trainer(4, update=4))
    assert state == "done"
    assert recorder.calls == [("validated", 4), ("saved", 4, "done")]


@pytest.mark.parametrize(
    ("trainer", "observer", "kind", "state"),
    [
        (Trainer(5, raises_at=3), {}, RuntimeError, "failed"),
        (Trainer(5), {"cancel_at": 2}, Cancelled, "cancelled"),
    ],
)
def test_whatever_ends_a_run_it_is_saved_and_the_error_is_raised(trainer, observer, kind, state):
    error, recorder = run(trainer, **observer)
    assert isinstance(error, kind)
    assert recorder.but_history() == [("saved", 2, state)]


@pytest.mark.parametrize("failure", [OSError, InputError])
def test_a_save_that_fails_on_the_way_out_does_not_hide_the_error(failure):
    error, recorder = run(Trainer(5, raises_at=3), broken_at=2, failure=failure)
    assert isinstance(error, RuntimeError)
    told, why = recorder.calls[-1]
    assert told == "not saved"
    assert ("disk full" in why) == (failure is InputError)
    assert (("rescued", 2) in recorder.calls) == (failure is OSError)


@pytest.mark.parametrize("save_every", [2, 100])
def test_a_save_that_fails_otherwise_is_raised_after_one_rescue(save_every):
    error, recorder = run(Trainer(4), broken_at=2 if save_every == 2 else 4, save_every=save_every)
    assert isinstance(error, SaveFailed)
    assert [call[0] for call in recorder.but_history()].count("rescued") == 1


def test_an_update_that_failed_while_it_was_applied_is_not_saved():
    error, recorder = run(Trainer(5, raises_at=3, torn=True))
    assert isinstance(error, RuntimeError)
    assert [call[0] for call in recorder.but_history()] == ["not saved"]


def test_a_run_without_an_update_leaves_nothing():
    error, recorder = run(Trainer(5, raises_at=1))
    assert isinstance(error, RuntimeError)
    assert recorder.calls == []


@pytest.mark.parametrize(("steps", "begun"), [(5, 0), (4, 0), (4, 2), (4, 4)])
def test_other_processes_validate_when_the_main_one_does_and_write_nothing(steps, begun):
    main, other = (Trainer(steps, update=begun, processes=ProcessGroup(rank, 2)) for rank in range(2))
    _, recorder = run(main, validate_every=2, save_every=1)
    validations = [call for call in recorder.calls if call[0] == "validated"]
    assert validations[-1] == ("validated", steps)
    state, recorder = run(other, validate_every=2, save_every=1)
    assert (state, other.update, recorder.calls) == ("done", steps, validations)


def test_a_stop_of_which_other_processes_do_not_know_waits_for_none_of_them():
    state, recorder = run(Trainer(5, processes=ProcessGroup(0, 2)), stop_at=3, validate_every=3)
    assert (state, recorder.but_history()) == ("stopped", [("saved", 3, "stopped")])
