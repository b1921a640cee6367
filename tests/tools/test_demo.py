"""``unreid demo`` with fewer images and iterations: output and results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unreid.commands import demo


def test_demo__prints_scores_before_and_after_and_writes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "TRAIN_IDS", 16)
    monkeypatch.setattr(demo, "TEST_IDS", 6)
    monkeypatch.setenv("FASTREID_DATASETS", "overwritten by the demo")
    small = [
        "SOLVER.MAX_EPOCH",
        "1",
        "UNSUP.ITERS_PER_EPOCH",
        "2",
        "CALR.INTRA.EPOCHS",
        "1",
        "CALR.INTRA.ITERS_PER_EPOCH",
        "1",
        "SOLVER.IMS_PER_BATCH",
        "16",
        "CALR.INTRA.IMS_PER_BATCH",
        "16",
        "DATALOADER.NUM_WORKERS",
        "0",
    ]
    code = demo.main(["--out", str(tmp_path / "run"), *small])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    better = results["after"]["mAP"] > results["before"]["mAP"]
    assert code == (0 if better else 1)
    printed = capsys.readouterr().out
    for words in (
        "before",
        "after",
        "Rank-1",
        "mINP",
        f"{results['after']['mAP']:.1f}",
        f"{results['labels']['clusters']} clusters for 16 people",
        str(tmp_path / "run"),
    ):
        assert words in printed
