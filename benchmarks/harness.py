"""Measure one function in a new process: seconds, and peak memory above that of its input.

A module of rows (``rows_graph``, ``rows_clustering``) exports ``ROWS: list[Row]``. For each row
and contender, ``repeats`` processes run one after the other. Each process

1. imports the row module and calls ``row.setup(quick)``, which creates or loads the input,
   imports packages, and may warm up on a tiny input (thread pools, lazy imports);
2. reads the resident memory, resets its peak value, and times ``contender(inputs)``;
3. calls ``row.digest(inputs, result)`` outside the timing. The result is a small picklable
   object. ``row.agree`` compares it between contenders; ``row.remark`` describes it in the table.

The table contains medians. The contender ``ours`` is compared with ``row.targets``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Target:
    """Target of "ours"; every given field must be reached.

    Attributes:
        words: The target as text for the table.
        peer: The contender that ``faster`` and ``smaller`` refer to.
        faster: Minimum of the peer's seconds divided by ours.
        smaller: Minimum of the peer's peak memory divided by ours.
        seconds, mebibytes: Absolute limits of ours.
    """

    words: str
    peer: str | None = None
    faster: float | None = None
    smaller: float | None = None
    seconds: float | None = None
    mebibytes: float | None = None


@dataclass(frozen=True)
class Floor:
    """Lower bound on the arithmetic and memory traffic of an exact algorithm."""

    flop: float = 0.0
    bytes: float = 0.0
    words: str = ""


def nothing(*_: Any) -> Any:
    """Return None, the digest of a row without a comparison."""
    return None


@dataclass(frozen=True)
class Row:
    """One row of the table: an input, its contenders, and the targets of ours.

    Attributes:
        name: Unique name, as given to ``--only``.
        title: The step as text for the table.
        size: The input as text; ``quick_size`` is that of ``--quick`` (None: not run there).
        setup: ``setup(quick) -> inputs``, not timed.
        contenders: name -> ``run(inputs) -> result``, timed. ``ours`` is this library.
        targets: Targets of ours, checked on the full size only.
        floor: ``floor(quick) -> Floor``.
        digest: ``digest(inputs, result)`` -> small picklable object.
        agree: ``agree(ours, peer) -> str``: difference of two digests, as text for the table.
        remark: ``remark(digest) -> str``: a property of ours (recall, ARI), as text for the table.
        repeats: Number of processes per contender.
        skip: Contenders that cannot run at full size because of memory.
        unavailable: Returns why the row cannot run here (missing package or data), or None.
    """

    name: str
    title: str
    size: str
    setup: Callable[[bool], Any]
    contenders: Mapping[str, Callable[[Any], Any]]
    quick_size: str | None = None
    targets: Sequence[Target] = ()
    floor: Callable[[bool], Floor] = lambda quick: Floor()
    digest: Callable[[Any, Any], Any] = nothing
    agree: Callable[[Any, Any], str] | None = None
    remark: Callable[[Any], str] | None = None
    repeats: int = 3
    skip: Sequence[str] = ()
    unavailable: Callable[[], str | None] = lambda: None


@dataclass
class Measured:
    """Measurements of one contender."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    digest: Any = None
    error: str | None = None

    @property
    def time(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu(self) -> float:
        """Median processor seconds of all threads, which do not depend on machine load."""
        return statistics.median(self.cpu_seconds)

    @property
    def peak(self) -> float:
        """Median peak memory above the input, MiB."""
        return statistics.median(self.mebibytes)


def _status(key: str) -> int:
    """Return an entry of /proc/self/status in bytes, or -1 without /proc."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return -1


def _reset_peak() -> bool:
    """Reset the peak resident memory; return whether the system supports this."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def _peak_above(before: int, was_reset: bool) -> float:
    """Return the peak of resident bytes above ``before``; without a reset, use ru_maxrss."""
    peak = _status("VmHWM")
    if not was_reset or peak < 0:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(0.0, float(peak - before))


def _child(module: str, row_name: str, contender: str, quick: bool, out: str) -> None:
    """Measure once and write the result as a pickle."""
    import gc

    row = {r.name: r for r in importlib.import_module(module).ROWS}[row_name]
    inputs = row.setup(quick)
    run = row.contenders[contender]
    gc.collect()
    was_reset = _reset_peak()
    before = max(0, _status("VmRSS"))
    start, cpu_start = time.perf_counter(), time.process_time()
    result = run(inputs)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = _peak_above(before, was_reset)
    report = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "mebibytes": peak / MEBIBYTE,
        "digest": row.digest(inputs, result),
    }
    Path(out).write_bytes(pickle.dumps(report))


def measure(
    module: str, row: Row, contender: str, *, quick: bool, threads: int, repeats: int
) -> Measured:
    """Run one contender of one row in ``repeats`` new processes."""
    measured = Measured()
    environment = dict(os.environ, **{name: str(threads) for name in THREAD_VARIABLES})
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report"
        for _ in range(repeats):
            command = [sys.executable, "-m", "benchmarks.harness", "--module", module]
            command += ["--row", row.name, "--contender", contender, "--out", str(out)]
            command += ["--quick"] if quick else []
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                measured.error = lines[-1]
                return measured
            report = pickle.loads(out.read_bytes())
            measured.seconds.append(report["seconds"])
            measured.cpu_seconds.append(report["cpu_seconds"])
            measured.mebibytes.append(report["mebibytes"])
            measured.digest = report["digest"]
    return measured


def machine(threads: int) -> dict[str, Any]:
    """Return the processor name and its measured float32 product and copy rates."""
    code = (
        "import json, time, torch\n"
        f"torch.set_num_threads({threads})\n"
        "a = torch.randn(3072, 3072); b = torch.randn(3072, 3072)\n"
        "c = torch.empty(1 << 27, dtype=torch.uint8); d = torch.empty_like(c)\n"
        "def best(f, n):\n"
        "    f(); t = []\n"
        "    for _ in range(n):\n"
        "        s = time.perf_counter(); f(); t.append(time.perf_counter() - s)\n"
        "    return min(t)\n"
        "print(json.dumps({'flops': 2 * 3072**3 / best(lambda: a @ b, 3),"
        " 'bandwidth': 2 * c.numel() / best(lambda: d.copy_(c), 5)}))\n"
    )
    environment = dict(os.environ, **{name: str(threads) for name in THREAD_VARIABLES})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    name = platform.processor() or platform.machine()
    try:
        info = Path("/proc/cpuinfo").read_text()
        name = next(x.split(":")[1].strip() for x in info.splitlines() if "model name" in x)
        name += ", avx512_bf16" if "avx512_bf16" in info else ""
    except (OSError, StopIteration):
        pass
    return {"name": name, "threads": threads, **json.loads(done.stdout)}


def main() -> None:
    """Run one measurement; ``label_engine.py`` starts this in a child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", required=True)
    parser.add_argument("--row", required=True)
    parser.add_argument("--contender", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    _child(given.module, given.row, given.contender, given.quick, given.out)


if __name__ == "__main__":
    main()
