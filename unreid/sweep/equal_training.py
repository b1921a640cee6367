"""Test that two versions of the code train bit-identical weights.

Both source trees train the same small runs on the same synthetic dataset, in separate processes. If
their label files and final checkpoints have the same content, their code hashes count as equal
(:class:`unreid.sweep.code_version.EquivalentCode`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unreid.data.synthetic import generate_dataset
from unreid.reading.tensors import load_tensors
from unreid.sweep.code_version import code_hash

#: Two epochs of four iterations with random initial weights; no report.
SETTINGS = {
    "MODEL.DEVICE": "cpu",
    "DATALOADER.NUM_WORKERS": "0",
    "SOLVER.MAX_EPOCH": "2",
    "UNSUP.ITERS_PER_EPOCH": "4",
    "UNSUP.EVAL_BEFORE": "False",
    "UNSUP.REPORT": "False",
    "TEST.EVAL_PERIOD": "0",
}
#: Default configs of every project, relative to the project.
CONFIGS = "configs/synthetic*.yml"
#: Settings of the runs: the default label step, and one with all of its options.
VARIANTS: tuple[dict[str, str], ...] = (
    {},
    {"UNSUP.CENTER_CAMERAS": "True", "UNSUP.WHITEN_CAMERAS": "0.3", "UNSUP.SMOOTH_NEIGHBOURS": "5",
     "UNSUP.EXTRACT_FLIP": "True", "INPUT.BACKEND": "tensor"},
)  # fmt: skip


def project_package(tree: Path, project: str) -> Path:
    """Return the folder of a project's package in a checkout."""
    return tree / "projects" / project / project.lower()


def tree_hash(tree: Path, project: str) -> str:
    """Return the code hash of a project in a checkout."""
    return code_hash(project_package(tree, project), tree / "unreid")


def prove_equal(
    old: Path,
    new: Path,
    folder: Path,
    *,
    configs: Sequence[str] = (),
    settings: Sequence[tuple[str, str]] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[tuple[str, str]]:
    """Train in both source trees and compare the results.

    Args:
        old: A checkout.
        new: Another checkout.
        folder: Output folder of the dataset and the runs.
        configs: Configs to train, relative to ``old``; by default the synthetic configs of all
            projects in both trees, each with all ``VARIANTS``.
        settings: Further (key, value) pairs of all runs.
        say: Called with each line of progress.

    Returns:
        Pairs of different code hashes that count as equal.

    Raises:
        FileNotFoundError: A tree has no training program or no config.
        RuntimeError: A training failed, or labels or weights differ; names the first difference.
    """
    for tree in (old, new):
        if not (tree / "tools" / "train_net.py").is_file():
            raise FileNotFoundError(f"{tree}: no tools/train_net.py; expected a checkout of unreid")
    data = folder / "data"
    generate_dataset(data, num_train_ids=8, num_test_ids=6, num_cameras=3, images_per_id=9, seed=0)
    variants: Sequence[dict[str, str]] = VARIANTS
    if configs:
        files, variants = [old / config for config in configs], ({},)
    else:
        shared = {p.name for p in (new / "projects").iterdir() if p.is_dir()}
        files = [
            f
            for f in sorted((old / "projects").glob(f"*/{CONFIGS}"))
            if f.relative_to(old).parts[1] in shared
        ]
    if not files:
        raise FileNotFoundError(f"{old}: no projects/*/{CONFIGS}")
    projects = dict.fromkeys(f.relative_to(old).parts[1] for f in files)
    before = {p: (tree_hash(old, p), tree_hash(new, p)) for p in projects}
    for file in files:
        for number, variant in enumerate(variants):
            name = f"{'-'.join(file.relative_to(old).with_suffix('').parts[1:])}-{number}"
            both = []
            for which, tree in (("old", old), ("new", new)):
                output = folder / which / name
                _train(tree, file, data, output, {**SETTINGS, **variant, **dict(settings)})
                both.append(output)
            difference = first_difference(*both)
            if difference:
                raise RuntimeError(f"{name}: the trees do not train the same: {difference}")
            say(f"{name}: labels and weights are equal")
    after = {p: (tree_hash(old, p), tree_hash(new, p)) for p in projects}
    if before != after:
        raise RuntimeError("the code of a tree changed during the comparison; run it again")
    return list(dict.fromkeys(pair for pair in after.values() if pair[0] != pair[1]))


def _train(tree: Path, config: Path, data: Path, output: Path, settings: Mapping[str, str]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "tools/train_net.py", "--config-file", str(config.resolve())]
    words += [word for pair in settings.items() for word in pair]
    environment = {**os.environ, "FASTREID_DATASETS": str(data.resolve()), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(tree.resolve())
    environment.pop("UNREID_PROJECTS", None)
    done = subprocess.run(
        [*words, "OUTPUT_DIR", str(output.resolve())], cwd=tree, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RuntimeError(
            f"{config.name} in {tree} ended with exit code {done.returncode}:"
            f" {' '.join(lines[-2:])[:300]}"
        )


def first_difference(one: Path, other: Path) -> str:
    """Return the first difference of two runs in label files or final weights, or ""."""

    def names(folder: Path) -> list[str]:
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.npz"))

    if not names(one):
        return f"{one} has no label files"
    if names(one) != names(other):
        return f"label files {sorted(set(names(one)) ^ set(names(other)))} are in one run only"
    for name in names(one):
        with (
            np.load(one / name, allow_pickle=False) as a,
            np.load(other / name, allow_pickle=False) as b,
        ):
            if a.files != b.files:
                return f"{name} has arrays {a.files} and {b.files}"
            for key in a.files:
                if key == "paths":  # relative to the root of the dataset
                    same = list(a[key]) == list(b[key])
                else:
                    same = a[key].dtype == b[key].dtype and a[key].tobytes() == b[key].tobytes()
                if not same:
                    return f"{name}: array {key}"
    first, second = (
        dict(_leaves(load_tensors(str(f / "model_final.pth"))["model"])) for f in (one, other)
    )
    if first.keys() != second.keys():
        return f"weights {sorted(first.keys() ^ second.keys())[:3]} are in one run only"
    for key, value in first.items():
        if not torch.equal(value, second[key]):
            return f"model_final.pth: {key}"
    return ""


def _leaves(state: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(state, torch.Tensor):
        yield prefix, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _leaves(value, f"{prefix}/{key}")


def add_lines(file: Path, pairs: Sequence[tuple[str, str]], command: str) -> list[str]:
    """Add a line per pair to a file of equivalent code; return the lines."""
    lines = [f"{old} {new}  {command}" for old, new in pairs]
    file.parent.mkdir(parents=True, exist_ok=True)
    if lines:
        with open(file, "a", encoding="utf-8") as opened:
            opened.write("".join(f"{line}\n" for line in lines))
    return lines
