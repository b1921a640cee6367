"""Run the commands on untrusted files of every kind.

An input passes if the command gives a correct result, or a one-line error that names the file or
the setting in it. A traceback, a signal, a timeout, excessive memory, or code executed from a
pickle is a failure. Two thirds of the inputs are written by hand; the others are valid files with
damaged bytes. The inputs depend on their number and on the seed only.

    python -m tests.untrusted_input.fuzz --inputs 360
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.tools.using import load_tool
from tests.untrusted_input import archives, checkpoints, images, texts
from tests.untrusted_input.case import Builder, Case
from tests.untrusted_input.trial import Outcome, attempt
from tests.untrusted_input.valid_files import ValidFiles

#: Kind -> (inputs written by hand, builders of damaged files, fraction of all inputs).
KINDS: dict[str, tuple[dict[str, Builder], tuple[Builder, ...], float]] = {
    "images": (images.SPECIALS, (images.mutated,), 0.22),
    "yaml": (texts.YAML_SPECIALS, (texts.mutated_yaml,), 0.17),
    "CSV": (texts.TABLE_SPECIALS, (texts.mutated_table,), 0.13),
    "npz": (archives.SPECIALS, (archives.mutated_labels, archives.mutated_index), 0.2),
    "checkpoints": (checkpoints.SPECIALS, (checkpoints.mutated, checkpoints.mutated_record), 0.28),
}
#: Largest memory growth of a command in bytes: several large decoded images and a model.
MAX_MEMORY_GROWTH = 2**30


#: A selection of every kind for the test suite.
SHORT: dict[str, tuple[str, ...]] = {
    "images": ("valid", "bomb.png", "ghostscript.jpg", "a pipe", "palette.png"),
    "yaml": ("valid", "object.yml", "laughs.yml", "based_on_itself.yml", "minuses.yml"),
    "CSV": ("valid", "up_inside.csv", "camera_of_lines.csv", "a endless file"),
    "npz": (
        "valid",
        "labels pickle",
        "labels promises",
        "labels far_cameras",
        "index many",
        "index that leaves its root",
    ),
    "checkpoints": (
        "valid",
        "weights: evil value",
        "weights: whole numbers",
        "archive that is packed",
        "tag: elsewhere",
        "results shown: kinds",
        "start: shapes",
    ),
}


@dataclass(frozen=True)
class Input:
    """An untrusted input.

    Attributes:
        kind: A key of :data:`KINDS`.
        name: Unique within its kind.
        build: Writes the file and returns the command.
    """

    kind: str
    name: str
    build: Builder


def inputs(number: int) -> Iterator[Input]:
    """Yield about ``number`` inputs of all kinds, those written by hand first."""
    for kind, (special, makers, share) in KINDS.items():
        wanted = max(1, round(number * share))
        by_hand = list(special.items())
        if len(by_hand) > wanted:  # a selection at equal steps
            by_hand = [by_hand[i * len(by_hand) // wanted] for i in range(wanted)]
        yield from (Input(kind, name, build) for name, build in by_hand)
        for i in range(wanted - len(by_hand)):
            yield Input(kind, f"damaged {i}", makers[i % len(makers)])


def short_inputs() -> Iterator[Input]:
    """Yield the inputs of :data:`SHORT` and one damaged file of each kind."""
    for kind, names in SHORT.items():
        special, makers, _ = KINDS[kind]
        yield from (Input(kind, name, special[name]) for name in names)
        yield Input(kind, "damaged", makers[0])


def find_problem(case: Case, outcome: Outcome, folder: Path, name: str = "") -> str:
    """Return the problem of an outcome, or ``""`` if it is as expected."""
    if outcome.verdict in ("killed", "traceback"):
        return outcome.verdict
    if (folder / "pwned").exists():
        return "it executed code of the file"
    if name == "valid" and outcome.verdict != "result":
        return "a valid file was refused"
    if outcome.memory_growth > MAX_MEMORY_GROWTH:
        return f"memory grew by {outcome.memory_growth / 2**20:.0f} MiB"
    if case.refuse and outcome.verdict == "result":
        return "an invalid file was accepted"
    if case.output is not None and case.output[1] not in _text(case.output[0]):
        return f"{case.output[0].name} does not contain: {case.output[1]}"
    if outcome.verdict == "refused":
        if not outcome.error:
            return "refused without an error"
        if not any(word in outcome.error for word in case.named):
            return "the error does not name the file"
    return ""


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def run_input(entry: Input, valid: ValidFiles, seed: int = 0) -> tuple[str, Outcome]:
    """Run the command on an input; return the problem (or ``""``) and the outcome."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{entry.kind} {entry.name}".encode())])
    with tempfile.TemporaryDirectory(prefix="malicious") as name:
        folder = Path(name)
        case = entry.build(folder, valid, rng)
        tool = load_tool(case.tool)

        def command() -> int | None:
            os.chdir(folder)
            os.environ["FASTREID_DATASETS"] = str(valid.sets)
            code: int | None = tool.main(list(case.arguments))
            return code

        outcome = attempt(command)
        return find_problem(case, outcome, folder, entry.name), outcome


