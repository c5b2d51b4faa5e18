"""How a grid's driver learns that it is to stop."""

import ctypes
import os
import signal
import threading
import time

import pytest

from cider_platform.grids.stopping import Stopping, ask_to_stop
from cider_platform.layout import GridFolder


@pytest.fixture
def folder(tmp_path):
    return GridFolder.of(tmp_path, "demo-1")


def wait_for(received):
    deadline = time.monotonic() + 20
    while not received and time.monotonic() < deadline:
        time.sleep(0.02)
    return received


def test_request_in_the_folder_counts_as_sigterm_and_is_taken_away(folder):
    before = signal.getsignal(signal.SIGTERM)
    with Stopping(folder) as received:
        ask_to_stop(folder)
        assert wait_for(received) == [signal.SIGTERM]
    assert not folder.cancel.exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_signal_is_noted_and_the_next_one_acts_as_usual(folder):
    before = signal.getsignal(signal.SIGINT)
    with Stopping(folder) as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert wait_for(received) == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) == before


def test_handler_that_a_library_put_beneath_python_is_replaced_again(folder):
    """Ray does so when it starts; Python goes on to believe that its own handler is in place."""
    libc = ctypes.CDLL(None)
    with (stopping := Stopping(folder)) as received:
        libc.signal(signal.SIGTERM.value, ctypes.c_void_p(1))  # ignored
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == []
        stopping.listen_again()
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait_for(received) == [signal.SIGTERM]


def test_outside_the_main_thread_the_request_alone_counts(folder):
    found = []

    def drive():
        with Stopping(folder) as received:
            ask_to_stop(folder)
            found.extend(wait_for(received))

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert found == [signal.SIGTERM]


def test_search_that_begins_after_the_signal_is_told_of_it(folder):
    """A search has a handler of its own, and would otherwise run to its end."""
    heard = []
    with Stopping(folder) as received:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(received)
        ours = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
        try:
            assert wait_for(heard) == [signal.SIGTERM]
        finally:
            signal.signal(signal.SIGTERM, ours)
