"""What is read from a run's folder: the run's own numbers, whatever happened to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unreid.visualization.conftest import WriteRun
from unreid.visualization.history import read_run

LABELS = "[11/20 10:00:00] fastreid.unreid.labels INFO: "
EVALUATION = "[11/20 10:00:00] fastreid.unreid.trainer INFO: "


def labels_line(epoch: int, clusters: int, noise: int, total: int, extract: float = 1.5) -> str:
    return (f"{LABELS}Labels of epoch {epoch}: {clusters} clusters, noise {noise}"
            f" ({100 * noise / total:.1f} %), largest 2, mean size 2.0, cameras per cluster 1.00;"
            f" seconds: extract {extract:.2f}, label 0.25\n")


def quality_line(precision: float, name: str = "final") -> str:
    return f"{LABELS}  quality, {name}: precision {precision:.3f}, recall 0.500\n"


def score_line(mean: float, test_set: str = "Market1501") -> str:
    return f"{EVALUATION}{test_set}: Rank-1 50.00, Rank-5 60.00, mAP {mean:.2f}, mINP 1.00\n"


def test_counts__are_those_of_the_label_files(trained: Path) -> None:
    run = read_run(trained)
    assert [e.number for e in run.epochs] == [0, 1, 2]
    for epoch in run.epochs:
        with np.load(trained / "labels" / f"epoch_{epoch.number:03d}.npz") as file:
            labels, camids = file["labels"], file["camids"]
        assert epoch.clusters == len(set(labels.tolist()) - {-1})
        assert epoch.noise == pytest.approx(np.mean(labels == -1))
        sizes = [int((labels == c).sum()) for c in range(epoch.clusters)]
        seen = [len(set(camids[labels == c].tolist())) for c in range(epoch.clusters)]
        assert epoch.largest == max(sizes)
        assert epoch.cameras_per_cluster == pytest.approx(np.mean(seen))


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
        assert last.quality[name] == pytest.approx(labels[name], abs=6e-4)
    assert {"extract", "label"} <= set(last.seconds)


def test_losses__are_those_of_the_metrics_file(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    wanted = {row["iteration"]: row["total_loss"] for row in rows if "total_loss" in row}
    assert dict(read_run(trained).losses["total_loss"]) == wanted and wanted


def test_lines_of_an_earlier_stage__are_left_out(write_run: WriteRun) -> None:
    # Stage 1 logs epochs of its own, with other counts.
    log = labels_line(0, 7, 1, 9, 99.0) + quality_line(0.9) + labels_line(0, 2, 1, 5)
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], log=log + quality_line(0.25)))
    assert run.epochs[0].quality["precision"] == 0.25
    assert run.epochs[0].seconds == {"extract": 1.5, "label": 0.25}


def test_epoch_done_again_after_a_kill__counts_by_its_last_line(write_run: WriteRun) -> None:
    first = labels_line(0, 2, 1, 5) + quality_line(0.1) + score_line(10)
    again = labels_line(0, 2, 1, 5) + quality_line(0.2) + score_line(20)
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], log=first + again))
    assert run.epochs[0].quality["precision"] == 0.2
    assert run.epochs[0].scores["Market1501"]["mAP"] == 20


def test_evaluation_long_after_training__changes_no_curve(write_run: WriteRun) -> None:
    log = labels_line(0, 2, 1, 5) + score_line(30) + score_line(99)
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], log=log))
    assert run.scores["Market1501"] == [(1, {"Rank-1": 50, "Rank-5": 60, "mAP": 30, "mINP": 1})]


def test_kept_labels__keep_their_quality(write_run: WriteRun) -> None:
    log = (labels_line(0, 2, 1, 5) + quality_line(0.4)
           + f"{LABELS}Labels of epoch 1: those of the epoch before\n")
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]] * 2, log=log))
    assert run.epochs[1].quality == run.epochs[0].quality != {}


def test_labels_on_the_way_and_pairs__are_told_apart(write_run: WriteRun) -> None:
    log = (labels_line(0, 2, 1, 5) + quality_line(0.1, "before_refinement") + quality_line(0.4)
           + f"{LABELS}  quality, pairs: pair_precision 0.700\n")
    epoch = read_run(write_run(labels=[[0, 0, 1, 1, -1]], log=log)).epochs[0]
    assert epoch.on_the_way["before_refinement"]["precision"] == 0.1
    assert epoch.quality == {"precision": 0.4, "recall": 0.5, "pair_precision": 0.7}


def test_several_test_sets__are_kept_apart(write_run: WriteRun) -> None:
    log = labels_line(0, 2, 1, 5) + score_line(30, "Market1501") + score_line(40, "DukeMTMC")
    results = {"before": {"Market1501": {"mAP": 1.0}, "DukeMTMC": {"mAP": 2.0}}, "after": None}
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], log=log, results=results))
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
    results = {"before": 5, "after": {"mAP": "high"}, "seconds": [1], "labels": {"clusters": 3},
               "datasets": {"test": "Market1501"}, "selected": {"epoch": 10**400}}
    run = read_run(write_run(labels=[[0, 0, 1, 1, -1]], results=results))
    assert run.results == {"labels": {"clusters": 3}}
    for key in ("before", "after", "seconds", "datasets", "selected"):
        assert f"results.json: {key} is of an unknown kind, and left out" in run.remarks
    assert run.scores == {}


@pytest.mark.parametrize("changed", [{"camids": np.full(5, 2**62)}, {"labels": np.zeros((5, 5))},
                                     {"labels": np.array([{}] * 5)}, {"paths": np.arange(5)}])
def test_hostile_label_file__is_a_remark(changed: dict[str, Any], write_run: WriteRun) -> None:
    folder = write_run(labels=[[0, 0, 1, 1, -1], [0, 0, 1, 1, -1]])
    path = folder / "labels" / "epoch_001.npz"
    with np.load(path) as file:
        arrays = {**dict(file), **changed}
    np.savez(path, allow_pickle=True, **arrays)
    run = read_run(folder)
    assert [epoch.number for epoch in run.epochs] == [0] and run.labels is None
    assert any(r.startswith("labels/epoch_001.npz cannot be read") for r in run.remarks)


def test_all_noise__is_an_epoch_of_no_cluster(write_run: WriteRun) -> None:
    epoch = read_run(write_run(labels=[[-1, -1, -1]])).epochs[0]
    assert (epoch.clusters, epoch.noise, epoch.largest, epoch.cameras_per_cluster) == (0, 1, 0, 0)


def test_a_thousand_epochs__stay_in_order(write_run: WriteRun) -> None:
    folder = write_run(labels=[[0, 0], [0, 1]])
    np.savez(folder / "labels" / "epoch_1000.npz", labels=np.array([0, 1]),
             camids=np.array([0, 0]), paths=np.array(["a", "b"]))  # fmt: skip
    run = read_run(folder)
    assert [e.number for e in run.epochs] == [0, 1, 1000]
    assert run.labels is not None and run.labels.paths == ["a", "b"]


@pytest.mark.parametrize("made", [True, False])
def test_folder_of_something_else__is_refused_by_name(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "holiday"
    if made:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"holiday.*OUTPUT_DIR"):
        read_run(folder)
