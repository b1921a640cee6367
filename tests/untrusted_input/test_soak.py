"""Short soak test with seven label steps; ``make soak`` runs fifty."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import pytest

from tests.projects.overrides import ROOT

SCRIPT = ROOT / "benchmarks" / "soak.py"


def _module() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_label_steps__leak_no_memory_files_processes_or_threads() -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(SCRIPT),
            "--refreshes",
            "7",
            "UNSUP.ITERS_PER_EPOCH",
            "1",
            "DATASETS.TESTS",
            "()",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "7 refreshes" in done.stdout


def test_faults__names_the_resource_that_grows() -> None:
    soak = _module()
    flat = [soak.State(1000, 10, 2, 5)] * 12
    assert soak.faults(flat) == []
    assert soak.faults([soak.State(500 + 100 * i, 10, 2, 5) for i in range(5)] + flat[:7]) == [
        "memory grew by 11.1 %"
    ]
    assert soak.faults([*flat[:11], soak.State(1000, 12, 3, 6)]) == [
        "files: 10, then 12",
        "processes: 2, then 3",
        "threads: 5, then 6",
    ]
    # A single larger value is no leak.
    assert soak.faults([*flat[:11], soak.State(1050, 10, 2, 5)]) == []
