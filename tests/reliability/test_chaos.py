"""The short form of ``make chaos``: three kills, a SIGTERM, a Ctrl-C and a full disk."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.projects.overrides import ROOT


def test_killed_stopped_and_full__every_resume_ends_as_the_quiet_run() -> None:
    """In a process of its own: it forks, which a process with threads must not."""
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.reliability.chaos",
            "--kills",
            "3",
            "--stops",
            "2",
            "--full",
            "1",
            "--seed",
            "3",
        ],
        cwd=ROOT,
        env={**os.environ, **one},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    survived = done.stdout.splitlines()[-1]
    assert survived.endswith(
        "survived: 1 x SIGINT, 1 x SIGTERM, 1 x checkpoint, 1 x full disk, 1 x labels, 1 x time"
    )
