"""Kill and resume trainings at random; the results must equal those of an uninterrupted run.

Example:
  python -m tests.reliability.chaos --kills 20 --seed 0

Each run is a forked process on a small synthetic dataset. One of these interruptions ends it:

- SIGKILL at a random time, or within a random write of a checkpoint, of labels or of another file;
- SIGTERM or SIGINT at a random time;
- a limit of the file size, which has the effect of a full disk.

After each interruption every file must be complete. After up to three interruptions a run is
resumed to the last epoch. Labels, weights, optimiser state and scores must be bit-identical to
those of an uninterrupted run.

The library has no hook for this: the test replaces ``open`` in ``unreid.engine.atomic``.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import unreid  # noqa: F401  (before fastreid: makes it importable)
from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import MARKET, assert_same_labels, assert_same_weights, load_tiny
from tests.tools.using import load_tool
from unreid.data.synthetic import generate_dataset
from unreid.engine import atomic

#: Stage 1: 3 cameras x 2 epochs x 2 iterations. Stage 2: 3 epochs x 2 iterations; it saves every
#: second epoch.
SETTINGS = {
    "CALR__INTRA__EPOCHS": 2,
    "CALR__INTRA__ITERS_PER_EPOCH": 2,
    "SOLVER__MAX_EPOCH": 3,
    "SOLVER__CHECKPOINT_PERIOD": 2,
    "UNSUP__EVAL_BEFORE": True,
}

#: Exit codes after a signal that a run handles.
STOPPED = {"SIGTERM": 143, "SIGINT": 130}

#: Smallest file size limit, in bytes: larger than log.txt, smaller than a checkpoint.
SMALLEST_LIMIT = 200_000

#: Kind of file -> whether a path is of this kind.
WRITES: dict[str, Callable[[str], bool]] = {
    "checkpoint": lambda path: path.endswith((".pth", "last_checkpoint")),
    "labels": lambda path: path.endswith(".npz"),
    "other": lambda path: path.endswith((".json", ".jsonl", ".yaml")),
}


def kind_of(path: str) -> str:
    """Return the key of :data:`WRITES` for a path."""
    return next(kind for kind, fits in WRITES.items() if fits(path))


class Writes:
    """Count the writes of a process by kind, and kill the process within one of them.

    Args:
        kill_at: (kind, number from 1) of the write within which the process is killed, or None to
            count only.
    """

    def __init__(self, kill_at: tuple[str, int] | None) -> None:
        self.kill_at = kill_at
        self.counts = dict.fromkeys(WRITES, 0)

    def open(self, path: str, mode: str, buffering: int = -1) -> Any:
        """Open a file; replaces ``open`` in :mod:`unreid.engine.atomic`."""
        file = builtins.open(path, mode, buffering)  # noqa: SIM115
        kind = kind_of(path.removesuffix(f".{os.getpid()}.tmp"))
        write = file.write

        def counted_write(data: Any) -> Any:
            self.counts[kind] += 1
            if self.kill_at == (kind, self.counts[kind]):
                divisible = isinstance(data, (str, bytes, memoryview))
                write(data[: len(data) // 2] if divisible else data)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return write(data)

        return _FileWithWrite(file, counted_write)


class _FileWithWrite:
    """A file with another ``write`` method."""

    def __init__(self, file: Any, write: Callable[[Any], Any]) -> None:
        self._file = file
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _FileWithWrite:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@dataclass
class Outcome:
    """Exit code of one process (negative for a signal), its wall seconds, and writes by kind."""

    code: int
    seconds: float
    writes: dict[str, int]


class Chaos:
    """Interrupted runs on one dataset, and the uninterrupted reference run.

    Args:
        folder: Folder for the dataset, the runs and their console output.
        settings: Config of every run, in addition to :data:`SETTINGS`.
    """

    def __init__(self, folder: Path, settings: dict[str, object] | None = None) -> None:
        self.folder = folder
        self.settings = {**SETTINGS, **(settings or {})}
        self.data = folder / "data"
        generate_dataset(
            self.data, num_train_ids=8, num_test_ids=6, num_cameras=3, images_per_id=9, seed=0
        )
        self.tool = load_tool("train_net")
        load_tiny(MARKET)  # imports the project before the first fork
        self.uninterrupted = folder / "uninterrupted"
        self.reference = self.run_process(self.uninterrupted)
        if self.reference.code:
            raise RuntimeError(
                f"the uninterrupted run failed:\n{self.console_output(self.uninterrupted)}"
            )
        self.duration = self.reference.seconds

    def console_output(self, output: Path) -> str:
        """Return the last 3000 characters of the console output of a run."""
        return output.with_suffix(".txt").read_text()[-3000:]

    def run_process(
        self,
        output: Path,
        *flags: str,
        kill_at: tuple[str, int] | None = None,
        after: float | None = None,
        number: int = signal.SIGKILL,
        prepare: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Run one process, and wait for its end.

        Args:
            output: Output folder of the run.
            flags: Options such as ``--resume``.
            kill_at: See :class:`Writes`.
            after: Seconds after which the signal ``number`` is sent, or None.
            number: The signal.
            prepare: Called first in the process.
        """
        arguments = [
            "--config-file",
            str(ROOT / MARKET),
            *flags,
            *tiny_options(MARKET, output, **self.settings),
        ]
        counts = output.with_suffix(".counts")
        started = time.monotonic()
        child = os.fork()
        if not child:
            self._train(arguments, output, counts, kill_at, prepare)
        if after is not None:
            while (
                time.monotonic() - started < after
                and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            ):
                time.sleep(0.002)
            os.kill(child, number)
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        return Outcome(code, seconds, json.loads(counts.read_text()) if code == 0 else {})

    def _train(
        self,
        arguments: list[str],
        output: Path,
        counts: Path,
        kill_at: tuple[str, int] | None,
        prepare: Callable[[], None],
    ) -> None:
        """Train in the forked process; never returns."""
        code = 70
        try:
            # Background jobs of a shell ignore SIGINT, and their children inherit this.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with open(output.with_suffix(".txt"), "a") as terminal:
                os.dup2(terminal.fileno(), 1)
                os.dup2(terminal.fileno(), 2)
            os.environ["FASTREID_DATASETS"] = str(self.data)
            writes = Writes(kill_at)
            atomic.open = writes.open  # type: ignore[attr-defined]
            prepare()
            code = self.tool.main(arguments)
            counts.write_text(json.dumps(writes.counts))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def interrupt(self, output: Path, how: str, rng: np.random.Generator, *flags: str) -> bool:
        """Run one process, and interrupt it by ``how``.

        Args:
            output: Output folder of the run.
            how: A key of :data:`WRITES`, ``"time"``, ``"SIGTERM"``, ``"SIGINT"`` or
                ``"full disk"``.
            rng: Samples the moment.
            flags: Options such as ``--resume``.

        Returns:
            Whether the interruption came before the end of the training.

        Raises:
            AssertionError: The exit code is another one, or a file is incomplete.
        """
        expected = -signal.SIGKILL
        if how == "full disk":
            size = (self.uninterrupted / "model_final.pth").stat().st_size
            limit = int(rng.integers(SMALLEST_LIMIT, size))
            limits = resource.RLIMIT_FSIZE, (limit, limit)
            code = self.run_process(
                output, *flags, prepare=lambda: resource.setrlimit(*limits)
            ).code
            expected = 2
            assert code == 0 or "could not write" in self.console_output(output)
        elif how in WRITES:
            kill_at = how, int(rng.integers(1, self.reference.writes[how] + 1))
            code = self.run_process(output, *flags, kill_at=kill_at).code
        else:
            number = {"time": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}[
                how
            ]
            after = float(rng.uniform(0.1, 0.9)) * self.duration
            outcome = self.run_process(output, *flags, after=after, number=number)
            code = outcome.code
            if not code:  # finished before the signal: the machine is faster than before
                self.duration = min(self.duration, outcome.seconds)
            expected = STOPPED.get(how, expected)
        assert code in (expected, 0), f"{how}: exit code {code}\n{self.console_output(output)}"
        assert_complete(output)
        return code == expected

    def finish(self, output: Path) -> None:
        """Resume to the end, and compare the results with those of the uninterrupted run.

        Raises:
            AssertionError: The run cannot be resumed, its results differ, or a temporary file is
                left.
        """
        outcome = self.run_process(output, "--resume")
        assert outcome.code == 0, f"resume: exit code {outcome.code}\n{self.console_output(output)}"
        assert_complete(output)
        assert_same_labels(self.uninterrupted, output)
        assert_same_weights(self.uninterrupted, output)
        one, other = (
            json.loads((folder / "results.json").read_text())
            for folder in (self.uninterrupted, output)
        )
        for key in ("before", "after", "labels"):
            assert one[key] == other[key], key
        assert [str(p) for p in output.rglob("*.tmp")] == []


