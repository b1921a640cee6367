"""Every script has an example in --help, and suggests an option for a misspelt one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.using import load_tool

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


@pytest.mark.parametrize("name", TOOLS)
def test_help__has_an_example_that_names_the_command(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), "--help"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    _, _, example = done.stdout.partition("example:\n")
    command = re.search(r"^usage: (unreid [a-z-]+)", done.stdout)
    assert command and command[1] in example


@pytest.mark.parametrize("name", TOOLS)
def test_misspelt_option__gets_the_nearest_option_as_suggestion(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The longest option of each tool, with its last two letters swapped."""
    tool = load_tool(name.removesuffix(".py"))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    option = max(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE), key=len)
    wrong = option[:-2] + option[-1] + option[-2]
    with pytest.raises(SystemExit) as ended:
        tool.main([wrong])
    assert ended.value.code == 2
    assert f"unknown option {wrong}; did you mean {option!r}?" in capsys.readouterr().err


def test_tool_list__has_the_known_tools() -> None:
    assert {"train_net.py", "check_data.py", "demo.py", "make_demo_data.py"} <= set(TOOLS)
