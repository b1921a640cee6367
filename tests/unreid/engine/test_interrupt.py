"""SIGTERM and Ctrl-C: exceptions, deferred signals, exit codes and messages of a command."""

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
def test_first_signal__raises_and_the_handlers_are_restored(
    number: int, raised: type[BaseException]
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(raised) as error, raise_on_signals():
        send(number)
    assert type(error.value) is raised
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert received_signal() is None


def test_second_signal__does_not_interrupt_saving_and_the_third_does() -> None:
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


def test_signal__is_deferred_until_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(Terminated), raise_on_signals():
        with replace_file(str(path), "w") as file:
            file.write("first, ")
            send()
            file.write("second")
        pytest.fail("the signal is lost")
    assert path.read_text() == "first, second" and os.listdir(tmp_path) == ["file"]


def test_defer_signals__may_be_nested() -> None:
    reached = []
    with pytest.raises(Terminated), raise_on_signals(), defer_signals():
        with defer_signals():
            send()
        reached.append("end of the inner block")
    assert reached


def test_saving_after_a_signal__is_not_interrupted_by_that_signal(tmp_path: Path) -> None:
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
def test_discarded_exception__is_raised_again_by_reraise_signal() -> None:
    class Dying:
        def __del__(self) -> None:
            send()

    with raise_on_signals():
        reraise_signal()  # no signal yet: no effect
        thing = Dying()
        del thing  # Python prints and discards the exception
        with pytest.raises(Terminated):
            reraise_signal()


def test_ignored_signal__stays_ignored() -> None:
    """As set by nohup and for background jobs of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with raise_on_signals():
            send(signal.SIGINT)
        assert received_signal() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads__change_no_handler() -> None:
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
def test_command__exits_with_the_code_of_the_signal_and_prints_the_message(
    number: int, code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @interrupt_message("epoch 3 is saved")
    def work() -> None:
        send(number)

    assert guarded(work) == code
    assert capsys.readouterr().err == f"\n{word}: epoch 3 is saved\n"
    assert guarded(lambda: send(number)) == code
    assert capsys.readouterr().err == f"\n{word}\n"


def test_error_during_shutdown__is_printed_and_the_exit_code_is_that_of_the_signal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        try:
            send()
        finally:
            raise RuntimeError("could not close it")

    assert guarded(work) == 143
    assert capsys.readouterr().err == "\nterminated: could not close it\n"
