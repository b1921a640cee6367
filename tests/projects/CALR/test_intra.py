"""Stage 1: number of local clusters, silhouette selection, and the file of local labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calr.inter import CALRLabeler
from calr.intra import IntraCameraLabeler, read_local_labels
from tests.projects.tiny_run import (
    MARKET,
    Interrupted,
    interrupted_at_step,
    label_files,
    load_tiny,
    train_tiny,
)
from unreid.data.unlabelled import UnlabelledImages
from unreid.structures import FeatureBank


def config(**settings: object) -> Any:
    return load_tiny(MARKET, **settings)[0]


def bank(num: int = 24, seed: int = 0, groups: int = 4, spread: float = 0.3) -> FeatureBank:
    rng = np.random.default_rng(seed)
    features = np.eye(8)[np.arange(num) % groups] + spread * rng.normal(size=(num, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return FeatureBank(features.astype(np.float32), np.zeros(num, dtype=np.int64))


@pytest.mark.parametrize(
    ("num_images", "wanted", "per_cluster", "expected"),
    [
        (3000, 600, 5, 600),  # the requested number
        (900, 600, 5, 300),  # at most a third of the images
        (100, 0, 5, 20),  # N_c // 5 if no number is given
        (100, 0, 2, 33),
        (4, 600, 5, 2),  # at least two
        (5, 0, 5, 2),
    ],
)
def test_number_of_local_clusters(
    num_images: int, wanted: int, per_cluster: int, expected: int
) -> None:
    cfg = config(CALR__INTRA__NUM_CLUSTERS=wanted, CALR__INTRA__IMAGES_PER_CLUSTER=per_cluster)
    assert IntraCameraLabeler(cfg, num_images).num_clusters == expected


@pytest.mark.parametrize("cluster", ["jaccard", "sse"])
def test_every_image_gets_a_local_label_in_the_wanted_number_of_clusters(cluster: str) -> None:
    cfg = config(CALR__INTRA__CLUSTER=cluster, CALR__INTRA__NUM_CLUSTERS=4, UNSUP__JACCARD__K1=6)
    pseudo = IntraCameraLabeler(cfg, 24)(bank(spread=0.05), 0)
    assert pseudo.num_noise == 0 and pseudo.num_clusters == 4
    truth = np.arange(24) % 4
    assert len(set(zip(pseudo.labels.tolist(), truth.tolist()))) == 4


@pytest.mark.parametrize("cluster", ["jaccard", "sse"])
def test_labels_of_the_best_silhouette_are_kept_and_survive_a_resume(cluster: str) -> None:
    cfg = config(CALR__INTRA__CLUSTER=cluster, CALR__INTRA__NUM_CLUSTERS=4, UNSUP__JACCARD__K1=6)
    labeler = IntraCameraLabeler(cfg, 24)
    scored = []
    for epoch, spread in enumerate([0.6, 0.02, 0.9]):
        labels = labeler(bank(seed=epoch, spread=spread), epoch)
        scored.append((float(labels.remarks["silhouette"]), labels.labels))
    best = max(range(3), key=lambda e: scored[e][0])
    assert best == 1, "the tight groups separate best"
    np.testing.assert_array_equal(labeler.best_labels, scored[1][1])

    resumed = IntraCameraLabeler(cfg, 24)
    resumed.load_state_dict(labeler.state_dict())
    assert resumed.best_score == labeler.best_score
    resumed(bank(seed=7, spread=0.9), 3)
    np.testing.assert_array_equal(resumed.best_labels, scored[1][1])


def test_labeler__that_saw_nothing_has_a_state_too() -> None:
    labeler = IntraCameraLabeler(config(), 24)
    labeler.load_state_dict(IntraCameraLabeler(config(), 24).state_dict())
    assert labeler.best_labels is None


@pytest.fixture(scope="module")
def finished(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    train_tiny(MARKET, synthetic_root, output, SOLVER__MAX_EPOCH=1, UNSUP__ITERS_PER_EPOCH=1)
    return output


def images_of(finished: Path) -> UnlabelledImages:
    file = label_files(finished)["local_labels.npz"]
    names = tuple(f"market1501_{c}" for c in range(file["camids"].max() + 1))
    return UnlabelledImages(
        tuple(f"root/{p}" for p in file["paths"]), file["camids"], names, "root"
    )


def test_local_labels__are_unique_over_cameras_and_have_no_noise(finished: Path) -> None:
    file = label_files(finished)["local_labels.npz"]
    assert file["labels"].min() == 0
    pairs = {(int(label), int(c)) for label, c in zip(file["labels"], file["camids"])}
    assert len(pairs) == file["labels"].max() + 1, "a local label is of one camera"
    assert set(file) == {"paths", "camids", "labels"}
    assert all(not str(p).startswith("/") for p in file["paths"])


def test_stage_1__leaves_no_checkpoints_behind(finished: Path) -> None:
    assert list((finished / "intra").rglob("*.pth")) == []
    assert len(list((finished / "intra").iterdir())) == 3


def test_local_labels__of_an_earlier_run_skip_stage_1(
    finished: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    train_tiny(
        MARKET,
        synthetic_root,
        tmp_path,
        SOLVER__MAX_EPOCH=1,
        UNSUP__ITERS_PER_EPOCH=1,
        CALR__LOCAL_LABELS=finished / "local_labels.npz",
    )
    assert not (tmp_path / "intra").exists()
    ours, theirs = label_files(tmp_path), label_files(finished)
    np.testing.assert_array_equal(
        ours["labels/epoch_000.npz"]["labels"], theirs["labels/epoch_000.npz"]["labels"]
    )


def test_best_silhouette__survives_a_stop_in_the_middle_of_a_camera(
    synthetic_root: Path, tmp_path: Path
) -> None:
    settings = {"CALR__INTRA__EPOCHS": 3, "SOLVER__MAX_EPOCH": 1, "UNSUP__ITERS_PER_EPOCH": 1}
    train_tiny(MARKET, synthetic_root, tmp_path / "whole", **settings)
    with pytest.raises(Interrupted), interrupted_at_step(3):
        train_tiny(MARKET, synthetic_root, tmp_path / "stopped", **settings)
    assert not (tmp_path / "stopped/intra/market1501_0/local_labels.npz").exists()
    train_tiny(MARKET, synthetic_root, tmp_path / "stopped", resume=True, **settings)
    whole, stopped = label_files(tmp_path / "whole"), label_files(tmp_path / "stopped")
    np.testing.assert_array_equal(
        whole["local_labels.npz"]["labels"], stopped["local_labels.npz"]["labels"]
    )


def test_stage_2__refuses_local_labels_of_other_images(finished: Path, tmp_path: Path) -> None:
    path = finished / "local_labels.npz"
    images = images_of(finished)
    assert read_local_labels(str(path), images).dtype == np.int64
    fewer = images.subset(np.arange(len(images) - 1))
    with pytest.raises(
        ValueError,
        match=rf"expected labels of the {len(images) - 1} images of the training set,"
        rf" got {len(images)}",
    ):
        read_local_labels(str(path), fewer)
    renamed = UnlabelledImages(
        ("root/another.jpg", *images.paths[1:]), images.camids, images.cameras, "root"
    )
    with pytest.raises(
        ValueError,
        match=r"the image list differs from the training set: expected another.jpg, got .*\.jpg",
    ):
        read_local_labels(str(path), renamed)
    moved = UnlabelledImages(images.paths, np.roll(images.camids, 1), images.cameras, "root")
    with pytest.raises(ValueError, match="camera ids differ from the training set"):
        read_local_labels(str(path), moved)
    with pytest.raises(FileNotFoundError, match=r"CALR.LOCAL_LABELS nowhere.npz: no such file"):
        read_local_labels("nowhere.npz", images)
    for name, content in (("text.npz", b"no zip"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: not a file of local labels"):
            read_local_labels(str(tmp_path / name), images)
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz: not a file of local labels"):
        read_local_labels(str(tmp_path / "other.npz"), images)


def test_local_labels__of_other_images_are_refused_before_any_training(
    finished: Path, tmp_path: Path, synthetic_root: Path
) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(
        bad,
        paths=np.array(["a"]),
        camids=np.zeros(1, dtype=np.int64),
        labels=np.zeros(1, dtype=np.int64),
    )
    cfg = config(CALR__LOCAL_LABELS=bad)
    with pytest.raises(ValueError, match=r"images of the training set, got 1$"):
        CALRLabeler.check_images(cfg, images_of(finished))
    with pytest.raises(FileNotFoundError, match=r"CALR.LOCAL_LABELS gone.npz"):
        CALRLabeler.check_images(config(CALR__LOCAL_LABELS="gone.npz"), images_of(finished))
