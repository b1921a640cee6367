"""Tests of reading a run's folder, also of incomplete and damaged runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unreid.visualization.conftest import WriteRun
from unreid.reading.epochs_file import EpochRecord
from unreid.visualization.history import read_run

COUNTS = {"images": 5, "clusters": 2, "noise": 1, "largest": 2, "cameras_per_cluster": 1.0}


def scores(mean: float) -> dict[str, float]:
    return {"Rank-1": 50.0, "Rank-5": 60.0, "mAP": mean, "mINP": 1.0}


def test_counts__are_those_of_the_label_files(trained: Path) -> None:
    run = read_run(trained)
    assert [e.epoch for e in run.epochs] == [0, 1, 2]
    for epoch in run.epochs:
        with np.load(trained / "labels" / f"epoch_{epoch.epoch:03d}.npz") as file:
            labels, camids = file["labels"], file["camids"]
        counts, clusters = epoch.labels, len(set(labels.tolist()) - {-1})
        assert counts["clusters"] == clusters and counts["images"] == len(labels)
        assert counts["noise"] == (labels == -1).sum()
        sizes = [int((labels == c).sum()) for c in range(clusters)]
        seen = [len(set(camids[labels == c].tolist())) for c in range(clusters)]
        assert counts["largest"] == max(sizes)
        assert counts["cameras_per_cluster"] == pytest.approx(np.mean(seen))


def test_epochs_without_a_line__have_the_same_counts_of_their_label_files(copy: Path) -> None:
    whole = read_run(copy).epochs
    (copy / "epochs.jsonl").unlink()
    (copy / "log.txt").unlink()
    for epoch, known in zip(read_run(copy).epochs, whole, strict=True):
        wanted = {k: v for k, v in known.labels.items() if k != "mean_size"}
        assert epoch.labels == pytest.approx(wanted) and epoch.quality == {}


def test_log__is_not_read(copy: Path) -> None:
    before = read_run(copy)
    assert (copy / "log.txt").stat().st_size > 1000
    (copy / "log.txt").unlink()
    after = read_run(copy)
    assert after.epochs == before.epochs and after.remarks == before.remarks == ()


def test_scores_at_both_ends__are_those_of_the_results(trained: Path) -> None:
    run = read_run(trained)
    results = json.loads((trained / "results.json").read_text())
    ((name, scores),) = run.scores.items()
    assert name == "Market1501" and [done for done, _ in scores] == [0, 1, 2, 3]
    assert scores[0][1] == results["before"] and scores[-1][1] == results["after"]


def test_quality__agrees_with_the_results_at_the_end(trained: Path) -> None:
    last = read_run(trained).epochs[-1]
    labels = json.loads((trained / "results.json").read_text())["labels"]
    for name in ("precision", "recall", "f_score", "ari", "nmi", "purity"):
        assert last.quality["final"][name] == pytest.approx(labels[name], abs=6e-5)
    assert {"extract", "label"} <= set(last.seconds)


def test_losses__are_those_of_the_metrics_file(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    wanted = {row["iteration"]: row["total_loss"] for row in rows if "total_loss" in row}
    assert dict(read_run(trained).losses["total_loss"]) == wanted and wanted


def test_earlier_stage__has_its_own_epochs_by_camera(write_run: WriteRun) -> None:
    folder = write_run(labels=[[0, 0, 1, 1, -1]], epochs=[EpochRecord(0, labels=COUNTS)])
    for part, clusters in (("intra/cam_1", 7), ("intra/cam_2", 8), ("previous/001", 9)):
        (folder / part).mkdir(parents=True)
        lines = [EpochRecord(e, labels={"clusters": clusters}).to_line() for e in (0, 1)]
        (folder / part / "epochs.jsonl").write_text("".join(lines))
    run = read_run(folder)
    assert len(run.epochs) == 1 and run.epochs[0].labels["clusters"] == 2
    found = {
        part: [e.labels["clusters"] for e in epochs] for part, epochs in run.stages["intra"].items()
    }
    assert found == {"cam_1": [7, 7], "cam_2": [8, 8]} and set(run.stages) == {"intra"}


def test_epoch_that_was_broken_off__has_the_counts_of_its_labels(write_run: WriteRun) -> None:
    folder = write_run(
        labels=[[0, 0, 1, 1, -1], [0, 0, 0, 1, 2]],
        epochs=[EpochRecord(0, labels=COUNTS, losses={"total_loss": 2.0})],
    )
    first, second = read_run(folder).epochs
    assert first.losses == {"total_loss": 2.0}
    assert second.losses == {} and second.labels["clusters"] == 3
    assert second.labels["largest"] == 3 and second.labels["noise"] == 0


def test_damaged_line__is_a_remark(write_run: WriteRun) -> None:
    folder = write_run(epochs=[EpochRecord(0)])
    with open(folder / "epochs.jsonl", "a") as file:
        file.write("{}\n" + EpochRecord(1).to_line() + '{"epoch": 2, "it')
    run = read_run(folder)
    assert [e.epoch for e in run.epochs] == [0, 1]
    assert any(r.startswith("epochs.jsonl: line 2 cannot be read") for r in run.remarks)


def test_several_test_sets__are_kept_apart(write_run: WriteRun) -> None:
    record = EpochRecord(0, scores={"Market1501": scores(30), "DukeMTMC": scores(40)})
    results = {"before": {"Market1501": {"mAP": 1.0}, "DukeMTMC": {"mAP": 2.0}}, "after": None}
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], epochs=[record], results=results))
    assert [(d, v["mAP"]) for d, v in run.scores["Market1501"]] == [(0, 1), (1, 30)]
    assert [(d, v["mAP"]) for d, v in run.scores["DukeMTMC"]] == [(0, 2), (1, 40)]


def test_torn_last_lines_and_damaged_files__are_remarks(write_run: WriteRun) -> None:
    metrics = '{"iteration": 1, "total_loss": 2.5}\n{"iteration": 2, "total_lo'
    folder = write_run(labels=[[0, 0, 1]], metrics=metrics)
    (folder / "results.json").write_text('{"before": ')
    (folder / "labels" / "epoch_001.npz").write_bytes(b"PK\x03\x04 half")
    run = read_run(folder)
    assert run.losses == {"total_loss": [(1, 2.5)]} and len(run.epochs) == 1
    assert any("results.json cannot be read" in r for r in run.remarks)
    assert any("epoch_001.npz cannot be read" in r for r in run.remarks)


def test_results_of_other_kinds__are_remarks(write_run: WriteRun) -> None:
    results = {
        "before": 5,
        "after": {"mAP": "high"},
        "seconds": [1],
        "labels": {"clusters": 3},
        "datasets": {"test": "Market1501"},
        "selected": {"epoch": 10**400},
    }
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], results=results))
    assert run.results == {"labels": {"clusters": 3}}
    for key in ("before", "after", "seconds", "datasets", "selected"):
        assert f"results.json: {key} has an unexpected type and is ignored" in run.remarks
    assert run.scores == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"camids": np.full(5, 2**62)},
        {"labels": np.zeros((5, 5))},
        {"labels": np.array([{}] * 5)},
        {"paths": np.arange(5)},
    ],
)
def test_hostile_label_file__is_a_remark(changed: dict[str, Any], write_run: WriteRun) -> None:
    folder = write_run(labels=[[0, 0, 1, 1, -1], [0, 0, 1, 1, -1]])
    path = folder / "labels" / "epoch_001.npz"
    with np.load(path) as file:
        arrays = {**dict(file), **changed}
    np.savez(path, allow_pickle=True, **arrays)
    run = read_run(folder)
    assert [epoch.epoch for epoch in run.epochs] == [0] and run.labels is None
    assert any(r.startswith("labels/epoch_001.npz cannot be read") for r in run.remarks)


def test_all_noise__is_an_epoch_of_no_cluster(write_run: WriteRun) -> None:
    epoch = read_run(write_run(labels=[[-1, -1, -1]])).epochs[0]
    assert epoch.labels == {
        "images": 3,
        "clusters": 0,
        "noise": 3,
        "largest": 0,
        "cameras_per_cluster": 0,
    }


def test_a_thousand_epochs__stay_in_order(write_run: WriteRun) -> None:
    folder = write_run(labels=[[0, 0], [0, 1]])
    np.savez(folder / "labels" / "epoch_1000.npz", labels=np.array([0, 1]),
             camids=np.array([0, 0]), paths=np.array(["a", "b"]))  # fmt: skip
    run = read_run(folder)
    assert [e.epoch for e in run.epochs] == [0, 1, 1000]
    assert run.labels is not None and run.labels.paths == ["a", "b"]


@pytest.mark.parametrize("made", [True, False])
def test_folder_of_something_else__is_refused_by_name(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "holiday"
    if made:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"holiday.*OUTPUT_DIR"):
        read_run(folder)
