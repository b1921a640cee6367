"""``epochs.jsonl``: one line per epoch with the numbers of the run, also after a kill."""

from __future__ import annotations

import datetime
import errno
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calr.inter import CALRLabeler
from tests.projects.tiny_run import (
    BASELINE,
    MARKET,
    Interrupted,
    interrupted_at_step,
    label_files,
    train_tiny,
)
from unreid.engine.atomic import append_line
from unreid.engine.label_hook import cameras_per_cluster
from unreid.engine.step import UnsupervisedStep
from unreid.reading.epochs_file import EPOCHS, EpochRecord, read_epochs

SETTINGS = {"SOLVER__MAX_EPOCH": 3, "TEST__EVAL_PERIOD": 1, "UNSUP__EVAL_BEFORE": False}
#: Fields that depend on time.
CLOCK = ("started", "finished", "seconds", "label_seconds")


def rows(output: Path) -> list[dict[str, Any]]:
    """Return all lines of the file, parsed; fails for a line that is not JSON."""
    return [json.loads(line) for line in (output / EPOCHS).read_text().splitlines()]


def timeless(output: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows(output)]


@pytest.fixture(scope="module")
def finished(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("epochs") / "run"
    train_tiny(BASELINE, synthetic_root, output, **SETTINGS)
    return output


def test_every_epoch__has_one_line_with_all_documented_fields(finished: Path) -> None:
    found = rows(finished)
    assert [row["epoch"] for row in found] == [0, 1, 2]
    for row in found:
        assert list(row) == list(EpochRecord.__dataclass_fields__)
        assert row["iterations"] == 2 and row["relabelled"] is True
        assert {"extract", "label", "train", "evaluate"} <= set(row["seconds"])
        assert row["label_seconds"] and min(row["seconds"].values()) >= 0
        started, done = (datetime.datetime.fromisoformat(row[k]) for k in ("started", "finished"))
        assert started.utcoffset() == datetime.timedelta(0) and started < done
    for before, after in pairwise(found):
        assert before["finished"] <= after["started"]


def test_label_counts__equal_those_of_the_label_files(finished: Path) -> None:
    for row in rows(finished):
        file = label_files(finished)[f"labels/epoch_{row['epoch']:03d}.npz"]
        labels, kept = file["labels"], file["labels"][file["labels"] >= 0]
        sizes = np.bincount(kept)
        assert row["labels"] == {
            "images": len(labels),
            "clusters": len(sizes),
            "noise": len(labels) - len(kept),
            "largest": sizes.max(),
            "mean_size": pytest.approx(sizes.mean()),
            "cameras_per_cluster": pytest.approx(
                cameras_per_cluster(labels, file["camids"]).mean()
            ),
        }


def test_quality_and_scores__of_the_last_epoch_equal_those_of_the_results(finished: Path) -> None:
    results, last = json.loads((finished / "results.json").read_text()), rows(finished)[-1]
    wanted = {k: v for k, v in results["labels"].items() if k not in ("clusters", "noise")}
    assert {k: round(v, 4) for k, v in last["quality"]["final"].items()} == wanted
    assert last["scores"] == {"Market1501": results["after"]}


def test_losses__are_means_over_the_iterations_of_the_epoch(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    backward = UnsupervisedStep._backward

    def keep(self: Any, data: Any) -> Any:
        found = backward(self, data)
        seen.append(float(sum(found[0].values())))
        return found

    monkeypatch.setattr(UnsupervisedStep, "_backward", keep)
    train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=2, UNSUP__ITERS_PER_EPOCH=3)
    found = [row["losses"]["total_loss"] for row in rows(tmp_path)]
    assert found == pytest.approx([np.mean(seen[:3]), np.mean(seen[3:])])
    assert found[0] != pytest.approx(found[1], abs=1e-6)


def test_learning_rate__is_that_of_the_last_iteration(finished: Path) -> None:
    written = [json.loads(line) for line in (finished / "metrics.json").read_text().splitlines()]
    rates = {row["iteration"]: row["lr"] for row in written if "lr" in row}
    assert [row["learning_rate"] for row in rows(finished)] == [rates[i] for i in (1, 3, 5)]


def test_metrics_json__has_labels_and_scores_of_every_epoch(finished: Path) -> None:
    """The writer of fast-reid drops values of an iteration that it has already written."""
    written = [json.loads(line) for line in (finished / "metrics.json").read_text().splitlines()]
    clusters = [row["labels/clusters"] for row in written if "labels/clusters" in row]
    assert clusters == [row["labels"]["clusters"] for row in rows(finished)]
    quality = [row["labels/precision"] for row in written if "labels/precision" in row]
    assert quality == [row["quality"]["final"]["precision"] for row in rows(finished)]
    means = [round(row["mAP"], 4) for row in written if "mAP" in row]
    assert means == [row["scores"]["Market1501"]["mAP"] for row in rows(finished)]
    losses = [row["iteration"] for row in written if "total_loss" in row]
    assert losses == sorted(set(losses)) == [1, 3, 5], "an iteration is written once"


@pytest.mark.parametrize("period", [1, 2], ids=["a checkpoint per epoch", "every other epoch"])
@pytest.mark.parametrize("step", [4, 5, 6], ids=["epoch 1", "start of epoch 2", "end of epoch 2"])
def test_kill_and_resume__give_the_lines_of_an_uninterrupted_run(
    finished: Path,
    synthetic_root: Path,
    tmp_path: Path,
    step: int,
    period: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unreid.engine.checkpoint_hook import CheckpointHook

    settings = {**SETTINGS, "SOLVER__CHECKPOINT_PERIOD": period}
    with monkeypatch.context() as patch, interrupted_at_step(step), pytest.raises(Interrupted):
        # A killed process saves nothing.
        patch.setattr(CheckpointHook, "save_now", lambda self: "")
        train_tiny(BASELINE, synthetic_root, tmp_path, **settings)
    with open(tmp_path / EPOCHS, "a") as file:
        file.write('{"epoch": 2, "iterations": 2, "star')
    train_tiny(BASELINE, synthetic_root, tmp_path, resume=True, **settings)
    assert timeless(tmp_path) == timeless(finished)


def test_kill_between_line_and_checkpoint__repeats_the_epoch_and_its_line(
    finished: Path, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unreid.engine.checkpoint_hook import CheckpointHook

    after = CheckpointHook.after_epoch

    def killed(self: Any) -> None:
        if self.trainer.epoch == 1:
            raise Interrupted
        after(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(CheckpointHook, "after_epoch", killed)
        train_tiny(BASELINE, synthetic_root, tmp_path, **SETTINGS)
    assert [row["epoch"] for row in rows(tmp_path)] == [0, 1], "the line comes first"
    train_tiny(BASELINE, synthetic_root, tmp_path, resume=True, **SETTINGS)
    assert timeless(tmp_path) == timeless(finished)


def test_new_run_in_a_used_folder__has_no_line_of_the_earlier_run(
    synthetic_root: Path, tmp_path: Path
) -> None:
    (tmp_path / EPOCHS).write_text(EpochRecord(0).to_line() + EpochRecord(7).to_line())
    train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=1)
    assert [(row["epoch"], row["iterations"]) for row in rows(tmp_path)] == [(0, 2)]


@pytest.mark.parametrize(
    "step", [None, 3, 4], ids=["uninterrupted", "start of kept epoch", "end of kept epoch"]
)
def test_kept_labels__repeat_counts_and_quality_without_a_label_step(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int | None
) -> None:
    monkeypatch.setattr(CALRLabeler, "renews", lambda self, epoch: epoch != 1, raising=False)
    if step is not None:
        with interrupted_at_step(step), pytest.raises(Interrupted):
            train_tiny(BASELINE, synthetic_root, tmp_path, **SETTINGS)
    train_tiny(BASELINE, synthetic_root, tmp_path, resume=step is not None, **SETTINGS)
    first, kept, third = rows(tmp_path)
    assert [row["relabelled"] for row in (first, kept, third)] == [True, False, True]
    for key in ("labels", "quality", "remarks"):
        assert kept[key] == first[key]
    assert kept["quality"]["final"] and set(kept["seconds"]) == {"train", "evaluate"}
    assert kept["label_seconds"] == {}


def test_stage_one__has_a_file_per_camera_with_quality_and_silhouette(
    synthetic_root: Path, tmp_path: Path
) -> None:
    train_tiny(MARKET, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=1)
    cameras = sorted(p.name for p in (tmp_path / "intra").iterdir())
    assert len(cameras) >= 2
    for camera in cameras:
        records, remarks = read_epochs(tmp_path / "intra" / camera / EPOCHS)
        assert remarks == [] and [r.epoch for r in records] == list(range(len(records)))
        for record in records:
            assert 0 <= record.quality["final"]["f_score"] <= 1
            assert -1 <= float(record.remarks["silhouette"]) <= 1
            assert record.losses["total_loss"] > 0 and record.scores == {}
    main = rows(tmp_path)
    assert set(main[0]["quality"]) == {"before_refinement", "final"}


def test_run_without_ids__has_no_label_quality(synthetic_root: Path, tmp_path: Path) -> None:
    train_tiny(
        BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=1, UNSUP__LOG_LABEL_QUALITY=False
    )
    (row,) = rows(tmp_path)
    assert row["quality"] == {} and row["labels"]["clusters"] >= 2


def test_append_line__keeps_the_file_unchanged_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / EPOCHS
    append_line(str(path), "one\n")
    append_line(str(path), "two\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"could not write {path}.*No space left") as error:
        append_line(str(path), "three\n")
    assert error.value.errno == errno.ENOSPC and path.read_text() == "one\ntwo\n"
