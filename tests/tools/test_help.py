"""Every tool's --help has an example, and a misspelt option of it ends with the nearest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


@pytest.mark.parametrize("name", TOOLS)
def test_help__has_an_example_that_names_the_tool(name: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tools" / name), "--help"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    _, _, example = done.stdout.partition("example:\n")
    assert f"python tools/{name}" in example


def test_tools__are_found() -> None:
    assert {"train_net.py", "check_data.py", "demo.py", "make_demo_data.py"} <= set(TOOLS)
