"""Launching several processes, and what happens when one of them fails."""

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

#: Replaces the training script: writes its environment to a file, and ends as its option says.
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

#: The launcher, in a separate process, because it installs signal handlers.
LAUNCHER = """
import argparse, sys
from unreid.engine import launch
parser = argparse.ArgumentParser()
launch.add_options(parser)
args, rest = parser.parse_known_args()
assert launch.should_launch(args)
sys.exit(launch.launch(args, rest[0], rest[1:]))
"""


def started(folder: Path, how: str, *options: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *options, str(script), how, str(folder)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


#: Replaces a training: rank 0 computes while the others wait for it, and saves on an error.
TRAINING = """
import os, pathlib, sys, time
sys.path.insert(0, {root!r})
import unreid
from unreid.engine import distributed, launch

rank, how, folder = int(os.environ["RANK"]), sys.argv[1], pathlib.Path(sys.argv[2])

def compute():
    (folder / "computes").touch()
    if how == "rank 0 fails":
        raise RuntimeError("no cluster")
    time.sleep(600)

def work():
    with launch.errors_on_rank_0():
        if how == "all fail":
            raise ValueError("K must be >= 2")
    with distributed.launched_process_group("cpu"):
        distributed.all_gather(rank)
        (folder / f"pid {{rank}}").write_text(str(os.getpid()))
        if rank == 1 and how == "rank 1 fails":
            raise ValueError("this image is damaged")
        if rank == 1 and how == "rank 1 is terminated":
            time.sleep(0.5)
            os.kill(os.getpid(), 15)
        if rank == 1 and how == "rank 1 has a bug":
            raise AssertionError("a bug")
        try:
            distributed.run_on_rank_0(compute)
        except BaseException:
            (folder / f"saved {{rank}}").touch()
            raise

sys.exit(launch.run_rank(work))
"""


def training(folder: Path, how: str, *, size: int = 3) -> subprocess.Popen[str]:
    """Launch ``size`` processes of :data:`TRAINING`."""
    script = folder / "training.py"
    script.write_text(TRAINING.format(root=str(ROOT)))
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, "--num-gpus", str(size), str(script), how, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def until_it_computes(folder: Path, process: subprocess.Popen[str], size: int = 3) -> None:
    end = time.monotonic() + 200
    wanted = [folder / "computes", *(folder / f"pid {rank}" for rank in range(size))]
    while not all(path.exists() for path in wanted):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)


def finish(process: subprocess.Popen[str], seconds: float = 200) -> tuple[int, str]:
    """Return exit code and console output; fails if the computation of 600 s is not ended."""
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output + errors


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank__ends_all_processes_within_seconds_and_is_named(
    victim: int, tmp_path: Path
) -> None:
    process = training(tmp_path, "well")
    until_it_computes(tmp_path, process)
    os.kill(int((tmp_path / f"pid {victim}").read_text()), signal.SIGKILL)
    killed = time.monotonic()
    code, output = finish(process)
    assert code == 1
    assert time.monotonic() - killed < 45, "the other ranks would compute for 600 s"
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        f"error: rank {victim} of 3 was killed by SIGKILL (out of memory?)"
    ], output
    assert (tmp_path / "saved 0").exists() == (victim != 0)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("rank 1 fails", 2, "rank 1 of 3: ValueError: this image is damaged"),
        ("rank 0 fails", 2, "rank 0 of 3: RuntimeError: no cluster"),
        ("all fail", 2, "rank 0 of 3: ValueError: K must be >= 2"),
        ("rank 1 has a bug", 1, "rank 1 of 3: AssertionError: a bug"),
    ],
)
def test_error_of_a_rank__is_printed_once_and_its_code_is_the_exit_code(
    how: str, code: int, message: str, tmp_path: Path
) -> None:
    found, output = finish(training(tmp_path, how))
    assert found == code, output
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        f"error: {message}"
    ], output
    bug = code == 1
    assert ("Traceback" in output) == bug, "only errors other than bad input have a traceback"
    assert output.count(message.split(": ")[-1]) == 1 + 2 * bug


def test_sigterm_to_one_rank__lets_rank_0_save(tmp_path: Path) -> None:
    """A rank that waits for rank 0 inside gloo handles its signal after the wait only."""
    code, output = finish(training(tmp_path, "rank 1 is terminated"))
    assert code == 128 + signal.SIGTERM
    assert "error: rank 1 of 3 was ended by SIGTERM" in output
    assert (tmp_path / "saved 0").exists()


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")]
)
def test_signal_to_the_launcher__lets_rank_0_save_and_print_one_message(
    number: signal.Signals, word: str, tmp_path: Path
) -> None:
    process = training(tmp_path, "well")
    until_it_computes(tmp_path, process)
    process.send_signal(number)
    code, output = finish(process)
    assert code == 128 + number
    assert (tmp_path / "saved 0").exists()
    assert output.splitlines().count(word) == 1 and "Traceback" not in output


def test_processes__get_their_rank_and_share_the_cores(tmp_path: Path) -> None:
    process = started(tmp_path, "well", "--num-gpus", "2")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for rank in range(2):
        assert (tmp_path / str(rank)).read_text() == f"{rank} 2 2 0 {threads}"


@pytest.mark.parametrize(("how", "code"), [("fail", 2), ("killed", 1)])
def test_process_that_ends_early__ends_the_others_and_sets_the_exit_code(
    how: str, code: int, tmp_path: Path
) -> None:
    begun = time.monotonic()
    process = started(tmp_path, how, "--num-gpus", "2")
    process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - begun < 50, "the other process would sleep for a minute"


def test_sigterm_to_the_launcher__reaches_all_processes(tmp_path: Path) -> None:
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


def test_launched_process__does_not_launch_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launch.should_launch(arguments())
    assert launch.should_launch(arguments("--num-gpus", "2"))
    assert launch.should_launch(arguments("--num-machines", "2"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch.should_launch(arguments("--num-gpus", "2"))
    assert launch.started_by_launcher()


def test_launch_options__are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    with pytest.raises(SystemExit):
        launch.check_options(parser, arguments("--max-restarts", "-1"))
    assert "--max-restarts must be >= 0, got -1" in capsys.readouterr().err


def test_restart_by_torchrun__is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not launch.restarted()
    for count, known in (("0", False), ("1", True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert launch.restarted() is known
