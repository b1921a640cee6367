"""Labels kept for a round of several epochs, and unsupervised model selection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr.inter import CALRLabeler
from tests.projects.tiny_run import (
    BASELINE,
    Interrupted,
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    interrupted_at_step,
    label_files,
    train_tiny,
)
from unreid.engine.label_hook import PseudoLabelHook
from unreid.engine.selection import Selection
from unreid.evaluation.label_quality import label_quality
from unreid.modeling.memory_reid import MemoryReID
from unreid.structures import FeatureBank, PseudoLabels, PseudoPairs

ROUNDS = {"SOLVER__MAX_EPOCH": 4}


@pytest.fixture
def two_epochs_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CALRLabeler, "renews", lambda self, epoch: epoch % 2 == 0)


@pytest.mark.usefixtures("two_epochs_a_round")
def test_kept_labels__equal_those_of_the_previous_epoch_without_extraction(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    tell = MemoryReID.on_new_labels

    def on_new_labels(self: Any, pseudo: Any, bank: Any, epoch: int) -> None:
        told.append(epoch)
        tell(self, pseudo, bank, epoch)

    monkeypatch.setattr(MemoryReID, "on_new_labels", on_new_labels)
    train_tiny(BASELINE, synthetic_root, tmp_path, **ROUNDS)
    assert told == [0, 2]
    labels = [label_files(tmp_path)[f"labels/epoch_{e:03d}.npz"]["labels"] for e in range(4)]
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[2], labels[3])
    assert (labels[1] != labels[2]).any()


@pytest.mark.usefixtures("two_epochs_a_round")
@pytest.mark.parametrize("step", [3, 4, 5], ids=["first of the kept epoch", "second", "next round"])
def test_resume_within_a_round__continues_with_its_labels(
    step: int, synthetic_root: Path, tmp_path: Path
) -> None:
    train_tiny(BASELINE, synthetic_root, tmp_path / "whole", **ROUNDS)
    with pytest.raises(Interrupted), interrupted_at_step(step):
        train_tiny(BASELINE, synthetic_root, tmp_path / "stopped", **ROUNDS)
    train_tiny(BASELINE, synthetic_root, tmp_path / "stopped", resume=True, **ROUNDS)
    assert_same_labels(tmp_path / "whole", tmp_path / "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_batches__differ_between_epochs_with_the_same_labels(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CALRLabeler, "renews", lambda self, epoch: False)
    seen: list[list[list[int]]] = []
    build = PseudoLabelHook._train_loader

    def train_loader(self: Any, pseudo: Any, epoch: int) -> Any:
        seen.append([batch["indices"].tolist() for batch in build(self, pseudo, epoch)])
        return build(self, pseudo, epoch)

    monkeypatch.setattr(PseudoLabelHook, "_train_loader", train_loader)
    train_tiny(BASELINE, synthetic_root, tmp_path)
    assert len(seen) == 2
    assert seen[0] != seen[1]


def test_optimiser_state__is_cleared_for_label_parameters_only(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a merge class 7 is another cluster, so its old Adam moments must not be applied."""
    steps: dict[str, list[float]] = {"neck": [], "others": []}
    update_memory = MemoryReID.update_memory

    def neck(self: Any) -> list[torch.nn.Parameter]:
        return [self.heads.bottleneck[-1].weight]

    def update(self: Any, batch: Any) -> None:
        update_memory(self, batch)
        state = optimizers[-1].state
        steps["neck"].append(float(state[neck(self)[0]]["step"]))
        steps["others"].append(float(state[next(self.backbone.parameters())]["step"]))

    optimizers: list[torch.optim.Optimizer] = []
    init = torch.optim.Adam.__init__

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        optimizers.append(self)

    monkeypatch.setattr(torch.optim.Adam, "__init__", keep)
    monkeypatch.setattr(MemoryReID, "label_parameters", neck)
    monkeypatch.setattr(MemoryReID, "update_memory", update)
    train_tiny(BASELINE, synthetic_root, tmp_path)
    assert steps["others"] == [1, 2, 3, 4]
    assert steps["neck"] == [1, 2, 1, 2]


