"""From ``--num-gpus`` to processes, and what their end means to whoever started them."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unreid.engine import launch

ROOT = Path(__file__).resolve().parents[3]

#: Stands for the tool: writes down what it was given, and ends as its option says.
SCRIPT = """
import os, sys, time
rank, how, folder = int(os.environ["RANK"]), sys.argv[1], sys.argv[2]
names = ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "OMP_NUM_THREADS")
with open(os.path.join(folder, str(rank)), "w") as file:
    file.write(" ".join(os.environ[name] for name in names))
if how == "fail" and rank == 1:
    sys.exit(2)
if how == "killed" and rank == 1:
    os.kill(os.getpid(), 9)
if how != "well":
    time.sleep(60)
"""

#: The launcher, in a process of its own: it takes the signals over.
LAUNCHER = """
import argparse, sys
from unreid.engine import launch
parser = argparse.ArgumentParser()
launch.add_options(parser)
args, rest = parser.parse_known_args()
assert launch.wanted(args)
sys.exit(launch.launch(args, rest[0], rest[1:]))
"""


def started(folder: Path, how: str, *options: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *options, str(script), how, str(folder)],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_processes__know_their_number_and_share_the_cores(tmp_path: Path) -> None:
    process = started(tmp_path, "well", "--num-gpus", "2")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for rank in range(2):
        assert (tmp_path / str(rank)).read_text() == f"{rank} 2 2 0 {threads}"


@pytest.mark.parametrize(("how", "code"), [("fail", 2), ("killed", 1)])
def test_process_that_ends_early__ends_the_others_and_gives_its_code(
    how: str, code: int, tmp_path: Path
) -> None:
    begun = time.monotonic()
    process = started(tmp_path, how, "--num-gpus", "2")
    process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - begun < 50, "the other one would have slept for a minute"


def test_sigterm_to_the_launcher__reaches_everybody(tmp_path: Path) -> None:
    process = started(tmp_path, "wait", "--num-gpus", "2")
    end = time.monotonic() + 50
    while not all((tmp_path / str(rank)).exists() for rank in range(2)):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=50)
    assert process.returncode == 128 + signal.SIGTERM


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    launch.add_options(parser)
    return parser.parse_args(list(words))


def test_process_of_a_launcher__starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launch.wanted(arguments())
    assert launch.wanted(arguments("--num-gpus", "2"))
    assert launch.wanted(arguments("--num-machines", "2"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch.wanted(arguments("--num-gpus", "2"))
    assert launch.started_by_launcher()


def test_restart_by_torchrun__is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not launch.restarted()
    for count, known in (("0", False), ("1", True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert launch.restarted() is known
