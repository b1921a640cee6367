"""Sparse re-ranking equals the dense re-ranking of fast-reid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastreid.utils.compute_dist import compute_jaccard_distance

from tests.unreid.graph import oracle
from unreid.evaluation.rerank import jaccard_query_gallery, k_reciprocal_rerank
from unreid.graph import euclidean, knn
from unreid.graph.euclidean import euclidean_knn


def cosine_distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (1 - left.astype(np.float64) @ right.T.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize(
    ("k1", "k2", "share"), [(20, 6, 0.3), (20, 1, 0.3), (7, 3, 0.0), (5, 2, 1.0), (15, 8, 0.5)]
)
@pytest.mark.parametrize("squared_euclidean", [False, True])
def test_equals_fast_reids_re_ranking(
    rng: np.random.Generator, load_fastreid, k1: int, k2: int, share: float,
    squared_euclidean: bool,
) -> None:  # fmt: skip
    features = oracle.unit(rng, 160, 24)
    query, gallery = features[:30], features[30:]
    scale = 2.0 if squared_euclidean else 1.0
    pairs = ((query, gallery), (query, query), (gallery, gallery))
    given = [scale * cosine_distance(*pair) for pair in pairs]
    wanted = load_fastreid("rerank").re_ranking(*given, k1, k2, share)
    found = k_reciprocal_rerank(query, gallery, k1, k2, share)
    assert found.shape == (30, 130) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    best = np.argsort(found, axis=1)[:, 0]
    assert (wanted[np.arange(30), best] <= wanted.min(axis=1) + 1e-5).all()


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (6, 1), (200, 300)])
def test_jaccard_query_gallery_is_a_block_of_the_training_distance(
    rng: np.random.Generator, k1: int, k2: int
) -> None:
    features = oracle.unit(rng, 110, 16, copies=6)
    wanted = oracle.jaccard(features, knn(features, k1)[0], k1, k2)[:25, 25:]
    found = jaccard_query_gallery(features[:25], features[25:], k1, k2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def fastreid_jaccard(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """Return the dense matrix of ``build_dist(metric="jaccard")``, on a CPU."""
    tensor = torch.from_numpy(features)
    return compute_jaccard_distance(tensor, k1=k1, k2=k2, search_option=3)


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (6, 1), (15, 8), (300, 6)])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_euclidean_jaccard_equals_that_of_fast_reid_on_rows_of_any_norm(
    rng: np.random.Generator, k1: int, k2: int, scale: float
) -> None:
    features = oracle.unit(rng, 110, 16) * rng.uniform(0.5, 1.5, (110, 1)) + 0.4
    features = (scale * features).astype(np.float32)
    wanted = fastreid_jaccard(features, min(k1, 110), k2)[:25, 25:]
    found = jaccard_query_gallery(features[:25], features[25:], k1, k2, "euclidean")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_euclidean_jaccard_of_unit_rows_equals_that_of_cosines(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 110, 16)
    by_cosine, by_distance = (
        jaccard_query_gallery(features[:25], features[25:], 20, 6, metric)
        for metric in ("cosine", "euclidean")
    )
    np.testing.assert_allclose(by_distance, by_cosine, atol=1e-5)


def test_euclidean_neighbours_equal_sorting(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = (5 + rng.normal(size=(90, 8)) * rng.uniform(0.1, 3, (90, 1))).astype(np.float32)
    features[10:14] = features[10]
    squared = ((features[:, None].astype(np.float64) - features) ** 2).sum(axis=2)
    np.fill_diagonal(squared, -1)
    wanted = np.argsort(squared, axis=1, kind="stable")
    for k in (1, 13, 90, 200):
        np.testing.assert_array_equal(euclidean_knn(features, k), wanted[:, :k])
    monkeypatch.setattr(euclidean, "MAX_ENTRIES", 500)
    np.testing.assert_array_equal(euclidean_knn(features, 13), wanted[:, :13])


def test_more_queries_than_gallery(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 70, 12)
    found = jaccard_query_gallery(features[:60], features[60:], 12, 4)
    wanted = oracle.jaccard(features, knn(features, 12)[0], 12, 4)[:60, 60:]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_k1_and_k2_beyond_the_images(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 6, 5)
    found = k_reciprocal_rerank(features[:2], features[2:], 50, 60)
    assert found.shape == (2, 4) and np.isfinite(found).all()


def test_one_query_and_one_image() -> None:
    row = np.eye(1, 4, dtype=np.float32)
    assert k_reciprocal_rerank(row, row) == pytest.approx(0, abs=1e-6)
    assert jaccard_query_gallery(row, row) == pytest.approx(0, abs=1e-6)


def test_identical_images_have_distance_zero() -> None:
    rows = np.repeat(np.eye(1, 4, dtype=np.float32), 15, axis=0)
    np.testing.assert_allclose(k_reciprocal_rerank(rows[:5], rows[5:], 20), 0, atol=1e-6)


def test_tensors_and_pure_python_give_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 90, 12)
    wanted = k_reciprocal_rerank(features[:20], features[20:], 9, 3)
    tensor = torch.from_numpy(features)
    assert (k_reciprocal_rerank(tensor[:20], tensor[20:], 9, 3) == wanted).all()
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    found = k_reciprocal_rerank(features[:20], features[20:], 9, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 40, 8)
    before = features.copy()
    features.setflags(write=False)
    k_reciprocal_rerank(features[:10], features[10:])
    jaccard_query_gallery(features[:10], features[10:])
    assert (features == before).all()


def test_invalid_arguments_are_named(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 20, 6)
    with pytest.raises(ValueError, match="gallery_features must have unit rows"):
        k_reciprocal_rerank(features[:5], 2 * features[5:])
    with pytest.raises(ValueError, match="query_features must be finite"):
        jaccard_query_gallery(features[:5] * np.nan, features[5:])
    with pytest.raises(ValueError, match="gallery_features must have 6 channels"):
        k_reciprocal_rerank(features[:5], oracle.unit(rng, 9, 4))
    with pytest.raises(ValueError, match="metric must be"):
        jaccard_query_gallery(features[:5], features[5:], metric="jaccard")
    with pytest.raises(ValueError, match="gallery_features must be finite"):
        jaccard_query_gallery(features[:5], np.inf * features[5:], metric="euclidean")
    with pytest.raises(ValueError, match="lambda_value must be a number"):
        k_reciprocal_rerank(features[:5], features[5:], lambda_value=1.5)
