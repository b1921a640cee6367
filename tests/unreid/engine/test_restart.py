"""The bug of torchrun that ``unreid/engine/rendezvous.py`` works around."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import os, time
from datetime import timedelta
import torch
from torch import distributed

distributed.init_process_group("gloo", timeout=timedelta(seconds=30))
distributed.all_reduce(torch.ones(1))
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    time.sleep(60)
"""


# Observed with torch 2.14; older releases may not have it.
@pytest.mark.xfail(
    strict=tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14),
    raises=AssertionError,
    reason="torchrun restarts processes with the store of the previous start",
)
def test_process_group__of_restarted_processes_needs_no_fresh_store(tmp_path: Path) -> None:
    """If this passes, ``fresh_store`` is not needed with the installed version of torch."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "--max-restarts",
            "1",
            str(script),
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0
