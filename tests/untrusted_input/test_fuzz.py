"""Commands on a selection of untrusted inputs; ``make fuzz`` runs all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.projects.overrides import ROOT
from tests.untrusted_input import fuzz
from tests.untrusted_input.case import Case
from tests.untrusted_input.damage import damage
from tests.untrusted_input.trial import Outcome, attempt

INPUTS = [(entry.kind, entry.name) for entry in fuzz.short_inputs()]


@pytest.fixture(scope="module")
def problems() -> dict[tuple[str, str], str]:
    """Return (kind, name) -> problem and output, or "".

    Runs in a subprocess with one thread, because a fork of a process with threads may deadlock.
    """
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.untrusted_input.fuzz", "--short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **one},
        check=False,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(rows) == len(INPUTS), done.stderr
    return {
        (kind, name): f"{problem}\n{output}" if problem else ""
        for kind, name, problem, output in rows
    }


@pytest.mark.parametrize(("kind", "name"), INPUTS)
def test_untrusted_input__gives_a_result_or_a_one_line_error(
    kind: str, name: str, problems: dict[tuple[str, str], str]
) -> None:
    assert problems[kind, name] == ""


def test_inputs__are_at_least_300_and_reproducible() -> None:
    once, again = ([(i.kind, i.name) for i in fuzz.inputs(360)] for _ in range(2))
    assert once == again and len(set(once)) == len(once) >= 300
    assert {kind for kind, _ in once} == set(fuzz.KINDS)


def test_damage__changes_bytes_and_is_reproducible() -> None:
    data = bytes(range(256)) * 4
    once, again = ([damage(data, np.random.default_rng(i)) for i in range(30)] for _ in range(2))
    assert once == again and sum(d != data for d in once) >= 28


# --- the test program itself ---


def problem_of(command: object, tmp_path: Path, **settings: object) -> str:
    case = Case("none", (), ("bad.file",), **settings)  # type: ignore[arg-type]
    return fuzz.find_problem(case, attempt(command), tmp_path)  # type: ignore[arg-type]


def _say(text: str, code: int) -> int:
    sys.stderr.write(text)
    return code


def test_find_problem__accepts_a_result_and_an_error_that_names_the_file(tmp_path: Path) -> None:
    assert problem_of(lambda: 0, tmp_path) == ""
    assert problem_of(lambda: _say("error: bad.file is no file\n", 2), tmp_path) == ""


def test_find_problem__names_each_kind_of_problem(tmp_path: Path) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    assert problem_of(fail, tmp_path) == "traceback"
    assert problem_of(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path) == "killed"
    assert (
        problem_of(lambda: _say("error: something\n", 2), tmp_path)
        == "the error does not name the file"
    )
    assert problem_of(lambda: _say("oh\n", 2), tmp_path) == "refused without an error"
    assert problem_of(lambda: 0, tmp_path, refuse=True) == "an invalid file was accepted"
    large = Outcome(0, "", 0.0, fuzz.MAX_MEMORY_GROWTH + 1)
    assert fuzz.find_problem(Case("none", (), ()), large, tmp_path).startswith("memory grew by")
    (tmp_path / "pwned").touch()
    assert problem_of(lambda: 0, tmp_path) == "it executed code of the file"


def test_attempt__kills_after_the_timeout_and_measures_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.untrusted_input.trial.WALL_SECONDS", 0.5)
    assert attempt(lambda: time.sleep(60)).verdict == "killed"
    monkeypatch.undo()
    # Memory counts as resident only after it is written.
    growth = attempt(lambda: len(b"x" * 2**26) * 0).memory_growth
    assert growth > 2**25
