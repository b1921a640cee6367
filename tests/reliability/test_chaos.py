"""Short version of ``make chaos``: three kills, a SIGTERM, a SIGINT and a full disk."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.projects.overrides import ROOT


def test_kill_stop_and_full_disk__resume_gives_the_results_of_the_uninterrupted_run() -> None:
    """In a separate process, because chaos.py forks, which is unsafe with threads."""
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
    counts = done.stdout.splitlines()[-1]
    assert counts.endswith(
        "interruptions: 1 x SIGINT, 1 x SIGTERM, 1 x checkpoint, 1 x full disk, 1 x labels,"
        " 1 x time"
    )
