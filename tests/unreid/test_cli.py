"""Command lines: suggestions, order of options, one-line errors, progress."""

from __future__ import annotations

import io

import pytest

from unreid.cli import Parser, Progress, duration, error_text, guarded


def parser() -> Parser:
    made = Parser(prog="tool", description="A tool.\n\nexample:\n  tool --root R")
    made.add_argument("--root")
    made.add_argument("--top-k", type=int)
    made.add_key_values()
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rot", "x"], "unknown option --rot; did you mean '--root'?"),
        (["--rot=x"], "unknown option --rot; did you mean '--root'?"),
        (["--roo", "x"], "unknown option --roo; did you mean '--root'?"),
        (["--zzz"], "unknown option --zzz\n"),
        (["A.B", "1", "--root", "x"], "--root must come before the KEY VALUE pairs"),
        (["A.B", "1", "--root=x"], "--root must come before the KEY VALUE pairs"),
        (["--top-k", "two"], "invalid int value: 'two'"),
    ],
)
def test_usage_error__has_a_suggestion_and_names_the_help(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and "tool --help has an example" in err


def test_surplus_argument__is_named(capsys: pytest.CaptureFixture[str]) -> None:
    made = Parser(prog="tool")
    made.add_argument("--root")
    with pytest.raises(SystemExit):
        made.parse_args(["--root", "x", "stray"])
    assert "unknown argument 'stray'" in capsys.readouterr().err


def test_help__keeps_the_line_breaks_of_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--help"])
    assert stop.value.code == 0 and "example:\n  tool --root R" in capsys.readouterr().out


def test_values__may_be_negative() -> None:
    args = parser().parse_args(["--root", "x", "A.B", "-1"])
    assert args.opts == ["A.B", "-1"] and args.root == "x"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("key 'x' is not there"),
        ValueError("bad"),
        FileNotFoundError(2, "No such file", "f"),
        RuntimeError("no"),
    ],
)
def test_bad_input__is_a_one_line_error_with_exit_code_2(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert guarded(work) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {error_text(error)}\n") and "UNREID_TRACEBACK=1" in err
    assert "Traceback" not in err


def test_exit_codes__of_success_failure_and_interruption() -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert guarded(lambda: None) == 0
    assert guarded(lambda: 1) == 1
    assert guarded(interrupt) == 130


def test_unexpected_error__keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 // 0)
    monkeypatch.setenv("UNREID_TRACEBACK", "1")
    with pytest.raises(ValueError, match="bad"):
        guarded(lambda: int("bad"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_duration__is_written_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_progress__shows_the_remaining_time(stream: io.StringIO) -> None:
    now = 0.0
    progress = Progress(100, "reading", stream, lambda: now)
    for _ in range(25):
        now += 1.0
        progress.step()
    text = stream.getvalue()
    if stream.isatty():
        assert text.endswith("\r\033[Kreading 25 of 100, 1 min 15 s left")
        progress.end()
        assert stream.getvalue().endswith("\r\033[K")
    else:
        assert text == ("reading 10 of 100, 1 min 30 s left\nreading 20 of 100, 1 min 20 s left\n")
        progress.end()
        assert stream.getvalue() == text
