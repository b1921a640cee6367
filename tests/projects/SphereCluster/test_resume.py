"""A run stopped inside a round resumes with the table, prefix and partition of that round."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.projects.SphereCluster.settings import BUC, CONFIGS
from tests.projects.tiny_run import (
    Interrupted,
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    interrupted_at_step,
    label_files,
    train_tiny,
)

PLUS = CONFIGS / "market_plus.yml"
ROUNDS = {"SOLVER__MAX_EPOCH": 4, "SPHERECLUSTER__FIRST_EPOCHS": 2, "SPHERECLUSTER__EPOCHS": 2}
MANY = {**ROUNDS, "SPHERECLUSTER__MERGE_RATE": 0.2}
#: Two iterations per epoch: inside round 0, at the start of round 1, inside round 1.
STEPS = [4, 5, 8]


@pytest.mark.parametrize("path", [BUC, PLUS], ids=["table", "prefix"])
def test_resume__inside_a_round_ends_alike_to_the_bit(
    path: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    settings = MANY if path == BUC else ROUNDS
    whole = tmp_path / "whole"
    train_tiny(path, synthetic_root, whole, **settings)
    for step in STEPS:
        stopped = tmp_path / f"stopped_{step}"
        with pytest.raises(Interrupted), interrupted_at_step(step):
            train_tiny(path, synthetic_root, stopped, **settings)
        train_tiny(path, synthetic_root, stopped, resume=True, **settings)
        assert_same_labels(whole, stopped)
        assert_same_weights(whole, stopped)
        kept, lost = (final_checkpoint(o)["labeler"] for o in (whole, stopped))
        assert kept["passes"] == lost["passes"]
        np.testing.assert_array_equal(kept["partition"], lost["partition"])


def test_progressive_run__merges_between_rounds_only_and_never_splits(
    synthetic_root: Path, tmp_path: Path
) -> None:
    train_tiny(BUC, synthetic_root, tmp_path, **MANY)
    files = label_files(tmp_path)
    labels = [files[f"labels/epoch_{e:03d}.npz"]["labels"] for e in range(4)]
    count = len(labels[0])
    assert [len(np.unique(row)) for row in labels] == [count, count, *[count - count // 5] * 2]
    for before, after in itertools.pairwise(labels):
        assert len(np.unique(before)) == len(np.unique(np.stack([before, after]), axis=1).T)


def test_choice__is_reported_beside_the_last_round(synthetic_root: Path, tmp_path: Path) -> None:
    results = train_tiny(CONFIGS / "market.yml", synthetic_root, tmp_path, **ROUNDS)
    assert results["selected"]["epoch"] in (1, 3)
    assert {"mAP", "Rank-1"} <= results["selected"].keys()
    assert (tmp_path / "model_selected.pth").is_file()


def test_moments_of_the_classes__are_of_this_round_alone(
    synthetic_root: Path, tmp_path: Path
) -> None:
    """Step counters of Adam: 3 rounds of 2 steps for the network, 2 for the last class weights."""
    softmax = {"SPHERECLUSTER__SOFTMAX__ENABLED": True}
    train_tiny(PLUS, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=3, **softmax)
    checkpoint = final_checkpoint(tmp_path)
    classes = checkpoint["model"]["heads.classes.weight"].shape
    steps = {
        tuple(s["exp_avg"].shape) == classes: int(s["step"])
        for s in checkpoint["optimizer"]["state"].values()
    }
    assert steps == {False: 6, True: 2}
