"""The environment report is complete and names no user, machine or folder."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unreid import __version__
from unreid.env import environment, kernel_names, main

ROOT = Path(__file__).resolve().parents[2]


def test_module__prints_versions_device_threads_and_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unreid.env"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    for words in (["unreid", __version__], ["torch", torch.__version__]):
        assert words in lines
    first = {words[0] for words in lines}
    assert {"device", "threads", "cores", "python", *kernel_names()} <= first


def test_kernels__are_all_named_and_the_reference_is_called_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = {p.stem for p in (ROOT / "unreid/kernels").glob("*.pyx")}
    assert set(kernel_names()) == sources
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    found = environment()["kernels"]
    assert all("not compiled" in found[name] for name in sources)
    assert "pip install -e ." in found["to compile"]


def test_output__has_no_path_user_or_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", "/pictures/consented")
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "FASTREID_DATASETS     set\n" in text
    for private in ("/images", os.getcwd(), platform.node() or "?", os.path.expanduser("~/")):
        assert private not in text
    if getpass.getuser() not in ("root", "torch"):
        assert getpass.getuser() not in text.split()


def test_misspelt_option__is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--versions"])
