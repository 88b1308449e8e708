"""Laws of ending signals: raised once, held back where asked, and nothing of it stays behind."""

from __future__ import annotations

import signal
import threading

import pytest

from danceopd_core.signals import ENDING, Terminated, held, raised


@pytest.mark.parametrize("number", ENDING)
def test_an_ending_signal_is_raised_and_its_handler_comes_back(number):
    before = [signal.getsignal(each) for each in ENDING]
    with pytest.raises(Terminated, match=f"stopped by {signal.Signals(number).name}"), raised():
        signal.raise_signal(number)
    assert [signal.getsignal(each) for each in ENDING] == before


def test_what_follows_the_first_signal_is_ignored_while_it_is_handled():
    done = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Terminated:
            for number in ENDING:
                signal.raise_signal(number)
            done.append("saved")
            raise

    with pytest.raises(Terminated, match="SIGTERM"), raised():
        work()
    assert done == ["saved"]


def test_who_presses_ctrl_c_again_after_a_while_does_not_want_to_wait(monkeypatch):
    monkeypatch.setattr("danceopd_core.signals.INSISTING", 0.0)

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Terminated, match="SIGINT"), raised():
        work()


def test_a_held_signal_takes_effect_at_the_end_of_the_block():
    done = []

    def work():
        with held(), held():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")
        done.append("never")

    with pytest.raises(Terminated, match="SIGTERM"), raised():
        work()
    assert done == ["whole"]


def test_an_ignored_signal_stays_ignored():
    """As `nohup` ignores the end of the terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raised():
            signal.raise_signal(signal.SIGHUP)
        with held():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_handled():
    seen = []

    def work():
        with raised(), held():
            seen.append([signal.getsignal(number) for number in ENDING])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[signal.getsignal(number) for number in ENDING]]
