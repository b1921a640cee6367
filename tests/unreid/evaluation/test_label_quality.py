"""Clustering metrics compared with a loop over all pairs and with scikit-learn."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from unreid.evaluation.label_quality import label_quality, pair_quality

ROOT = Path(__file__).resolve().parents[3]


def singletons(labels: np.ndarray) -> np.ndarray:
    """Return labels in which every noise image is its own cluster."""
    labels = labels.copy()
    noise = np.flatnonzero(labels == -1)
    labels[noise] = labels.max(initial=0) + 1 + np.arange(len(noise))
    return labels


def slow_pairs(labels: np.ndarray, pids: np.ndarray) -> tuple[float, float, float]:
    """Return precision, recall and F from a loop over all pairs of images."""
    both = labelled = true = 0
    for i, j in combinations(range(len(labels)), 2):
        one_label = labels[i] == labels[j] and labels[i] != -1
        one_person = pids[i] == pids[j]
        labelled += one_label
        true += one_person
        both += one_label and one_person
    precision = both / labelled if labelled else 0.0
    recall = both / true if true else 0.0
    mean = 2 * precision * recall / (precision + recall) if both else 0.0
    return precision, recall, mean


def slow_purity(labels: np.ndarray, pids: np.ndarray) -> float:
    clusters = set(labels[labels >= 0].tolist())
    right = sum(max(Counter(pids[labels == k].tolist()).values()) for k in clusters)
    return right / int((labels >= 0).sum()) if clusters else 0.0


@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 45),
    clusters=st.integers(1, 12),
    persons=st.integers(1, 12),
    noise=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    faithful=st.booleans(),
)
def test_scores__equal_the_loop_over_pairs_and_scikit_learn(
    seed: int, images: int, clusters: int, persons: int, noise: float, faithful: bool
) -> None:
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, persons, images) * 7 - 3
    labels = np.unique(pids, return_inverse=True)[1] if faithful else None
    if labels is None:
        labels = rng.integers(0, clusters, images) * 3
    labels[rng.random(images) < noise] = -1
    camids = rng.integers(0, 4, images)
    quality = label_quality(labels, pids, camids)

    expected = slow_pairs(labels, pids)
    found = (quality.precision, quality.recall, quality.f_score)
    assert found == pytest.approx(expected, abs=1e-12)
    lone = singletons(labels)
    assert quality.ari == pytest.approx(adjusted_rand_score(pids, lone), abs=1e-12)
    assert quality.nmi == pytest.approx(normalized_mutual_info_score(pids, lone), abs=1e-9)
    assert quality.purity == pytest.approx(slow_purity(labels, pids), abs=1e-12)
    in_use = sorted(set(labels[labels >= 0].tolist()))
    cameras = [len(set(camids[labels == k].tolist())) for k in in_use]
    assert quality.num_clusters == len(in_use)
    assert quality.num_noise == int((labels == -1).sum())
    assert quality.cameras_per_cluster == pytest.approx(np.mean(cameras) if cameras else 0.0)
    assert all(math.isfinite(value) for value in quality.as_dict().values())


def test_perfect_labels__score_one_for_any_numbering() -> None:
    pids = np.array([5, 5, 9, 9, 9, 2])
    quality = label_quality(np.array([1, 1, 0, 0, 0, 2]), pids)
    for name in ("precision", "recall", "f_score", "ari", "nmi", "purity"):
        assert getattr(quality, name) == pytest.approx(1.0), name


def test_small_case__equals_the_manual_result() -> None:
    # Cluster 0: persons 1, 1, 2; cluster 1: person 2; noise: person 1. Of 3 pairs in clusters, 1 is
    # correct. Person 1 has 3 pairs, person 2 has one.
    labels, pids = np.array([0, 0, 0, 1, -1]), np.array([1, 1, 2, 2, 1])
    quality = label_quality(labels, pids, np.array([0, 1, 1, 2, 5]))
    assert (quality.precision, quality.recall) == (1 / 3, 1 / 4)
    assert quality.f_score == pytest.approx(2 / 7)
    assert quality.purity == 3 / 4
    assert quality.cameras_per_cluster == 1.5
    assert (quality.num_clusters, quality.num_noise) == (2, 1)


def test_noise__reduces_recall_but_not_precision() -> None:
    pids = np.array([1, 1, 1, 2, 2, 2])
    before = label_quality(np.array([0, 0, 0, 1, 1, 1]), pids)
    after = label_quality(np.array([0, 0, -1, 1, 1, 1]), pids)
    assert after.precision == before.precision == 1.0
    assert after.recall < before.recall


def test_all_noise__has_no_pair_and_no_cluster() -> None:
    quality = label_quality(np.full(6, -1), np.array([1, 1, 1, 2, 2, 2]), np.arange(6))
    assert (quality.precision, quality.recall, quality.f_score) == (0.0, 0.0, 0.0)
    assert (quality.purity, quality.ari, quality.cameras_per_cluster) == (0.0, 0.0, 0.0)
    assert (quality.num_clusters, quality.num_noise) == (0, 6)


def test_one_cluster__has_recall_one() -> None:
    quality = label_quality(np.zeros(6, int), np.array([1, 1, 1, 2, 2, 2]))
    assert quality.recall == 1.0 and quality.precision == 6 / 15
    assert quality.ari == quality.nmi == 0.0


def test_no_image__is_defined() -> None:
    quality = label_quality(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
    assert (quality.precision, quality.recall, quality.purity) == (0.0, 0.0, 0.0)
    assert quality.ari == quality.nmi == 1.0
    assert adjusted_rand_score([], []) == normalized_mutual_info_score([], []) == 1.0


def test_one_image__is_defined() -> None:
    quality = label_quality(np.array([0]), np.array([3]))
    assert (quality.precision, quality.purity, quality.ari, quality.nmi) == (0.0, 1.0, 1.0, 1.0)


def test_a_million_images__do_not_overflow() -> None:
    # Products of numbers of pairs reach 2.5e23, which exceeds 64-bit integers.
    images = 1_000_000
    quality = label_quality(np.zeros(images, int), np.arange(images) % 2)
    assert quality.precision == pytest.approx(0.5, abs=1e-5)
    assert quality.ari == pytest.approx(0.0, abs=1e-9) and quality.recall == 1.0


def test_as_dict__omits_cameras_that_were_not_given() -> None:
    labels, pids = np.array([0, 0]), np.array([1, 1])
    assert "cameras_per_cluster" not in label_quality(labels, pids).as_dict()
    scores = label_quality(labels, pids, np.array([0, 1])).as_dict()
    assert scores["cameras_per_cluster"] == 2.0 and scores["num_clusters"] == 1
    assert all(type(value) in (int, float) for value in scores.values())


def test_quality__is_immutable_and_input_is_not_changed() -> None:
    labels, pids = np.array([0, -1, 0]), np.array([1, 1, 2])
    copies = labels.copy(), pids.copy()
    quality = label_quality(labels, pids)
    with pytest.raises(FrozenInstanceError):
        quality.ari = 1.0  # type: ignore[misc]
    assert np.array_equal(labels, copies[0]) and np.array_equal(pids, copies[1])


@pytest.mark.parametrize(
    ("labels", "pids", "camids", "error", "words"),
    [
        (np.zeros(3, int), np.zeros(2, int), None, ValueError, r"pids must have shape \(3,\)"),
        (np.zeros(3, int), np.zeros(3, int), np.zeros(2, int), ValueError, "camids must have"),
        (np.zeros((2, 2), int), np.zeros(2, int), None, ValueError, r"labels must have shape"),
        (np.array([-2, 0]), np.zeros(2, int), None, ValueError, "labels must be >= -1, got -2"),
        (np.zeros(2), np.zeros(2, int), None, TypeError, "labels must be integers"),
    ],
)
def test_arguments__with_invalid_shapes_or_values_are_refused(
    labels: np.ndarray,
    pids: np.ndarray,
    camids: np.ndarray | None,
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        label_quality(labels, pids, camids)


def slow_pair_quality(
    pairs: list[tuple[int, int]], pids: np.ndarray, camids: np.ndarray
) -> dict[str, float]:
    """Return the pair scores from a loop over all pairs."""
    found = {frozenset(pair) for pair in pairs}
    right = true = cross = right_cross = 0
    for i, j in combinations(range(len(pids)), 2):
        one_person = pids[i] == pids[j]
        true += one_person
        if frozenset((i, j)) in found:
            right += one_person
            cross += camids[i] != camids[j]
            right_cross += one_person and camids[i] != camids[j]
    return {
        "pair_precision": right / len(pairs) if pairs else 0.0,
        "pair_recall": right / true if true else 0.0,
        "pair_precision_cross": right_cross / cross if cross else 0.0,
        "pairs_per_image": sum(i in pair for i in range(len(pids)) for pair in pairs) / len(pids),
    }


@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 30),
    persons=st.integers(1, 8),
    share=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
)
def test_pair_scores__equal_the_loop_over_pairs(
    seed: int, images: int, persons: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    pids, camids = rng.integers(0, persons, images) * 5 - 2, rng.integers(0, 3, images)
    pairs = [p for p in combinations(range(images), 2) if rng.random() < share]
    found = pair_quality(np.array(pairs, dtype=np.int64).reshape(-1, 2), pids, camids)
    assert found == pytest.approx(slow_pair_quality(pairs, pids, camids))
    assert all(type(value) is float for value in found.values())


def test_pair_scores__equal_the_manual_result() -> None:
    # Two of person 1's three pairs are found, one of them across cameras; (0, 3) is wrong.
    found = pair_quality(
        np.array([[0, 1], [1, 2], [0, 3]]), np.array([1, 1, 1, 2]), np.array([0, 0, 1, 1])
    )
    assert found == {
        "pair_precision": 2 / 3,
        "pair_recall": 2 / 3,
        "pair_precision_cross": 1 / 2,
        "pairs_per_image": 6 / 4,
    }


def test_pair_scores__of_no_pair_and_of_no_image_are_zero() -> None:
    none = np.zeros((0, 2), int)
    for images in (0, 4):
        found = pair_quality(none, np.zeros(images, int), np.zeros(images, int))
        assert set(found.values()) == {0.0}


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        (np.zeros((2, 3), int), ValueError, r"indices must have shape \(M, 2\)"),
        (np.zeros(2, int), ValueError, r"indices must have shape \(M, 2\)"),
        (np.array([[0, 4]]), ValueError, r"indices must be in 0..3, got 0..4"),
        (np.array([[-1, 2]]), ValueError, r"indices must be in 0..3, got -1..2"),
        (np.array([[2, 2]]), ValueError, "indices must pair two images, got 2 twice"),
        (np.array([[0.0, 1.0]]), TypeError, "indices must be integers"),
    ],
)
def test_invalid_pairs__are_refused(
    indices: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        pair_quality(indices, np.zeros(4, int), np.zeros(4, int))


def test_import__needs_no_fastreid() -> None:
    code = (
        "import sys; sys.modules['fastreid'] = None\n"
        "from unreid.evaluation.label_quality import label_quality\n"
        "label_quality([0, 0], [1, 1])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
