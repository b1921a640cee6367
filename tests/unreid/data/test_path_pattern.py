"""Path patterns: three forms, and the time limit of slow regular expressions."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from unreid.data import path_pattern
from unreid.data.folder import read_folder
from unreid.data.path_pattern import PathPattern

SLOW = "(a+)+(?P<camera>b)$"


@pytest.mark.parametrize(
    ("written", "path", "fields"),
    [
        (
            "cam{camera}/person{id}_*.jpg",
            "cam12/person0007_shot04.jpg",
            {"camera": "12", "id": "0007"},
        ),
        ("cam{camera}/person{id}_*.jpg", "shop/cam12/person7_a_b.jpg", {"camera": "12", "id": "7"}),
        ("cam{camera}/person{id}_*.jpg", "xcam12/person7_a.jpg", None),
        ("cam{camera}", "cam12/7.jpg", {"camera": "12"}),
        ("{id}_c{camera}s?_*", "0007_c3s1_00.jpg", {"id": "0007", "camera": "3"}),
        ("{camera}/*.(1).jpg", "door/a.(1).jpg", {"camera": "door"}),
        ("cam(?P<camera>[0-9]+)", "cam12/7.jpg", {"camera": "12"}),
        ("cam([0-9]+)", "cam12/7.jpg", {"camera": "12"}),
        ("cam[0-9]+", "cam12/7.jpg", {}),
    ],
)
def test_three_forms__of_a_pattern(written: str, path: str, fields: dict | None) -> None:
    assert PathPattern.compile(written).search([path]) == [fields]


def test_one_unnamed_group__is_the_requested_field() -> None:
    assert PathPattern.compile("p([0-9]+)", "id").search(["p7", "x"]) == [{"id": "7"}, None]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("(", "must be a regular expression, or a plain pattern"),
        ("(?P<kamera>.)", "a named group of the pattern must be one of"),
        ("{camera}/{camera}", "must name {camera} once"),
    ],
)
def test_invalid_pattern__is_an_error(written: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PathPattern.compile(written)


def test_slow_expression__is_an_error_that_names_pattern_and_path(tmp_path: Path) -> None:
    """The search takes 2^40 steps, so without the limit this test would not end."""
    slow = "a" * 40 + ".jpg"
    for name in ("aab.jpg", slow):
        (tmp_path / name).touch()
    started = time.process_time()
    with pytest.raises(ValueError, match="takes too long to search") as error:
        read_folder(tmp_path, pattern=SLOW.replace("$", "[.]jpg$"))
    assert time.process_time() - started < 5 * path_pattern.SECONDS_PER_PATH
    assert "(a+)+(?P<camera>b)[.]jpg$" in str(error.value) and slow in str(error.value)


def test_many_slow_paths__exceed_the_limit_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_pattern, "MEAN_SECONDS", 1e-5)
    monkeypatch.setattr(path_pattern, "SECONDS_PER_PATH", 0.3)
    paths = ["a" * 20 + str(number) for number in range(1000)]  # 0.1 s each
    with pytest.raises(ValueError, match="takes too long to search"):
        PathPattern.compile(SLOW).search(paths)


def test_slow_expression_in_a_thread__is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_pattern, "SECONDS_PER_PATH", 0.5)
    outcomes: list[object] = []

    def search() -> None:
        outcomes.append(PathPattern.compile("cam([0-9]+)").search(["cam1/a.jpg", "b.jpg"]))
        try:
            PathPattern.compile(SLOW).search(["a" * 40])
        except ValueError as error:
            outcomes.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and outcomes[0] == [{"camera": "1"}, None]
    assert "takes too long to search" in str(outcomes[1])


def test_timer_and_signal_handler__are_restored() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    PathPattern.compile("cam([0-9]+)").search(["cam1"])
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
