"""The label step: neighbours, threshold beta, mutual pairs, communities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pseudopair.labeler import PseudoPairLabeler, neighbours_of_epoch, pair_communities
from tests.projects.PseudoPair.networks import MARKET
from tests.projects.tiny_run import load_tiny
from unreid.structures import FeatureBank, PseudoPairs


def labeler(**settings: object) -> PseudoPairLabeler:
    cfg, _ = load_tiny(MARKET, **settings)
    return PseudoPairLabeler(cfg)


def people(num: int, each: int, spread: float, cameras: int = 3) -> FeatureBank:
    """Return ``each`` images of ``num`` people, around one random direction per person."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(num, 24)), each, axis=0)
    features = centres + spread * rng.normal(size=centres.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return FeatureBank(features.astype(np.float32), np.arange(num * each) % cameras)


def slow_pairs(bank: FeatureBank, k: int, expected: float) -> set[tuple[int, int]]:
    """Return the mutual top-k pairs above the percentile, from the dense matrix."""
    s = np.clip(bank.features.astype(np.float64) @ bank.features.T, 0, 1)
    num = len(bank)
    upper = np.sort(s[np.triu_indices(num, 1)])[::-1]
    wanted = max(1, round(expected * num / 2))
    beta = upper[wanted] if wanted < len(upper) else 0.0
    np.fill_diagonal(s, -1)
    near = np.argsort(-s, axis=1, kind="stable")[:, :k]
    return {
        (i, int(j))
        for i in range(num)
        for j in near[i]
        if i < j and i in near[j] and s[i, j] > beta + 1e-6
    }


@pytest.mark.parametrize(("k", "expected"), [(2, 3.0), (4, 3.0), (4, 1.0)])
def test_pairs__are_mutual_and_above_the_percentile(k: int, expected: float) -> None:
    bank = people(8, 4, 0.5)
    found = labeler(
        PSEUDOPAIR__PAIR__K=k, PSEUDOPAIR__PAIR__K_LAST=k, PSEUDOPAIR__EXPECTED_POSITIVES=expected
    )(bank, 0)
    assert found.pairs is not None
    assert {tuple(p) for p in found.pairs.indices.tolist()} == slow_pairs(bank, k, expected)


def test_labels__are_people_where_people_are_apart() -> None:
    found = labeler()(people(6, 4, 0.05), 1)
    assert found.num_clusters == 6 and found.num_noise == 0
    assert found.labels.tolist() == np.repeat(np.arange(6), 4).tolist()


def test_labels__say_what_was_found() -> None:
    found = labeler()(people(6, 4, 0.05), 1)
    assert set(found.remarks) == {"pairs", "images in pairs", "k", "beta"}
    assert found.remarks["images in pairs"] == "24"
    assert set(found.seconds) == {"knn", "pairs", "communities"}


def test_communities__without_pairs_are_single_images() -> None:
    none = PseudoPairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    assert pair_communities(none, 4, 0).tolist() == [0, 1, 2, 3]


def test_communities__of_all_paired_images_are_one() -> None:
    every = np.array([(i, j) for i in range(5) for j in range(i + 1, 5)])
    pairs = PseudoPairs(every, np.ones(10, np.float32))
    assert pair_communities(pairs, 5, 0).tolist() == [0] * 5


def test_labeler__of_fewer_images_than_k_pairs_what_there_is() -> None:
    bank = people(2, 2, 0.05)
    found = labeler(
        PSEUDOPAIR__PAIR__K=8, PSEUDOPAIR__PAIR__K_LAST=8, PSEUDOPAIR__EXPECTED_POSITIVES=1.0
    )(bank, 0)
    assert found.pairs is not None and found.pairs.indices.tolist() == [[0, 1], [2, 3]]


def test_labeler__of_identical_images_finds_no_pair_above_beta() -> None:
    """No pair has a score s > beta if all images are equal."""
    features = np.tile(people(1, 1, 0.0).features, (6, 1))
    found = labeler()(FeatureBank(features, np.arange(6) % 2), 0)
    assert found.pairs is not None and len(found.pairs) == 0


def test_labeler__repeats_itself_and_leaves_the_bank_as_it_was() -> None:
    bank = people(8, 4, 0.5)
    before = bank.features.copy()
    one, other = (labeler()(bank, 1) for _ in range(2))
    assert one.pairs is not None and other.pairs is not None
    np.testing.assert_array_equal(one.pairs.indices, other.pairs.indices)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(bank.features, before)


def gap(cameras: int = 2) -> FeatureBank:
    """Return features of six people; a per-camera offset makes cross-camera pairs less similar."""
    rng = np.random.default_rng(0)
    person = np.repeat(rng.normal(size=(6, 24)), 8, axis=0)
    camids = np.tile(np.repeat(np.arange(cameras), 8 // cameras), 6)
    features = person + 3 * rng.normal(size=(cameras, 24))[camids]
    features += 0.4 * rng.normal(size=features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return FeatureBank(features.astype(np.float32), camids)


def cross_pairs(bank: FeatureBank, **settings: Any) -> int:
    found = labeler(
        PSEUDOPAIR__PAIR__K=40,
        PSEUDOPAIR__PAIR__K_LAST=40,
        PSEUDOPAIR__EXPECTED_POSITIVES=7.0,
        **settings,
    )(bank, 0)
    assert found.pairs is not None
    cameras = bank.camids[found.pairs.indices]
    return int((cameras[:, 0] != cameras[:, 1]).sum())


def test_per_camera__gives_pairs_of_two_cameras_a_threshold_of_their_own() -> None:
    bank = gap()
    together, apart = cross_pairs(bank), cross_pairs(bank, PSEUDOPAIR__PAIR__PER_CAMERA=True)
    assert apart > together


def test_per_camera__of_one_camera_is_the_plain_rule() -> None:
    bank = people(8, 4, 0.5, cameras=1)
    plain, apart = (labeler(PSEUDOPAIR__PAIR__PER_CAMERA=on)(bank, 0) for on in (False, True))
    assert plain.pairs is not None and apart.pairs is not None
    np.testing.assert_array_equal(plain.pairs.indices, apart.pairs.indices)


def test_k__grows_linearly_from_e0_to_the_last_epoch() -> None:
    assert [neighbours_of_epoch(e, 2, 6, 4, 8) for e in range(8)] == [4, 4, 4, 5, 6, 7, 8, 8]
    assert [neighbours_of_epoch(e, 0, 0, 4, 8) for e in range(2)] == [4, 8]
