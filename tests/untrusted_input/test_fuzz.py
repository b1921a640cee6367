"""Untrusted inputs, a short selection; ``make fuzz`` runs all of them."""

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
def faults() -> dict[tuple[str, str], str]:
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
    return {(kind, name): f"{fault}\n{said}" if fault else "" for kind, name, fault, said in rows}


@pytest.mark.parametrize(("kind", "name"), INPUTS)
def test_malicious_input__ends_in_a_result_or_a_clear_error(
    kind: str, name: str, faults: dict[tuple[str, str], str]
) -> None:
    assert faults[kind, name] == ""


def test_all_inputs__are_three_hundred_or_more_and_the_same_every_time() -> None:
    once, again = ([(i.kind, i.name) for i in fuzz.inputs(360)] for _ in range(2))
    assert once == again and len(set(once)) == len(once) >= 300
    assert {kind for kind, _ in once} == set(fuzz.KINDS)


def test_damage__changes_bytes_and_repeats() -> None:
    data = bytes(range(256)) * 4
    once, again = ([damage(data, np.random.default_rng(i)) for i in range(30)] for _ in range(2))
    assert once == again and sum(d != data for d in once) >= 28


# --- the judge itself ---


def judged(command: object, tmp_path: Path, **settings: object) -> str:
    case = Case("none", (), ("bad.file",), **settings)  # type: ignore[arg-type]
    return fuzz.judge(case, attempt(command), tmp_path)  # type: ignore[arg-type]


def _say(text: str, code: int) -> int:
    sys.stderr.write(text)
    return code


def test_judge__accepts_a_result_and_an_error_that_names_the_file(tmp_path: Path) -> None:
    assert judged(lambda: 0, tmp_path) == ""
    assert judged(lambda: _say("error: bad.file is no file\n", 2), tmp_path) == ""


def test_judge__sees_what_is_wrong(tmp_path: Path) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    assert judged(fail, tmp_path) == "traceback"
    assert judged(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path) == "killed"
    assert (
        judged(lambda: _say("error: something\n", 2), tmp_path)
        == "the error does not name the file"
    )
    assert judged(lambda: _say("oh\n", 2), tmp_path) == "refused without an error"
    assert judged(lambda: 0, tmp_path, refuse=True) == "it was believed"
    large = Outcome(0, "", 0.0, fuzz.MAX_GROWN + 1)
    assert fuzz.judge(Case("none", (), ()), large, tmp_path).startswith("it grew by")
    (tmp_path / "pwned").touch()
    assert judged(lambda: 0, tmp_path) == "it ran what the file asked for"


def test_trial__ends_what_hangs_and_measures_what_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.untrusted_input.trial.WALL_SECONDS", 0.5)
    assert attempt(lambda: time.sleep(60)).verdict == "killed"
    monkeypatch.undo()
    # Written to, or it would be no memory yet.
    grown = attempt(lambda: len(b"x" * 2**26) * 0).grown
    assert grown > 2**25
