"""Tiny runs on a folder of synthetic images with unusual names: train, evaluate, label files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.projects.tiny_run import BASELINE, MARKET, label_files, train_tiny

#: ``Halle 7/Kamera-2/Wer_0007 Gang t1 #004.JPG``
PATTERN = r"Kamera-(?P<camera>\d+)/Wer_(?P<id>\d+)"
TRACKED = PATTERN + r" Gang (?P<tracklet>t\d+)"


@pytest.fixture(scope="module")
def folder(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the synthetic training images to names in no dataset's format."""
    root = tmp_path_factory.mktemp("eigene Bilder ä")
    source = synthetic_root / "Market-1501-v15.09.15/bounding_box_train"
    for number, path in enumerate(sorted(source.glob("*.jpg"))):
        person, camera = path.name[:4], path.name.split("_c")[1][0]
        target = root / "Halle 7" / f"Kamera-{camera}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / f"Wer_{person} Gang t{int(person)} #{number:03d}.JPG")
    return root


def test_folder_with_ids__trains_scores_and_labels(folder: Path, tmp_path: Path) -> None:
    results = train_tiny(
        MARKET, tmp_path / "no FASTREID_DATASETS", tmp_path / "run", UNSUP__EVAL_BEFORE=True,
        DATASETS__NAMES="('Folder',)", DATASETS__TESTS="('Folder',)", UNSUP__FOLDER__ROOT=folder,
        UNSUP__FOLDER__PATTERN=PATTERN,
    )  # fmt: skip
    assert results["datasets"] == {"train": ["Folder"], "test": ["Folder"]}
    assert set(results["before"]) == set(results["after"]) >= {"mAP", "Rank-1"}
    assert "precision" in results["labels"]
    files = label_files(tmp_path / "run")
    labels = files["labels/epoch_001.npz"]
    assert len(labels["labels"]) == 54  # 6 of 8 people
    assert all((folder / str(path)).is_file() for path in labels["paths"])
    assert set(labels["camids"].tolist()) == {0, 1, 2}


def test_folder_without_ids__trains_without_evaluation(folder: Path, tmp_path: Path) -> None:
    results = train_tiny(
        BASELINE, tmp_path / "nowhere", tmp_path / "run", UNSUP__EVAL_BEFORE=True,
        DATASETS__NAMES="('Folder',)", DATASETS__TESTS="()",
        UNSUP__FOLDER__ROOT=folder / "Halle 7", UNSUP__FOLDER__CAMERA="subfolder",
    )  # fmt: skip
    assert results["before"] is None and results["after"] is None
    assert results["labels"]["clusters"] >= 1 and "precision" not in results["labels"]
    assert json.loads((tmp_path / "run/results.json").read_text())["datasets"]["test"] == []
    labels = label_files(tmp_path / "run")["labels/epoch_001.npz"]
    assert len(labels["labels"]) == 72 and str(labels["paths"][0]).startswith("Kamera-1/Wer_")


def test_folder_with_tracklets__gives_all_frames_one_label(folder: Path, tmp_path: Path) -> None:
    results = train_tiny(
        BASELINE, tmp_path / "nowhere", tmp_path / "run", DATASETS__NAMES="('Folder',)",
        DATASETS__TESTS="('Folder',)", UNSUP__FOLDER__ROOT=folder, UNSUP__FOLDER__PATTERN=TRACKED,
    )  # fmt: skip
    assert results["after"]
    labels = label_files(tmp_path / "run")["labels/epoch_001.npz"]
    of_tracklet: dict[tuple[int, str], set[int]] = {}
    for path, camera, label in zip(labels["paths"], labels["camids"], labels["labels"]):
        of_tracklet.setdefault(
            (int(camera), str(path).split(" Gang ")[1].split(" ")[0]), set()
        ).add(int(label))
    assert 6 < len(of_tracklet) < len(labels["labels"]) == 54
    assert all(len(found) == 1 for found in of_tracklet.values())


def test_csv__gives_the_labels_of_the_pattern(folder: Path, tmp_path: Path) -> None:
    lines = ["path,camera,id"]
    for path in sorted(folder.rglob("*.JPG")):
        camera, person = path.parent.name.split("-")[1], path.name[4:8]
        lines.append(f"{path.relative_to(folder)},{camera},{person}")
    listed = tmp_path / "bilder.csv"
    listed.write_text("\n".join(lines), encoding="utf-8")
    shared = dict(
        DATASETS__NAMES="('Folder',)",
        DATASETS__TESTS="('Folder',)",
        UNSUP__FOLDER__ROOT=folder,
        SOLVER__MAX_EPOCH=1,
    )
    runs = [("csv", {"UNSUP__FOLDER__CSV": listed}), ("regex", {"UNSUP__FOLDER__PATTERN": PATTERN})]
    scores = [
        train_tiny(BASELINE, tmp_path, tmp_path / name, **shared, **own)["after"]
        for name, own in runs
    ]
    assert scores[0] == scores[1]
    first, second = (label_files(tmp_path / name)["labels/epoch_000.npz"] for name, _ in runs)
    np.testing.assert_array_equal(first["labels"], second["labels"])
