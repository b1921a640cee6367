"""Train a config at a small size in this process, and read its output files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.projects.overrides import ROOT, tiny_options
from unreid.config import load_config
from unreid.engine import run
from unreid.engine.step import UnsupervisedStep

MARKET = Path("projects/CALR/configs/market.yml")
BASELINE = Path("projects/CALR/configs/baseline.yml")


class Interrupted(Exception):
    """Raised by tests to end a run early."""


def load_tiny(config: Path, output: Path | str = "unused", **settings: object) -> Any:
    """Return (cfg, project) of a config at a small size."""
    return load_config(str(ROOT / config), tiny_options(config, output, **settings))


def train_tiny(
    config: Path, root: Path, output: Path, *, resume: bool = False, **settings: object
) -> dict[str, Any]:
    """Train a config at a small size on the dataset under ``root``; return its results."""
    os.environ["FASTREID_DATASETS"] = str(root)
    output.mkdir(parents=True, exist_ok=True)
    cfg, project = load_tiny(config, output, **settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with a network of this size, a second thread only adds waiting time
    try:
        return run.train(cfg, project, resume=resume)
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def interrupted_at_step(number: int) -> Iterator[None]:
    """Raise :class:`Interrupted` inside the context at iteration ``number`` (from 1)."""
    step, calls = UnsupervisedStep.run_step, 0

    def run_step(self: UnsupervisedStep) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Interrupted
        step(self)

    with mock.patch.object(UnsupervisedStep, "run_step", run_step):
        yield


def label_files(output: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return relative path -> arrays of every label file in a run's folder."""
    found = {}
    for path in sorted(output.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found[path.relative_to(output).as_posix()] = {k: file[k] for k in file.files}
    return found


def assert_same_labels(one: Path, other: Path) -> None:
    """Assert that both runs have the same label files with bit-identical contents."""
    first, second = label_files(one), label_files(other)
    assert first and first.keys() == second.keys()
    for name in first:
        assert first[name].keys() == second[name].keys()
        for key, array in first[name].items():
            np.testing.assert_array_equal(array, second[name][key], err_msg=f"{name}: {key}")


def final_checkpoint(output: Path) -> dict[str, Any]:
    """Return the content of ``model_final.pth``."""
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_same_weights(one: Path, other: Path) -> None:
    """Assert bit-identical final models (memories included) and optimiser states of both runs."""
    for part in ("model", "optimizer"):
        first, second = (_leaves(final_checkpoint(o)[part]) for o in (one, other))
        assert first.keys() == second.keys()
        different = [k for k in first if not torch.equal(first[k], second[k])]
        assert different == []


def _leaves(state: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    if not isinstance(state, (dict, list)):
        return {}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {k: v for name, value in items for k, v in _leaves(value, f"{prefix}/{name}").items()}
