"""Kills a training again and again: every resume goes on, and the end is that of a quiet run.

example:
  python -m tests.reliability.chaos --kills 20 --seed 0

Each run is a forked process on a small synthetic dataset. It is killed (SIGKILL) at a random time,
or by itself in the middle of a random write: of a checkpoint, of labels, of another file; or it is
told to stop (SIGTERM, SIGINT); or no file may grow beyond a random size, as on a full disk.
After each end every file must be whole. Once a run has had its share of
ends it is resumed to the last epoch: labels, weights, optimiser and scores must equal, to the bit,
those of a run that nothing has disturbed.

The product has no hook for this: what kills is put over ``open`` in ``unreid.engine.atomic``.
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
from unreid.data.synthetic import draw_dataset
from unreid.engine import atomic

#: Stage 1 has 3 cameras x 2 epochs x 2 iterations here, stage 2 has 3 x 2 and saves every other.
SETTINGS = {
    "CALR__INTRA__EPOCHS": 2,
    "CALR__INTRA__ITERS_PER_EPOCH": 2,
    "SOLVER__MAX_EPOCH": 3,
    "SOLVER__CHECKPOINT_PERIOD": 2,
    "UNSUP__EVAL_BEFORE": True,
}

#: Exit codes of a run that was told to stop.
STOPPED = {"SIGTERM": 143, "SIGINT": 130}

#: No file that only grows (log.txt) is as large; a checkpoint is.
SMALLEST_LIMIT = 200_000

#: What a write belongs to, by the end of its path.
WRITES: dict[str, Callable[[str], bool]] = {
    "checkpoint": lambda path: path.endswith((".pth", "last_checkpoint")),
    "labels": lambda path: path.endswith(".npz"),
    "other": lambda path: path.endswith((".json", ".jsonl", ".yaml")),
}


def kind_of(path: str) -> str:
    """The key of :data:`WRITES` for a path."""
    return next(kind for kind, fits in WRITES.items() if fits(path))


class Writes:
    """Counts the writes of a process by kind, and ends it in the middle of one.

    Args:
        deadly: (kind, number from 1) of the write that kills, or None to count only.
    """

    def __init__(self, deadly: tuple[str, int] | None) -> None:
        self.deadly = deadly
        self.counts = dict.fromkeys(WRITES, 0)

    def open(self, path: str, mode: str, buffering: int = -1) -> Any:
        """Put over ``open`` in :mod:`unreid.engine.atomic`."""
        file = builtins.open(path, mode, buffering)  # noqa: SIM115
        kind = kind_of(path.removesuffix(f".{os.getpid()}.tmp"))
        write = file.write

        def deadly_write(data: Any) -> Any:
            self.counts[kind] += 1
            if self.deadly == (kind, self.counts[kind]):
                cuttable = isinstance(data, (str, bytes, memoryview))
                write(data[: len(data) // 2] if cuttable else data)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return write(data)

        return _Watched(file, deadly_write)


class _Watched:
    """A file whose ``write`` is another."""

    def __init__(self, file: Any, write: Callable[[Any], Any]) -> None:
        self._file = file
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@dataclass
class Life:
    """How one process ended: its exit code (negative: the signal), seconds, and writes by kind."""

    code: int
    seconds: float
    writes: dict[str, int]


class Chaos:
    """Runs on one data set.

    Args:
        folder: For the data, the runs and what they say.
        settings: Of every run, beside :data:`SETTINGS`.
    """

    def __init__(self, folder: Path, settings: dict[str, object] | None = None) -> None:
        self.folder = folder
        self.settings = {**SETTINGS, **(settings or {})}
        self.data = folder / "data"
        draw_dataset(
            self.data, num_train_ids=8, num_test_ids=6, num_cameras=3, images_per_id=9, seed=0
        )
        self.tool = load_tool("train_net")
        load_tiny(MARKET)  # imports the project before the first fork
        self.quiet = folder / "quiet"
        self.reference = self.live(self.quiet)
        if self.reference.code:
            raise RuntimeError(f"the quiet run failed:\n{self.said(self.quiet)}")
        self.pace = self.reference.seconds

    def said(self, output: Path) -> str:
        """The end of what the processes of a run wrote to their terminals."""
        return output.with_suffix(".txt").read_text()[-3000:]

    def live(
        self,
        output: Path,
        *flags: str,
        deadly: tuple[str, int] | None = None,
        after: float | None = None,
        number: int = signal.SIGKILL,
        prepare: Callable[[], None] = lambda: None,
    ) -> Life:
        """One process from its start to its end.

        Args:
            output: The run's folder.
            flags: Such as ``--resume``.
            deadly: The write in which it kills itself.
            after: Seconds after which it gets the signal ``number``.
            number: A signal.
            prepare: Called in the process before all else.
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
            self._be(arguments, output, counts, deadly, prepare)
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
        return Life(code, seconds, json.loads(counts.read_text()) if code == 0 else {})

    def _be(
        self,
        arguments: list[str],
        output: Path,
        counts: Path,
        deadly: tuple[str, int] | None,
        prepare: Callable[[], None],
    ) -> None:
        """The forked process: never returns."""
        code = 70
        try:
            # A job in the background ignores Ctrl-C, and so would all that it starts.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with open(output.with_suffix(".txt"), "a") as terminal:
                os.dup2(terminal.fileno(), 1)
                os.dup2(terminal.fileno(), 2)
            os.environ["FASTREID_DATASETS"] = str(self.data)
            writes = Writes(deadly)
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

    def end(self, output: Path, how: str, rng: np.random.Generator, *flags: str) -> bool:
        """One process that ends as ``how`` says: whether it did before it was done.

        Raises:
            AssertionError: another exit code, or a file that is not whole.
        """
        expected = -signal.SIGKILL
        if how == "full disk":
            size = (self.quiet / "model_final.pth").stat().st_size
            limit = int(rng.integers(SMALLEST_LIMIT, size))
            limits = resource.RLIMIT_FSIZE, (limit, limit)
            code = self.live(output, *flags, prepare=lambda: resource.setrlimit(*limits)).code
            expected = 2
            assert code == 0 or "could not write" in self.said(output)
        elif how in WRITES:
            deadly = how, int(rng.integers(1, self.reference.writes[how] + 1))
            code = self.live(output, *flags, deadly=deadly).code
        else:
            number = {"time": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}[
                how
            ]
            after = float(rng.uniform(0.1, 0.9)) * self.pace
            life = self.live(output, *flags, after=after, number=number)
            code = life.code
            if not code:  # done too soon: a shared machine is faster now than it was
                self.pace = min(self.pace, life.seconds)
            expected = STOPPED.get(how, expected)
        assert code in (expected, 0), f"{how}: exit code {code}\n{self.said(output)}"
        assert_whole(output)
        return code == expected

    def finish(self, output: Path) -> None:
        """Resume to the end, and hold the run against the quiet one.

        Raises:
            AssertionError: it cannot be resumed, ends otherwise, or leaves a file behind.
        """
        life = self.live(output, "--resume")
        assert life.code == 0, f"resume: exit code {life.code}\n{self.said(output)}"
        assert_whole(output)
        assert_same_labels(self.quiet, output)
        assert_same_weights(self.quiet, output)
        one, other = (json.loads((o / "results.json").read_text()) for o in (self.quiet, output))
        for key in ("before", "after", "labels"):
            assert one[key] == other[key], key
        assert [str(p) for p in output.rglob("*.tmp")] == []


