"""The types refuse to exist when wrong, and cannot be changed when right."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from unreid.structures import NOISE, FeatureBank, PseudoLabels, PseudoPairs


def bank_of(camids: list[int]) -> FeatureBank:
    return FeatureBank(np.eye(len(camids), 8, dtype=np.float32), np.array(camids, dtype=np.int64))


def labels_of(*labels: int) -> PseudoLabels:
    return PseudoLabels(np.array(labels, dtype=np.int64))


def test_bank__knows_its_length_and_its_cameras() -> None:
    bank = bank_of([0, 3, 3, 5])
    assert len(bank) == 4 and bank.num_cameras == 3


def test_bank__cannot_be_changed() -> None:
    bank = bank_of([0, 1])
    with pytest.raises(ValueError, match="read-only"):
        bank.features[0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        bank.camids[0] = 2
    with pytest.raises(FrozenInstanceError):
        bank.camids = np.zeros(2, dtype=np.int64)  # type: ignore[misc]


def test_bank__shares_memory_with_its_arrays_and_leaves_them_writable() -> None:
    features, camids = np.eye(3, dtype=np.float32), np.zeros(3, dtype=np.int64)
    bank = FeatureBank(features, camids)
    assert np.shares_memory(bank.features, features) and np.shares_memory(bank.camids, camids)
    assert features.flags.writeable and camids.flags.writeable


@pytest.mark.parametrize(
    ("features", "camids", "error", "words"),
    [
        (np.eye(3), np.zeros(3, int), TypeError, "features must be float32, got float64"),
        (np.ones((3, 3), "f4"), np.zeros(3, int), ValueError, "features must have unit rows"),
        (np.zeros((0, 3), "f4"), np.zeros(0, int), ValueError, r"shape \(N, D\)"),
        (np.eye(3, dtype="f4"), np.zeros(2, int), ValueError, r"camids must have shape \(3,\)"),
        (np.eye(3, dtype="f4"), np.zeros((3, 1), int), ValueError, r"got \(3, 1\)"),
        (np.eye(3, dtype="f4"), np.zeros(3, "i4"), TypeError, "camids must be int64, got int32"),
        (np.eye(3, dtype="f4"), np.zeros(3), TypeError, "camids must be int64, got float64"),
        (np.eye(3, dtype="f4"), np.array([0, -1, 2]), ValueError, "camids must be >= 0, got -1"),
    ],
)
def test_bank__that_is_wrong_is_refused(
    features: np.ndarray, camids: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"FeatureBank.*{words}"):
        FeatureBank(features, camids)


def test_bank__of_tensors_is_refused_with_a_word_of_what_is_wanted() -> None:
    import torch

    with pytest.raises(TypeError, match=r"FeatureBank\.features must be a numpy array, got Tensor"):
        FeatureBank(torch.eye(3), np.zeros(3, dtype=np.int64))  # type: ignore[arg-type]


def test_labels__count_clusters_noise_and_sizes() -> None:
    labels = labels_of(0, 2, 2, -1, 1, -1, 2)
    assert (len(labels), labels.num_clusters, labels.num_noise) == (7, 3, 2)
    assert labels.sizes.tolist() == [1, 1, 3]


def test_labels__may_be_all_noise() -> None:
    labels = labels_of(NOISE, NOISE)
    assert (labels.num_clusters, labels.num_noise, labels.sizes.tolist()) == (0, 2, [])


def test_labels__may_be_one_cluster() -> None:
    labels = labels_of(0, 0)
    assert (labels.num_clusters, labels.num_noise, labels.sizes.tolist()) == (1, 0, [2])


def test_labels__cannot_be_changed_but_the_caller_keeps_his_array() -> None:
    given = np.array([0, 0, 1], dtype=np.int64)
    labels = PseudoLabels(given)
    with pytest.raises(ValueError, match="read-only"):
        labels.labels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        labels.sizes[0] = 1
    assert given.flags.writeable


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.array([0, 2]), ValueError, r"every id of 0\.\.2, but 1 is unused"),
        (np.array([1, 1]), ValueError, r"but 0 is unused"),
        (np.array([-2, 0]), ValueError, "labels must be >= -1, got -2"),
        (np.zeros((2, 2), int), ValueError, r"shape \(N,\), got \(2, 2\)"),
        (np.zeros(0, int), ValueError, r"shape \(N,\), got \(0,\)"),
        (np.zeros(2, "i4"), TypeError, "labels must be int64, got int32"),
        (np.zeros(2), TypeError, "labels must be int64, got float64"),
    ],
)
def test_labels__that_are_wrong_are_refused(
    labels: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        PseudoLabels(labels)


def test_labels__with_one_id_far_away_are_refused_without_counting_up_to_it() -> None:
    with pytest.raises(ValueError, match="but 1 is unused"):
        labels_of(0, 2**62)


def test_intermediate__labels_must_be_as_many() -> None:
    labels = np.array([0, 0], dtype=np.int64)
    kept = PseudoLabels(labels, intermediate={"before": np.array([0, -1])}, seconds={"knn": 0.5})
    assert kept.intermediate["before"].tolist() == [0, -1] and kept.seconds["knn"] == 0.5
    with pytest.raises(ValueError, match=r"intermediate\['before'\] must have shape \(2,\)"):
        PseudoLabels(labels, intermediate={"before": np.zeros(3, int)})


def pairs_of(*rows: tuple[int, int]) -> PseudoPairs:
    return PseudoPairs(np.array(rows, dtype=np.int64).reshape(-1, 2), np.ones(len(rows), "f4"))


def test_pairs__know_their_number_and_cannot_be_changed() -> None:
    pairs = pairs_of((0, 1), (0, 2))
    assert len(pairs) == 2 and len(pairs_of()) == 0
    with pytest.raises(ValueError, match="read-only"):
        pairs.indices[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        pairs.confidence[0] = 0


@pytest.mark.parametrize(
    ("indices", "confidence", "error", "words"),
    [
        (np.zeros(3, int), np.ones(3, "f4"), ValueError, r"indices must have shape \(M, 2\)"),
        (np.array([[0, 1]], "i4"), np.ones(1, "f4"), TypeError, "must be int64, got int32"),
        (np.array([[0, 1]]), np.ones(2, "f4"), ValueError, r"confidence must have shape \(1,\)"),
        (np.array([[0, 1]]), np.ones(1), TypeError, "must be float32, got float64"),
        (np.array([[-1, 1]]), np.ones(1, "f4"), ValueError, ">= 0, got -1"),
        (np.array([[1, 1]]), np.ones(1, "f4"), ValueError, "rows i < j"),
        (np.array([[0, 1], [0, 1]]), np.ones(2, "f4"), ValueError, "twice"),
        (np.array([[0, 1]]), np.array([1.5], "f4"), ValueError, r"in 0\.\.1, got 1\.5"),
        (np.array([[0, 1]]), np.array([np.nan], "f4"), ValueError, r"in 0\.\.1, got nan"),
    ],
)
def test_pairs__that_are_wrong_are_refused(
    indices: np.ndarray, confidence: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"PseudoPairs.*{words}"):
        PseudoPairs(indices, confidence)


def test_labels__refuse_pairs_of_images_that_they_do_not_have() -> None:
    assert PseudoLabels(np.array([0, 1]), pairs=pairs_of((0, 1))).pairs is not None
    with pytest.raises(ValueError, match="pairs must be of 2 images, got 2"):
        PseudoLabels(np.array([0, 1]), pairs=pairs_of((0, 2)))


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        (np.ones(2, "f4"), ValueError, r"lengths must have shape \(3,\), got \(2,\)"),
        (np.ones(3), TypeError, "lengths must be float32, got float64"),
        (np.array([1, -1, 1], "f4"), ValueError, "finite and >= 0"),
        (np.array([1, np.nan, 1], "f4"), ValueError, "finite and >= 0"),
    ],
)
def test_bank__with_wrong_lengths_is_refused(
    lengths: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        FeatureBank(np.eye(3, dtype=np.float32), np.zeros(3, np.int64), lengths)