def assert_complete(output: Path) -> None:
    """Assert that every file of a run can be read completely; temporary files do not count."""
    for path in output.rglob("*"):
        if path.suffix == ".pth":
            torch.load(path, weights_only=True)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                assert all(file[key] is not None for key in file.files)
        elif path.name == "metrics.json":
            assert all(json.loads(line) for line in path.read_text().splitlines())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".yaml":
            assert "SOLVER" in yaml.safe_load(path.read_text())
        elif path.name == "last_checkpoint" and path.parent.name == output.name:
            assert (path.parent / path.read_text()).is_file()


#: Maximum number of runs per interruption; a run may finish before it is interrupted.
MAX_RUNS = 4


def run(
    folder: Path, *, kills: int, stops: int, full: int, seed: int, say: Callable[[str], Any]
) -> dict[str, int]:
    """Interrupt runs, up to three times each, and compare the results of all runs.

    Args:
        folder: Empty folder for all files.
        kills: Number of SIGKILLs. Half of them come at a random time, the others within a write of
            a checkpoint, of labels or of another file, in turn.
        stops: Number of SIGTERMs and SIGINTs, in turn.
        full: Number of full disks.
        seed: Seed of the moments.
        say: Called with each line of the progress report.

    Returns:
        Number of interruptions by kind.
    """
    rng = np.random.default_rng(seed)
    inside = [
        ("checkpoint", "labels", "checkpoint", "labels", "other")[i % 5]
        for i in range((kills + 1) // 2)
    ]
    ends = [
        *inside,
        *["time"] * (kills - len(inside)),
        *[("SIGTERM", "SIGINT")[i % 2] for i in range(stops)],
        *["full disk"] * full,
    ]
    left = [ends[i] for i in rng.permutation(len(ends))]
    chaos = Chaos(folder)
    say(f"uninterrupted run: {chaos.reference.seconds:.1f} s, writes {chaos.reference.writes}")
    done: dict[str, int] = {}
    number = 0
    while left:
        number += 1
        output, flags = folder / f"run{number}", ()
        if number > MAX_RUNS * (kills + stops + full):
            raise RuntimeError(f"none of {number - 1} runs was interrupted by {left[-1]}")
        interruptions = []
        for _ in range(3):
            if left and chaos.interrupt(output, left[-1], rng, *flags):
                how = left.pop()
                interruptions.append(how)
                done[how] = done.get(how, 0) + 1
            flags = ("--resume",)
        chaos.finish(output)
        say(
            f"run {number}: {', '.join(interruptions) or 'not interrupted'};"
            " results equal the reference"
        )
    return done


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return 0 if all results equal the reference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="number of SIGKILLs (20)")
    parser.add_argument("--stops", type=int, default=6, help="number of SIGTERMs and SIGINTs (6)")
    parser.add_argument("--full", type=int, default=3, help="number of full disks (3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    args = parser.parse_args(arguments)
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - started:5.0f} s] {line}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as folder:
        done = run(
            Path(folder),
            kills=args.kills,
            stops=args.stops,
            full=args.full,
            seed=args.seed,
            say=say,
        )
    say("interruptions: " + ", ".join(f"{count} x {how}" for how, count in sorted(done.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
