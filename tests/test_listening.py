"""Long work that tells how far it is and hears that it shall end."""

import contextlib
import threading

import pytest
import torch

from danceopd_core.listening import INTERVAL, Step, heard, listening, one_more, reached, work


class End(Exception):
    pass


def test_every_counted_step_is_told():
    told = []
    with listening(told.append, libraries=False), work("outer", 2):
        one_more()
        with work("inner"):
            heard()
        reached(2)
    assert told == [
        Step("outer", 0, 2), Step("outer", 1, 2), Step("inner"), Step("inner"), Step("outer", 2, 2)
    ]  # fmt: skip


def test_nothing_is_told_outside():
    told = []
    with listening(told.append):
        pass
    with work("after", 1):
        one_more()
    torch.ones(2) + 1
    assert told == []


def ending(step):
    raise End(step.what)


def test_a_library_that_computes_is_ended():
    with pytest.raises(End), listening(ending):
        torch.ones(2).add(1)


def test_a_library_is_asked_no_more_often_than_needed():
    told = []
    with listening(told.append):
        for _ in range(100):
            torch.ones(2).add(1)
    assert 1 <= len(told) < 1 + 20 / INTERVAL


def test_an_end_that_a_library_turned_into_another_error_or_swallowed_is_the_end():
    def compute():
        return torch.ones(2).add(1)

    def convert():
        try:
            compute()
        except End as error:
            compute()  # cleaning up is possible
            raise ValueError("broken file") from error

    with pytest.raises(End), listening(ending):
        convert()
    with pytest.raises(End), listening(ending), contextlib.suppress(End):
        compute()
    with pytest.raises(End), listening(ending, libraries=False), work("x"):
        pass


def test_other_threads_are_left_alone():
    failed = []

    def compute():
        try:
            torch.ones(2).add(1)
            heard()
        except End as error:
            failed.append(error)

    with listening(lambda step: ending(step) if threading.current_thread() is not threading.main_thread() else None):
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
    assert not failed
