"""Video: a dataset whose items have a tracklet is labelled and evaluated by tracklet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.market1501 import Market1501

from calr.inter import CALRLabeler
from tests.projects.tiny_run import (
    BASELINE,
    MARKET,
    Interrupted,
    assert_same_labels,
    assert_same_weights,
    interrupted_at_step,
    label_files,
    load_tiny,
    train_tiny,
)
from unreid.data.loader import build_test_loader
from unreid.data.unlabelled import UnlabelledImages, load_training_images, number_tracklets
from unreid.engine import label_hook
from unreid.evaluation.rank import evaluate_features
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator
from unreid.structures import FeatureBank, PseudoLabels, PseudoPairs

VIDEO = {"DATASETS__NAMES": "('SyntheticVideo',)", "DATASETS__TESTS": "('SyntheticVideo',)"}


@pytest.fixture(autouse=True)
def synthetic_video() -> Iterator[None]:
    """Return the synthetic dataset, with one tracklet per person and camera."""

    class SyntheticVideo(Market1501):
        def process_dir(self, dir_path: str, is_train: bool = True) -> list[Any]:
            items = super().process_dir(dir_path, is_train)
            return [(path, pid, cam, f"{pid}@{cam}") for path, pid, cam in items]

    DATASET_REGISTRY._obj_map["SyntheticVideo"] = SyntheticVideo
    yield
    del DATASET_REGISTRY._obj_map["SyntheticVideo"]


def frames_of(images: UnlabelledImages) -> dict[int, set[str]]:
    """Return the (person, camera) names of every tracklet, from the file names."""
    assert images.tracklets is not None
    names = ["_".join(Path(p).name.split("s")[0].split("_")[:2]) for p in images.paths]
    return {
        t: {n for n, own in zip(names, images.tracklets) if own == t}
        for t in range(int(images.tracklets.max()) + 1)
    }


def test_tracklets__are_numbered_by_first_appearance_and_have_one_camera_each(
    synthetic_root: Path,
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    images, _ = load_training_images(["SyntheticVideo"])
    assert images.tracklets is not None
    assert list(dict.fromkeys(images.tracklets.tolist())) == list(range(images.tracklets.max() + 1))
    assert all(len(found) == 1 for found in frames_of(images).values())
    assert len(images.unit_indices) == len(frames_of(images)) < len(images)
    assert images.tracklets[images.unit_indices].tolist() == sorted(frames_of(images))


def test_number_tracklets__gives_an_image_without_a_name_its_own_tracklet() -> None:
    items = [("a", 0, "1"), ("", 0, "2"), ("a", 0, "3"), ("", 0, "4")]
    numbers = number_tracklets(items)
    assert numbers is not None and numbers.tolist() == [0, 1, 0, 2]
    assert number_tracklets([("", 0, "1"), ("", 1, "2")]) is None
    assert number_tracklets([]) is None


def test_number_tracklets__raises_for_a_tracklet_of_two_cameras_and_names_it() -> None:
    with pytest.raises(ValueError, match=r"tracklet 'a' must be of one camera, got 0 and 1 \(two"):
        number_tracklets([("a", 0, "one"), ("a", 1, "two")])


def test_subset__renumbers_the_remaining_tracklets(synthetic_root: Path) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    images, _ = load_training_images(["SyntheticVideo"])
    assert images.tracklets is not None
    own = np.flatnonzero(images.tracklets >= 3)
    part = images.subset(own)
    assert part.tracklets is not None
    assert part.tracklets.min() == 0
    same = part.tracklets[:, None] == part.tracklets
    np.testing.assert_array_equal(same, images.tracklets[own, None] == images.tracklets[own])


def test_labeler__receives_the_mean_feature_per_tracklet_and_all_frames_get_its_label(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    extract, call = label_hook.extract, CALRLabeler.__call__

    def keep(cfg: Any, model: Any, images: Any) -> FeatureBank:
        seen["images"], seen["bank"] = images, extract(cfg, model, images)
        return seen["bank"]

    def labelled(self: Any, bank: FeatureBank, epoch: int) -> PseudoLabels:
        seen["units"], seen["labels"] = bank, call(self, bank, epoch)
        return seen["labels"]

    monkeypatch.setattr(label_hook, "extract", keep)
    monkeypatch.setattr(CALRLabeler, "__call__", labelled)
    train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__MAX_EPOCH=1, **VIDEO)
    images, bank, units = seen["images"], seen["bank"], seen["units"]
    assert len(units) == len(images.unit_indices)
    for t in range(len(units)):
        frames = np.flatnonzero(images.tracklets == t)
        mean = bank.features[frames].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(units.features[t], mean / np.linalg.norm(mean), atol=1e-6)
        assert (bank.camids[frames] == units.camids[t]).all()
    stored = label_files(tmp_path)["labels/epoch_000.npz"]["labels"]
    np.testing.assert_array_equal(stored, seen["labels"].labels[images.tracklets])


@pytest.mark.parametrize("config", [BASELINE, MARKET], ids=["baseline", "CALR with stage 1"])
def test_video__resumes_after_a_kill_to_the_same_labels_and_weights(
    config: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    settings = {**VIDEO, "SOLVER__MAX_EPOCH": 2, "CALR__INTRA__NUM_CLUSTERS": 3}
    train_tiny(config, synthetic_root, tmp_path / "whole", **settings)
    last = 4 if config == BASELINE else 7  # stage 1 of CALR: three cameras, one step each
    with pytest.raises(Interrupted), interrupted_at_step(last):
        train_tiny(config, synthetic_root, tmp_path / "stopped", **settings)
    train_tiny(config, synthetic_root, tmp_path / "stopped", resume=True, **settings)
    assert_same_labels(tmp_path / "whole", tmp_path / "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_pairs_of_tracklets__raise_an_error_that_names_the_dataset_and_a_solution(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = PseudoPairs(np.array([[0, 1]]), np.ones(1, np.float32))
    monkeypatch.setattr(
        CALRLabeler,
        "__call__",
        lambda self, bank, epoch: PseudoLabels(np.arange(len(bank)) // 2, pairs=pairs),
    )
    with pytest.raises(RuntimeError, match=r"SyntheticVideo has tracklets.*without tracklets"):
        train_tiny(BASELINE, synthetic_root, tmp_path, **VIDEO)


def test_selection_score__receives_tracklets(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[tuple[int, int]] = []

    def score(self: Any, bank: FeatureBank, pseudo: PseudoLabels) -> float:
        lengths.append((len(bank), len(pseudo)))
        return 0.0

    monkeypatch.setattr(CALRLabeler, "selects_model", True)
    monkeypatch.setattr(CALRLabeler, "selection_score", score)
    train_tiny(BASELINE, synthetic_root, tmp_path, **VIDEO)
    images, _ = load_training_images(["SyntheticVideo"])
    assert lengths == [(len(images.unit_indices),) * 2] * 2


@pytest.mark.parametrize("centred", [False, True])
def test_scores__are_those_of_mean_features_per_tracklet(
    centred: bool, synthetic_root: Path
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    cfg, _ = load_tiny(BASELINE, **VIDEO, TEST__CENTER_CAMERAS=centred)
    loader, num_query = build_test_loader(cfg, "SyntheticVideo")
    generator = torch.Generator().manual_seed(0)
    evaluator = UnsupervisedEvaluator(cfg, num_query)
    evaluator.reset()
    rows: dict[int, list[torch.Tensor]] = {}
    of: dict[int, tuple[int, int, bool]] = {}
    position = 0
    for batch in loader:
        features = torch.randn(len(batch["targets"]), 5, generator=generator)
        evaluator.process(batch, features)
        for feature, pid, cam, tracklet in zip(
            features,
            batch["targets"].tolist(),
            batch["camids"].tolist(),
            batch["tracklets"].tolist(),
        ):
            rows.setdefault(tracklet, []).append(F.normalize(feature, dim=0))
            entry = (pid, cam, position < num_query)
            assert of.setdefault(tracklet, entry) == entry
            position += 1
    found = evaluator.evaluate()
    if centred:
        return  # only that it runs: the arithmetic is that of images, see test_reid_evaluator.py
    means = torch.stack([F.normalize(torch.stack(r).mean(0), dim=0) for r in rows.values()])
    pids, cams, is_query = (np.array(column) for column in zip(*of.values()))
    query = np.flatnonzero(is_query)
    gallery = np.flatnonzero(~is_query)
    cmc, precisions, _ = evaluate_features(
        means[query], means[gallery], pids[query], pids[gallery], cams[query], cams[gallery]
    )
    assert found["mAP"] == pytest.approx(100 * float(np.mean(precisions)))
    assert found["Rank-1"] == pytest.approx(100 * float(cmc[0]))
    assert len(query) < num_query or len(gallery) < position - num_query
