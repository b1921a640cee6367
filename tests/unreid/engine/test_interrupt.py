"""SIGTERM and Ctrl-C: what they raise, when they wait, and the exit code of a tool."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from unreid.cli import guarded
from unreid.engine.atomic import replace_file
from unreid.engine.interrupt import (
    Terminated,
    defer_signals,
    interrupt_message,
    raise_on_signals,
    received_signal,
    reraise_signal,
)

BOTH = pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@BOTH
def test_first_signal__raises_and_the_handlers_come_back(
    number: int, raised: type[BaseException]
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(raised) as error, raise_on_signals():
        send(number)
    assert type(error.value) is raised
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert received_signal() is None


def test_second_signal__does_not_break_off_the_saving_and_the_third_does() -> None:
    saved = []
    with pytest.raises(KeyboardInterrupt), raise_on_signals():
        try:
            send()
        except Terminated:
            send(signal.SIGINT)
            saved.append(1)
            send(signal.SIGINT)
            saved.append(2)
    assert saved == [1]


def test_signal__waits_for_the_file_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(Terminated), raise_on_signals():
        with replace_file(str(path), "w") as file:
            file.write("first, ")
            send()
            file.write("second")
        pytest.fail("the signal is lost")
    assert path.read_text() == "first, second" and os.listdir(tmp_path) == ["file"]


def test_held_blocks__may_be_nested() -> None:
    reached = []
    with pytest.raises(Terminated), raise_on_signals(), defer_signals():
        with defer_signals():
            send()
        reached.append("the end of the inner one")
    assert reached


def test_saving_after_a_signal__is_not_broken_off_by_that_signal(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(Terminated), raise_on_signals():
        try:
            send()
        except Terminated:
            with replace_file(str(path), "w") as file:
                file.write("saved")
            raise
    assert path.read_text() == "saved"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_exception_that_was_lost__is_raised_where_the_loop_comes_round() -> None:
    class Dying:
        def __del__(self) -> None:
            send()

    with raise_on_signals():
        reraise_signal()  # nothing came yet
        thing = Dying()
        del thing  # Python prints the exception, and goes on
        with pytest.raises(Terminated):
            reraise_signal()


def test_ignored_signal__stays_ignored() -> None:
    """nohup and the background jobs of a shell ask for it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with raise_on_signals():
            send(signal.SIGINT)
        assert received_signal() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads__are_left_alone() -> None:
    seen = []

    def work() -> None:
        with raise_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_tool__ends_with_the_code_of_the_signal_and_says_what_stands(
    number: int, code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @interrupt_message("it stands")
    def work() -> None:
        send(number)

    assert guarded(work) == code
    assert capsys.readouterr().err == f"\n{word}: it stands\n"
    assert guarded(lambda: send(number)) == code
    assert capsys.readouterr().err == f"\n{word}\n"


def test_error_on_the_way_out__is_said_and_the_code_stays_that_of_the_signal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        try:
            send()
        finally:
            raise RuntimeError("could not close it")

    assert guarded(work) == 143
    assert capsys.readouterr().err == "\nterminated: could not close it\n"
