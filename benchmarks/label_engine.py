"""Benchmark table of the label step: cost of each step, its peers, target and lower bound.

python benchmarks/label_engine.py [--quick] [--only NAME ...] [--repeats N] [--threads N] [--list]

Each number is the median over new processes (see ``harness.py``). The floor is the minimum time of
an exact method: its arithmetic and memory traffic, at the float32 product and copy rates measured
on this machine. Number formats with fewer bits can be faster than the floor.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import Floor, Measured, Row, Target, machine, measure

MODULES = ("benchmarks.rows_graph", "benchmarks.rows_clustering", "benchmarks.rows_pairs")
COLUMNS = (
    "step", "size", "who", "seconds", "CPU seconds", "peak MiB above input", "ours against it",
    "target", "floor", "remarks",
)  # fmt: skip


def rows() -> list[tuple[str, Row]]:
    """Return every row with the name of its module."""
    found = [m for m in MODULES if importlib.util.find_spec(m)]
    return [(m, row) for m in found for row in importlib.import_module(m).ROWS]


def met(target: Target, ours: Measured, peer: Measured | None) -> bool:
    """Return whether ours reaches every value that the target has."""
    checks = [
        target.seconds is None or ours.time <= target.seconds,
        target.mebibytes is None or ours.peak <= target.mebibytes,
    ]
    if target.faster is not None:
        checks.append(peer is not None and peer.time / ours.time >= target.faster)
    if target.smaller is not None:
        checks.append(peer is not None and peer.peak / max(ours.peak, 1.0) >= target.smaller)
    return all(checks)


def verdict(row: Row, measured: dict[str, Measured], quick: bool) -> str:
    """Return the targets as text, and at full size whether they are reached."""
    parts = []
    for target in row.targets:
        peer = measured.get(target.peer) if target.peer else None
        needed = [measured.get("ours"), peer] if target.peer else [measured.get("ours")]
        if quick or any(m is None or m.error for m in needed):
            parts.append(target.words)
        else:
            parts.append(f"{target.words}: {'met' if met(target, needed[0], peer) else 'MISSED'}")  # type: ignore[arg-type]
    return "; ".join(parts)


def floor_words(floor: Floor, ours: Measured, speed: dict[str, float]) -> str:
    """Return the lower bound as text: FLOP, bytes, seconds, and the ratio of ours to it."""
    if not floor.flop and not floor.bytes:
        return ""
    seconds = max(floor.flop / speed["flops"], floor.bytes / speed["bandwidth"])
    amounts = f"{floor.flop / 1e9:.3g} GFLOP, {floor.bytes / 1e6:.3g} MB"
    return f"{floor.words}: {amounts} = {seconds:.3g} s; ours {ours.time / seconds:.2f} x"


def lines(row: Row, measured: dict[str, Measured], quick: bool, speed: dict[str, float]) -> str:
    """Return the lines of one row in the table: ours first, then one for each peer."""
    ours, size = measured.get("ours"), row.quick_size if quick else row.size
    out = []
    for name, one in measured.items():
        if one.error:
            out.append(f"| {row.title} | {size} | {name} | failed | | | | | | {one.error} |")
            continue
        against = target = floor = remark = ""
        if name == "ours":
            target, floor = verdict(row, measured, quick), floor_words(row.floor(quick), one, speed)
            remark = row.remark(one.digest) if row.remark else ""
        elif ours and not ours.error:
            smaller = one.peak / max(ours.peak, 1.0)
            against = f"{one.time / ours.time:.2f} x faster, {smaller:.1f} x smaller"
            remark = row.agree(ours.digest, one.digest) if row.agree else ""
        times = f"{one.time:.3f} | {one.cpu:.3f}"
        cells = (row.title, size, name, times, f"{one.peak:,.0f}", against, target, floor, remark)
        out.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(out)


def run(module: str, row: Row, given: argparse.Namespace) -> dict[str, Measured]:
    """Measure every contender of a row."""
    repeats = given.repeats or (1 if given.quick else row.repeats)
    return {
        name: measure(module, row, name, quick=given.quick, threads=given.threads, repeats=repeats)
        for name in row.contenders
        if given.quick or name not in row.skip
    }


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="small inputs, one run each")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="these rows")
    parser.add_argument("--repeats", type=int, default=None, help="processes per measurement")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args()


def main() -> None:
    """Print the table, each row as soon as it is measured."""
    given = parse()
    every = rows()
    names = [row.name for _, row in every]
    unknown = sorted(set(given.only or ()) - set(names))
    if given.list or unknown:
        print("\n".join(names))
        sys.exit(f"no row {', '.join(unknown)}; the rows are above" if unknown else 0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    speed = machine(given.threads)
    print(
        f"{speed['name']}; {given.threads} threads; float32 product"
        f" {speed['flops'] / 1e9:.0f} GFLOP/s, copy {speed['bandwidth'] / 1e9:.1f} GB/s;"
        f" load average before {load:.1f}\n"
    )
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for module, row in every:
        if (given.only and row.name not in given.only) or (given.quick and not row.quick_size):
            continue
        reason = row.unavailable()
        if reason:
            print(f"| {row.title} | {row.size} | | not run | | | | | | {reason} |", flush=True)
            continue
        print(lines(row, run(module, row, given), given.quick, speed), flush=True)


if __name__ == "__main__":
    main()