def assert_whole(output: Path) -> None:
    """No file under its own name is half of one."""
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


#: Runs for each end that is wanted: one may be done before its moment comes, not all.
MOST_RUNS = 4


def run(
    folder: Path, *, kills: int, stops: int, full: int, seed: int, say: Callable[[str], Any]
) -> dict[str, int]:
    """As many kills, stops and full disks, three to a run; how many of each kind.

    Half of the kills come at a random time, the others inside a write: by turns of a checkpoint,
    of labels, of another file.
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
    say(f"a quiet run: {chaos.reference.seconds:.1f} s, writes {chaos.reference.writes}")
    done: dict[str, int] = {}
    number = 0
    while left:
        number += 1
        output, flags = folder / f"run{number}", ()
        if number > MOST_RUNS * (kills + stops + full):
            raise RuntimeError(f"no run of {number - 1} could be ended by {left[-1]}")
        story = []
        for _ in range(3):
            if left and chaos.end(output, left[-1], rng, *flags):
                how = left.pop()
                story.append(how)
                done[how] = done.get(how, 0) + 1
            flags = ("--resume",)
        chaos.finish(output)
        say(f"run {number}: {', '.join(story) or 'was done too soon'}; ended as the quiet one")
    return done


def main(arguments: list[str] | None = None) -> int:
    """0 when every run ended as the quiet one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs in all (20)")
    parser.add_argument("--stops", type=int, default=6, help="SIGTERMs and SIGINTs in all (6)")
    parser.add_argument("--full", type=int, default=3, help="full disks in all (3)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
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
    say("survived: " + ", ".join(f"{count} x {how}" for how, count in sorted(done.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
