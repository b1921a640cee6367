"""The label step: transforms of the features, label files, memory and log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.projects.tiny_run import BASELINE, MARKET, label_files, load_tiny, train_tiny
from unreid.engine import label_hook
from unreid.engine.label_hook import cameras_per_cluster
from unreid.graph.centering import center_cameras
from unreid.graph.knn import knn
from unreid.graph.smoothing import smooth_mutual
from unreid.graph.whitening import whiten_cameras
from unreid.structures import FeatureBank

SHORT = {"SOLVER__MAX_EPOCH": 1, "UNSUP__ITERS_PER_EPOCH": 1}


def test_cameras_per_cluster__equals_a_loop(rng: np.random.Generator) -> None:
    labels = np.concatenate([np.arange(5), rng.integers(-1, 5, 40)])
    camids = rng.integers(0, 4, 45)
    expected = [len({camids[i] for i in range(45) if labels[i] == k}) for k in range(5)]
    assert cameras_per_cluster(labels, camids).tolist() == expected


def test_label_file__has_relative_paths_cameras_and_labels_before_refinement(
    synthetic_root: Path, tmp_path: Path
) -> None:
    train_tiny(MARKET, synthetic_root, tmp_path, **SHORT)
    file = label_files(tmp_path)["labels/epoch_000.npz"]
    assert set(file) == {"paths", "camids", "labels", "labels_before_refinement"}
    assert file["paths"].tolist() == sorted(file["paths"].tolist())
    assert all(p.startswith("Market-1501-v15.09.15/bounding_box_train/") for p in file["paths"])
    moved = file["labels_before_refinement"] != file["labels"]
    assert file["labels"].shape == moved.shape == (72,)


def bank_and_labelled(
    root: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> tuple[FeatureBank, FeatureBank]:
    """Return the features as extracted, and as the labeler receives them."""
    seen: dict[str, Any] = {}
    extract = label_hook.extract

    def keep(*args: Any) -> Any:
        seen["bank"] = extract(*args)
        return seen["bank"]

    class Stop(Exception):
        pass

    def labeler(self: Any, bank: Any, epoch: int) -> Any:
        seen["labelled"] = bank
        raise Stop

    from calr.inter import CALRLabeler

    monkeypatch.setattr(label_hook, "extract", keep)
    monkeypatch.setattr(CALRLabeler, "__call__", labeler)
    with pytest.raises(Stop):
        train_tiny(BASELINE, root, output, UNSUP__CENTER_SHRINKAGE=2.0, **settings)
    return seen["bank"], seen["labelled"]


@pytest.mark.parametrize("centred", [False, True])
def test_labeler__receives_centred_features_if_enabled(
    centred: bool, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, labelled = bank_and_labelled(
        synthetic_root, tmp_path, monkeypatch, UNSUP__CENTER_CAMERAS=centred
    )
    if centred:
        expected = center_cameras(bank.features, bank.camids, 2.0)
        np.testing.assert_array_equal(labelled.features, expected)
        assert not np.array_equal(labelled.features, bank.features)
    else:
        assert labelled is bank


def test_labeler__receives_whitened_and_smoothed_features(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, labelled = bank_and_labelled(
        synthetic_root,
        tmp_path,
        monkeypatch,
        UNSUP__CENTER_CAMERAS=True,
        UNSUP__WHITEN_CAMERAS=0.3,
        UNSUP__SMOOTH_NEIGHBOURS=3,
    )
    whitened = whiten_cameras(bank.features, bank.camids, power=0.3, mean_shrinkage=2.0)
    expected = smooth_mutual(whitened, 3, neighbours=knn(whitened, 4))
    np.testing.assert_array_equal(labelled.features, expected)
    assert labelled.lengths is None
    np.testing.assert_array_equal(labelled.camids, bank.camids)


def test_whitening_without_centring__is_refused() -> None:
    with pytest.raises(ValueError, match=r"WHITEN_CAMERAS must be 0 without UNSUP\.CENTER_CAMERAS"):
        load_tiny(BASELINE, UNSUP__WHITEN_CAMERAS=0.3)


def test_memory__is_initialised_with_features_as_extracted(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unreid.modeling.memory_reid import MemoryReID

    received: list[Any] = []
    new_labels = MemoryReID.on_new_labels

    def record(self: Any, pseudo: Any, bank: Any, epoch: int) -> None:
        received.append(bank)
        new_labels(self, pseudo, bank, epoch)

    extracted: list[Any] = []
    extract = label_hook.extract

    def keep(*args: Any) -> Any:
        extracted.append(extract(*args))
        return extracted[-1]

    monkeypatch.setattr(MemoryReID, "on_new_labels", record)
    monkeypatch.setattr(label_hook, "extract", keep)
    train_tiny(BASELINE, synthetic_root, tmp_path, UNSUP__CENTER_CAMERAS=True, **SHORT)
    assert received[0] is extracted[0]


def test_log__has_one_line_per_label_step_and_the_label_quality(
    synthetic_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logging.getLogger("fastreid").propagate = True
    with caplog.at_level(logging.INFO):
        train_tiny(MARKET, synthetic_root, tmp_path, **SHORT)
    lines = [r.getMessage() for r in caplog.records if r.name == "fastreid.unreid.labels"]
    last = max(i for i, line in enumerate(lines) if line.startswith("Labels of epoch 0: "))
    for words in (
        " clusters, noise ",
        "largest ",
        "mean size ",
        "cameras per cluster ",
        "refinement removed ",
        "seconds: extract ",
    ):
        assert words in lines[last]
    assert lines[last + 1].startswith("  quality, before_refinement: precision ")
    assert lines[last + 2].startswith("  quality, final: precision ")
