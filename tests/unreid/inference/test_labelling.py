"""Clusterers on separable features and in degenerate cases; CSV and sheets."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.unreid.inference.making import fill
from unreid.data.folder import FolderItem, read_folder
from unreid.inference.labelling import (
    by_size,
    label_images,
    summary,
)
from unreid.inference.labelling import cluster as cluster_neighbours
from unreid.labels.clusterers import CLUSTERER_REGISTRY, MAX_DENSE_IMAGES, parameters
from unreid.labels.neighbours import Search
from unreid.labels.transforms import CenterCameras

METHODS = [
    name for name in CLUSTERER_REGISTRY if name != "infomap" or importlib.util.find_spec("infomap")
]


def cluster(features: np.ndarray, method: str, **settings: Any) -> np.ndarray:
    return cluster_neighbours(Search()(features), method, **settings)


def people(rng: np.random.Generator, sizes: list[int], width: int = 32) -> np.ndarray:
    """Return unit rows in compact, distant groups of the given sizes."""
    rows = np.repeat(np.eye(len(sizes), width), sizes, axis=0)
    rows = rows + rng.normal(scale=0.02, size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_separated_groups__are_found_in_order_of_size(
    method: str, rng: np.random.Generator
) -> None:
    features = people(rng, [6, 12, 9])
    settings: dict[str, float] = {}
    if "num_clusters" in parameters(method):
        settings["num_clusters"] = 3
    if "k1" in parameters(method):
        settings.update(k1=6, k2=2)
    if method == "dbscan":
        settings["eps"] = 0.8
    labels = cluster(features, method, **settings)
    np.testing.assert_array_equal(labels, np.repeat([2, 0, 1], [6, 12, 9]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num", [1, 2, 3])
def test_fewer_images_than_neighbours__is_no_error(
    method: str, num: int, rng: np.random.Generator
) -> None:
    labels = cluster(people(rng, [1] * num), method)
    assert labels.shape == (num,) and labels.min() >= -1 and labels.max() < num


@pytest.mark.parametrize("method", METHODS)
def test_one_image__is_noise_unless_min_size_is_one(method: str, rng: np.random.Generator) -> None:
    assert cluster(people(rng, [1]), method).tolist() == [-1]
    settings = {"min_samples": 1} if method == "dbscan" else {}
    assert cluster(people(rng, [1]), method, min_size=1, **settings).tolist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_identical_images__are_one_identity(method: str, rng: np.random.Generator) -> None:
    features = people(rng, [1]).repeat(9, axis=0)
    settings = {"num_clusters": 1} if "num_clusters" in parameters(method) else {}
    assert cluster(features, method, **settings).tolist() == [0] * 9


@pytest.mark.parametrize("method", ["bottom_up", "agglomerative"])
def test_number_of_clusters__is_given_or_follows_from_images_per_cluster(
    method: str, rng: np.random.Generator
) -> None:
    features = people(rng, [5] * 6)
    assert cluster(features, method, images_per_cluster=10).max() + 1 == 3
    assert cluster(features, method, num_clusters=5, images_per_cluster=10).max() + 1 == 5
    assert cluster(features, method, num_clusters=99, min_size=1).max() == 29, "more than images"
    assert cluster(features, method, images_per_cluster=99).max() + 1 == 1, "at least one"


def test_small_clusters__become_noise(rng: np.random.Generator) -> None:
    features = people(rng, [5, 3, 8])
    labels = cluster(features, "bottom_up", num_clusters=3, min_size=4)
    np.testing.assert_array_equal(labels, np.repeat([1, -1, 0], [5, 3, 8]))


def test_too_many_images_for_agglomerative__are_refused_with_an_alternative() -> None:
    features = np.ones((MAX_DENSE_IMAGES + 1, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"agglomerative stores .* at most 20000 images, got 20001.*bottom_up"
    ):
        cluster(features, "agglomerative")


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("dbscann", {}, "must be a registered clusterer .*did you mean 'dbscan'"),
        ("dbscan", {"epss": 1}, "dbscan has no setting 'epss'; did you mean 'eps'.*min_samples"),
        ("dbscan", {"eps": 0}, "eps must be a number > 0"),
        ("bottom_up", {"images_per_cluster": 0}, "images_per_cluster must be an integer >= 1"),
        ("bottom_up", {"num_clusters": -2}, "num_clusters must be an integer >= -1, got -2"),
        ("agglomerative", {"num_clusters": -1}, "num_clusters must be an integer >= 0, got -1"),
    ],
)
def test_bad_setting__is_named(
    method: str, settings: dict[str, int], words: str, rng: np.random.Generator
) -> None:
    with pytest.raises(KeyError if method == "dbscann" else ValueError, match=words):
        cluster(people(rng, [3, 3]), method, **settings)


def test_by_size__keeps_ties_in_order_and_noise() -> None:
    labels = np.array([0, 1, 1, -1, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(by_size(labels), [3, 1, 1, -1, 2, 2, 0, 0, 0])
    np.testing.assert_array_equal(by_size(np.array([-1, -1])), [-1, -1])


def test_centring__removes_an_offset_per_camera(rng: np.random.Generator) -> None:
    features = people(rng, [8] * 4)
    shifted = features.copy()
    shifted[::2] += 3 * np.eye(32, dtype=np.float32)[20]
    shifted /= np.linalg.norm(shifted, axis=1, keepdims=True)
    items = [FolderItem(f"{i}.jpg", str(i % 2), str(i // 8)) for i in range(32)]
    settings, centre = {"num_clusters": 4}, [CenterCameras(0.01)]
    plain = label_images(items, shifted, "bottom_up", settings=settings)
    centred = label_images(items, shifted, "bottom_up", settings=settings, transforms=centre)
    np.testing.assert_array_equal(centred.labels, np.repeat(range(4), 8))
    assert (plain.labels != centred.labels).any()
    one_camera = [FolderItem(item.path, "0") for item in items]
    same = label_images(one_camera, shifted, "bottom_up", settings=settings, transforms=centre)
    np.testing.assert_array_equal(same.labels, plain.labels)


def test_summary__has_counts_and_metrics_if_ids_are_known(rng: np.random.Generator) -> None:
    items = [FolderItem(f"{i}.jpg", str(i % 3), "ab"[i // 6]) for i in range(12)]
    labelled = label_images(items, people(rng, [6, 6]), "bottom_up", settings={"num_clusters": 2})
    lines = summary(labelled).splitlines()
    assert lines[0] == "12 images of 3 cameras: 2 identities, 0 images unassigned"
    assert "cameras per identity: 3.0" in lines[1]
    assert lines[2].startswith("against the 2 ids: precision 1.00, recall 1.00")
    unknown = [FolderItem(item.path, item.camera) for item in items]
    assert len(summary(label_images(unknown, people(rng, [6, 6]), "dbscan")).splitlines()) == 2


def test_all_noise__gives_a_summary_without_a_warning(rng: np.random.Generator) -> None:
    items = [FolderItem(f"{i}.jpg", "0") for i in range(3)]
    labelled = label_images(items, people(rng, [1] * 3), "dbscan")
    assert "0 identities, 3 images unassigned" in summary(labelled)
    assert labelled.sure.tolist() == [0, 0, 0]


def test_no_image__is_an_error() -> None:
    with pytest.raises(ValueError, match="there are no images to label"):
        label_images([], np.zeros((0, 4), np.float32), "dbscan")


def test_csv__has_unicode_paths_relative_to_the_folder(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    names = ["кам 1/Ünï, 'x\".jpg", "摄像头/一.JPG".replace("JPG", "jpg"), "a.jpg", "b.jpg"]
    fill(tmp_path / "crops", names)
    items = read_folder(tmp_path / "crops")
    labelled = label_images(items, people(rng, [2, 2]), "bottom_up", settings={"num_clusters": 2})
    labelled.write(str(tmp_path / "out" / "labels.csv"), str(tmp_path / "crops"))
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(names)
    assert list(rows[0]) == ["path", "camera", "identity", "confidence"]
    assert [int(row["identity"]) for row in rows] == labelled.labels.tolist()
    again = read_folder(tmp_path / "crops", csv=str(tmp_path / "out" / "labels.csv"))
    assert again == items, "the file is a CSV that read_folder reads"


def test_sheets__name_each_image_and_its_row_of_the_csv(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["cam 1/Ünï_person_0001_shot_17.jpg", "摄像头/一.jpg", "a.jpg", f"{'deep/' * 20}b.jpg"]
    fill(tmp_path / "crops", names)
    items = read_folder(tmp_path / "crops")
    labelled = label_images(items, people(rng, [2, 2]), "bottom_up", settings={"num_clusters": 2})
    labelled.write(str(tmp_path / "labels.csv"), str(tmp_path / "crops"))
    with open(tmp_path / "labels.csv", encoding="utf-8", newline="") as file:
        rows = {f"row {n}": row for n, row in enumerate(csv.DictReader(file), 2)}
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, words, *args: (drawn.append(words), text(self, xy, words, *args))[1],
    )
    labelled.draw_sheets(str(tmp_path / "sheets"), str(tmp_path / "crops"), most=60)
    starts = [n for n, words in enumerate(drawn) if words.startswith("row ")]
    assert len(starts) == 4
    for start in starts:
        row, _, sure = drawn[start].partition(": ")
        name = rows[row]["path"]
        assert float(sure) == pytest.approx(float(rows[row]["confidence"]), abs=0.006)
        assert drawn[start + 1] == f"cam {rows[row]['camera']}"
        shown = "".join(drawn[start + 2 : start + 5]).partition("identity")[0].partition("row ")[0]
        if "deep/" in name:
            left, _, right = shown.partition("…")
            assert name.startswith(left) and name.endswith(right) and len(shown) > 25
        else:
            assert shown == name


def test_sheets__show_each_cluster_once_and_replace_older_ones(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    fill(tmp_path / "crops", [f"{i}.jpg" for i in range(14)])
    items = read_folder(tmp_path / "crops")
    features = people(rng, [2, 12])
    labelled = label_images(items, features, "bottom_up", settings={"num_clusters": 2})
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    (sheets / "cluster_0007.jpg").write_bytes(b"old")
    (sheets / "mine.txt").write_text("stays")
    assert labelled.draw_sheets(str(sheets), str(tmp_path / "crops"), most=11, columns=5) == 2
    assert sorted(p.name for p in sheets.iterdir()) == [
        "cluster_0000.jpg",
        "cluster_0001.jpg",
        "mine.txt",
    ]
    with (
        Image.open(sheets / "cluster_0000.jpg") as large,
        Image.open(sheets / "cluster_0001.jpg") as small,
    ):
        large.load()
        assert large.height > 2 * small.height, "eleven of five in a row, beside two"
    with pytest.raises(ValueError, match="--sheet-images must be an integer >= 1, got 0"):
        labelled.draw_sheets(str(sheets), str(tmp_path), most=0)