def select_by(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the labeler of CALR select a model by this score."""
    monkeypatch.setattr(CALRLabeler, "selects_model", True)
    monkeypatch.setattr(CALRLabeler, "selection_score", score)


def scored(scores: list[float], monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return a list that receives the labels to score, in order; the scores come from a list."""
    asked: list[np.ndarray] = []

    def score(self: Any, bank: FeatureBank, pseudo: PseudoLabels) -> float:
        asked.append(pseudo.labels)
        return scores[len(asked) - 1]

    select_by(score, monkeypatch)
    return asked


@pytest.mark.parametrize(
    ("scores", "chosen"), [([0.1, 0.3, 0.2], 1), ([0.3, 0.3, 0.3], 0), ([0.1, 0.2, 0.3], 2)]
)
def test_selected_round__has_the_best_score_and_is_the_first_of_equal_scores(
    scores: list[float],
    chosen: int,
    synthetic_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = scored(scores, monkeypatch)
    results = train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=3)
    assert results["selected"]["epoch"] == chosen
    assert results["selected"]["score"] == scores[chosen]
    # A round is scored on the labels that it was trained on, not on the next ones.
    for epoch, labels in enumerate(asked):
        stored = label_files(tmp_path)[f"labels/epoch_{epoch:03d}.npz"]["labels"]
        np.testing.assert_array_equal(labels, stored)
    state = torch.load(tmp_path / "model_selected.pth", weights_only=True)
    assert state["epoch"] == chosen
    final = final_checkpoint(tmp_path)["model"]
    same = [torch.equal(final[k], v) for k, v in state["model"].items()]
    assert all(same) == (chosen == 2)
    if chosen == 2:
        assert results["selected"]["mAP"] == results["after"]["mAP"]


def test_selected_scores__are_computed_with_the_selected_weights(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored([0.2, 0.1, 0.0], monkeypatch)
    longer = train_tiny(BASELINE, synthetic_root, tmp_path / "longer", SOLVER__MAX_EPOCH=3)
    monkeypatch.setattr(CALRLabeler, "selects_model", False)
    shorter = train_tiny(BASELINE, synthetic_root, tmp_path / "shorter", SOLVER__MAX_EPOCH=1)
    assert longer["selected"]["mAP"] == shorter["after"]["mAP"]
    assert longer["selected"]["mAP"] != longer["after"]["mAP"]


def test_selection__is_resumed_after_a_kill(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select_by(lambda self, bank, pseudo: -float(np.abs(bank.features[:5]).sum()), monkeypatch)
    whole = train_tiny(BASELINE, synthetic_root, tmp_path / "whole", SOLVER__MAX_EPOCH=3)
    with pytest.raises(Interrupted), interrupted_at_step(5):
        train_tiny(BASELINE, synthetic_root, tmp_path / "stopped", SOLVER__MAX_EPOCH=3)
    again = train_tiny(
        BASELINE, synthetic_root, tmp_path / "stopped", resume=True, SOLVER__MAX_EPOCH=3
    )
    assert again["selected"] == whole["selected"]


def test_selection_state__is_restored() -> None:
    one = Selection(lambda bank, pseudo: 0.0, "unused")
    one.epoch, one.score = 3, 0.25
    other = Selection(lambda bank, pseudo: 0.0, "unused")
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert (other.epoch, other.score) == (3, 0.25)


def test_pairs__are_saved_in_the_label_file_and_the_checkpoint(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = CALRLabeler.__call__
    pairs = PseudoPairs(np.array([[0, 1], [0, 5]]), np.array([0.5, 1.0], np.float32))

    def labelled(self: Any, bank: FeatureBank, epoch: int) -> PseudoLabels:
        return PseudoLabels(call(self, bank, epoch).labels, pairs=pairs)

    monkeypatch.setattr(CALRLabeler, "__call__", labelled)
    results = train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=1)
    stored = label_files(tmp_path)["labels/epoch_000.npz"]
    np.testing.assert_array_equal(stored["pairs"], pairs.indices)
    np.testing.assert_array_equal(stored["pair_confidence"], pairs.confidence)
    assert final_checkpoint(tmp_path)["pairs"].tolist() == [[0, 1], [0, 5]]
    assert results["labels"]["clusters"] >= 2


def test_results__report_the_label_quality_of_the_final_labels(
    synthetic_root: Path, tmp_path: Path
) -> None:
    results = train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=1)
    stored = label_files(tmp_path)["labels/epoch_000.npz"]
    pids = np.array([int(Path(p).name.split("_")[0]) for p in stored["paths"]])
    ours = label_quality(stored["labels"], pids, stored["camids"])
    assert results["labels"]["ari"] == round(ours.ari, 4)
