"""Ranks compared with sorting, exclusions, and scores compared with the evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unreid.inference.making import fill
from unreid.data.folder import FolderItem
from unreid.graph.centering import center_cameras
from unreid.inference.gallery import Entry, Gallery
from unreid.inference.ranking import (
    center,
    check_cameras,
    excluded_images,
    nearest_images,
    rank,
    scores,
)


def unit(rng: np.random.Generator, num: int, width: int = 8) -> np.ndarray:
    rows = rng.normal(size=(num, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(
    features: np.ndarray, cameras: list[str], pids: list[str | None], root: str = "/gallery"
) -> Gallery:
    entries = tuple(
        Entry(f"{i:03d}.jpg", camera, pid, i, 0, str(i))
        for i, (camera, pid) in enumerate(zip(cameras, pids))
    )
    return Gallery(root, entries, features, "f", "model")


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 40), st.integers(0, 10**6))
def test_results__equal_sorting_without_the_excluded_images(
    num_queries: int, num: int, top: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    query, gallery = unit(rng, num_queries), unit(rng, num)
    excluded = [
        np.flatnonzero(rng.random(num) < rng.choice([0, 0.3, 1.0])) for _ in range(num_queries)
    ]
    found = nearest_images(query, gallery, top, excluded)
    for row, out, (indices, similarities) in zip(query, excluded, found):
        cosines = gallery.astype(np.float64) @ row.astype(np.float64)
        order = [i for i in np.argsort(-cosines, kind="stable") if i not in set(out)][:top]
        assert indices.tolist() == order
        np.testing.assert_allclose(similarities, cosines[order], atol=1e-6)


def test_identical_images__are_all_found_in_order(rng: np.random.Generator) -> None:
    one = unit(rng, 1)
    ((indices, similarities),) = nearest_images(one, one.repeat(5, axis=0), 9, [np.array([2])])
    assert indices.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


@pytest.fixture
def queries(tmp_path: Path) -> tuple[FolderItem, ...]:
    paths = fill(tmp_path, ["q0.png", "q1.png"])
    return FolderItem(str(paths[0]), "a", "7"), FolderItem(str(paths[1]), "b", None)


def test_correct__is_by_id_and_unknown_without_one(
    queries: tuple[FolderItem, ...], rng: np.random.Generator
) -> None:
    features = unit(rng, 3)
    gallery = gallery_of(features, ["b", "b", "b"], ["7", "8", None])
    first, second = rank(queries, features[:2], gallery, 3)
    assert {hit.index: hit.correct for hit in first} == {0: True, 1: False, 2: None}
    assert [hit.correct for hit in second] == [None] * 3
    assert [hit.rank for hit in first] == [1, 2, 3] and first[0].index == 0


def test_same_person_in_the_same_camera__does_not_count_with_several_cameras(
    queries: tuple[FolderItem, ...], rng: np.random.Generator
) -> None:
    features = unit(rng, 3)
    several = gallery_of(features, ["a", "b", "a"], ["7", "7", "8"])
    (first, _) = rank(queries, features[:2], several, 3)
    found = {hit.index: (hit.correct, hit.own_camera) for hit in first}
    assert found == {0: (None, True), 1: (True, False), 2: (False, False)}
    (first, _) = rank(queries, features[:2], gallery_of(features, ["a"] * 3, ["7", "7", "8"]), 3)
    assert {hit.index: hit.correct for hit in first} == {0: True, 1: True, 2: False}


def test_query_in_the_gallery__is_excluded_from_its_own_results(tmp_path: Path) -> None:
    paths = fill(tmp_path, ["0.png", "1.png"])
    (tmp_path / "link.png").symlink_to(paths[0])
    entries = tuple(
        Entry(name, "0", None, (tmp_path / name).stat().st_size, 0, name)
        for name in ("0.png", "1.png", "link.png")
    )
    gallery = Gallery(str(tmp_path), entries, np.eye(3, dtype=np.float32), "f", "m")
    out = excluded_images(
        [FolderItem(str(paths[0]), "0"), FolderItem(str(paths[1]), "0")],
        gallery,
        other_cameras=False,
    )
    assert [rows.tolist() for rows in out] == [[0, 2], [1]]


def test_other_cameras__exclude_the_camera_of_the_query(
    queries: tuple[FolderItem, ...], rng: np.random.Generator
) -> None:
    gallery = gallery_of(unit(rng, 5), ["a", "b", "c", "b", "a"], [None] * 5)
    first, second = rank(queries, unit(rng, 2), gallery, 9, other_cameras=True)
    assert {hit.index for hit in first} == {1, 2, 3}
    assert {hit.index for hit in second} == {0, 2, 4}


def test_other_cameras_without_cameras__is_refused(rng: np.random.Generator) -> None:
    gallery = gallery_of(unit(rng, 2), ["0", "0"], [None] * 2)
    with pytest.raises(ValueError, match=r"the camera of x\.jpg is unknown.*--camera-pattern"):
        check_cameras([FolderItem("x.jpg", "")], gallery, other_cameras=True)
    with pytest.raises(ValueError, match="the whole gallery is of camera '0'"):
        check_cameras([FolderItem("x.jpg", "0")], gallery, other_cameras=True)
    check_cameras([FolderItem("x.jpg", "1")], gallery, other_cameras=True)
    check_cameras([FolderItem("x.jpg", "")], gallery, other_cameras=False)


def test_centring__uses_gallery_means_and_the_overall_mean_for_an_unknown_camera(
    rng: np.random.Generator,
) -> None:
    gallery, cameras = unit(rng, 9), list("aabbbccca")
    query, centred = center(gallery[:2], ["a", "z"], gallery, cameras, 16.0)
    numbers = np.unique(cameras, return_inverse=True)[1]
    np.testing.assert_allclose(centred, center_cameras(gallery, numbers, 16.0), atol=1e-6)
    np.testing.assert_allclose(query[0], centred[0], atol=1e-6)
    off = gallery[1] - gallery.mean(axis=0)
    np.testing.assert_allclose(query[1], off / np.linalg.norm(off), atol=1e-6)


def test_scores__need_all_ids_and_a_match_in_another_camera(rng: np.random.Generator) -> None:
    features = unit(rng, 4)
    items = [FolderItem("a", "1", "7"), FolderItem("b", "1", "8")]
    gallery = gallery_of(features, ["2", "2", "1", "2"], ["7", "8", "7", "9"])
    found = scores(items, features[:2], gallery)
    assert found is not None and found["queries"] == 2
    assert found["mAP"] == found["Rank-1"] == 100
    unknown = gallery_of(features, ["2"] * 4, ["7", "8", None, "9"])
    assert scores(items, features[:2], unknown) is None
    same_camera = gallery_of(features, ["1"] * 4, ["7", "8", "7", "9"])
    assert scores(items, features[:2], same_camera) is None