def prepared(root: Path) -> ValidFiles:
    """Return the valid files; a subprocess creates them, so that this process stays small."""
    if not (root / "done").is_file():
        subprocess.run(
            [sys.executable, "-m", "tests.untrusted_input.valid_files", str(root)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return ValidFiles(root)


def say(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def preload() -> None:
    """Import the modules of all commands once, before forking."""
    for module in (
        "unreid.engine.run",
        "unreid.commands.images",
        "unreid.inference.ranking",
        "unreid.inference.retrieval_results",
        "unreid.inference.labelling",
        "unreid.data.dataset_check",
        "unreid.visualization.page",
        "unreid.visualization.sources",
        "tabulate",
        "unreid.projects",
    ):
        importlib.import_module(module)
    import torch

    from unreid.projects import load_project

    torch.set_num_threads(1)  # a process with more threads must not fork
    load_project("CALR")


def main() -> int:
    """Return 0 when all inputs pass, else 1; failures are printed with their output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--inputs", type=int, default=360, metavar="N", help="number of inputs (360)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the damaged files (0)")
    parser.add_argument(
        "--only", default="", help="only inputs whose kind and name contain this text"
    )
    parser.add_argument("--valid-files", default="", help="folder of the valid files; it is kept")
    parser.add_argument(
        "--short",
        action="store_true",
        help="run a small selection, and print a line of JSON for each",
    )
    parser.add_argument("--verbose", action="store_true", help="print the outcome of each input")
    args = parser.parse_args()
    root = Path(args.valid_files or tempfile.mkdtemp(prefix="valid"))
    valid = prepared(root / "valid")
    preload()
    verdicts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    wrong, slowest, largest = 0, 0.0, 0
    started = time.monotonic()
    for entry in short_inputs() if args.short else inputs(args.inputs):
        if args.only not in f"{entry.kind} {entry.name}":
            continue
        problem, outcome = run_input(entry, valid, args.seed)
        verdicts[entry.kind]["WRONG" if problem else outcome.verdict] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory_growth)
        if args.short:
            say(json.dumps([entry.kind, entry.name, problem, outcome.output[-2000:]]))
        elif args.verbose or problem:
            say(
                f"{entry.kind} {entry.name!r}: {problem or outcome.verdict} in"
                f" {outcome.seconds:.1f} s, +{outcome.memory_growth >> 20} MiB: {outcome.error}"
            )
            if problem:
                say(outcome.output[-3000:])
        wrong += bool(problem)
    if not args.valid_files:
        shutil.rmtree(root)
    if args.short:
        return 1 if wrong else 0
    say(f"{'kind':12} {'inputs':>6} {'result':>6} {'error':>6} {'wrong':>6}")
    for kind, found in verdicts.items():
        say(
            f"{kind:12} {sum(found.values()):6} {found['result']:6} {found['refused']:6}"
            f" {found['WRONG']:6}"
        )
    total = sum(sum(found.values()) for found in verdicts.values())
    say(
        f"{total} inputs in {time.monotonic() - started:.0f} s, {wrong} wrong; slowest"
        f" {slowest:.1f} s, largest growth {largest >> 20} MiB"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
