"""Generators are seeded again before each stage, whatever was sampled before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.utils.env import seed_all_rng

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.engine import run


class Stop(Exception):
    """Ends the run before training starts."""


def sample() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("stage", [False, True])
@pytest.mark.parametrize("scored_before", [False, True])
def test_seed__is_reset_before_each_stage_of_training(
    stage: bool,
    scored_before: bool,
    synthetic_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    cfg, project = load_tiny(BASELINE, tmp_path, UNSUP__EVAL_BEFORE=scored_before, UNSUP__SEED=7)
    seen: list[tuple[float, float, float]] = []

    def before_training(*_: Any) -> None:
        seen.append(sample())

    def scores(_: Any) -> dict[str, float]:
        sample()
        return {"mAP": 1.0, "Rank-1": 1.0}

    def trainer(*_: Any, **__: Any) -> None:
        seen.append(sample())
        raise Stop

    monkeypatch.setattr(run, "evaluate_only", scores)
    monkeypatch.setattr(run, "UnsupervisedTrainer", trainer)
    monkeypatch.setattr(project, "before_training", before_training if stage else lambda *_: None)
    sample()
    with pytest.raises(Stop):
        run.train(cfg, project, resume=False)
    seed_all_rng(7)
    assert seen == [sample()] * (1 + stage)
