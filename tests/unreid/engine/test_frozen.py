"""A frozen network is a run: labels, scores, files and report without training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE, MARKET, label_files, load_tiny, train_tiny
from unreid.commands import train
from unreid.engine.run import evaluate_only
from unreid.inference import Predictor
from unreid.reading.epochs_file import read_epochs

SPHERE = Path("projects/SphereCluster/configs/market.yml")
PAIRS = Path("projects/PseudoPair/configs/market.yml")


def test_frozen__has_the_labels_that_a_training_begins_with_and_its_weights(
    synthetic_root: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    train_tiny(BASELINE, synthetic_root, trained, SOLVER__MAX_EPOCH=1)
    frozen = tmp_path / "frozen"
    results = train_tiny(
        BASELINE,
        synthetic_root,
        frozen,
        SOLVER__MAX_EPOCH=0,
        UNSUP__EVAL_BEFORE=True,
        UNSUP__REPORT=True,
    )
    assert list(label_files(frozen)) == ["labels/epoch_000.npz"]
    for name, values in np.load(trained / "labels" / "epoch_000.npz").items():
        np.testing.assert_array_equal(np.load(frozen / "labels" / "epoch_000.npz")[name], values)
    # The weights are the start weights, and the scores theirs, measured once.
    cfg, _ = load_tiny(BASELINE, frozen, MODEL__WEIGHTS=frozen / "model_final.pth")
    scores = evaluate_only(cfg)
    assert results["before"] is None
    assert results["after"]["mAP"] == pytest.approx(scores["mAP"], abs=1e-3)
    assert results["labels"]["clusters"] >= 2
    (record,) = read_epochs(str(frozen / "epochs.jsonl"))[0]
    assert (record.epoch, record.iterations, record.losses) == (0, 0, {})
    assert record.labels["clusters"] == results["labels"]["clusters"]
    assert record.scores["Market1501"]["mAP"] == results["after"]["mAP"]
    page = (frozen / "report.html").read_text()
    assert len(page) > 10_000 and f"{results['after']['mAP']:.1f}" in page
    (frozen / "config.yaml").write_text(cfg.dump())  # written by the command
    assert Predictor.from_run(frozen)(np.zeros((64, 32, 3), np.uint8)).shape == (1, 1280)
    start = torch.load(frozen / "model_final.pth", weights_only=True)
    assert "epoch" not in start, "no epoch is done"
    results = train_tiny(BASELINE, synthetic_root, frozen, resume=True, SOLVER__MAX_EPOCH=1)
    assert "labels/epoch_000.npz" in label_files(frozen) and results["after"]
    assert len(read_epochs(str(frozen / "epochs.jsonl"))[0]) == 1, "epoch 0 is written once"


@pytest.mark.parametrize("config", [MARKET, SPHERE, PAIRS], ids=lambda c: c.parts[1])
def test_frozen__runs_with_every_method(config: Path, synthetic_root: Path, tmp_path: Path) -> None:
    """CALR's stage 1 as well, which trains nothing then."""
    results = train_tiny(config, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=0)
    assert results["labels"]["clusters"] >= 2 and results["after"]
    assert (tmp_path / "model_final.pth").is_file()
    for log in tmp_path.rglob("epochs.jsonl"):
        records, _ = read_epochs(str(log))
        assert [record.iterations for record in records] == [0]


def test_command__says_that_nothing_was_trained(
    synthetic_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    opts = tiny_options(BASELINE, tmp_path / "run", SOLVER__MAX_EPOCH=0)
    assert train.main(["--config-file", str(ROOT / BASELINE), *opts]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = results["labels"]
    assert (
        "no training (SOLVER.MAX_EPOCH 0): the network as it is gives"
        f" {found['clusters']} clusters, {found['noise']} images unassigned"
    ) in printed
    assert str(tmp_path / "run" / "model_final.pth") in printed
