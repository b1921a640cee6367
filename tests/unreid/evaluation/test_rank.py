"""Ranking by counting equals ranking by sorting: CMC, AP and INP, Market and CUHK03 protocols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unreid.evaluation.rank import evaluate_features, evaluate_rank, feature_distances
from unreid.kernels import kernel, ranking_reference


def by_sorting(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int,
) -> tuple[np.ndarray, list[float], list[float]]:
    """Return the scores of the Market-1501 protocol from a loop over queries and ranks."""
    curves, precisions, penalties = [], [], []
    for row, pid, camera in zip(distmat, q_pids, q_camids):
        order = np.argsort(row, kind="stable")
        kept = [g for g in order if g_pids[g] != pid or g_camids[g] != camera]
        hits = [int(g_pids[g] == pid) for g in kept]
        if not any(hits):
            continue
        places = [place for place, hit in enumerate(hits) if hit]
        curves.append([int(places[0] <= rank) for rank in range(max_rank)])
        precisions.append(np.mean([(n + 1) / (place + 1) for n, place in enumerate(places)]))
        penalties.append(len(places) / (places[-1] + 1))
    return np.mean(curves, axis=0), precisions, penalties


def case(seed: int, queries: int, gallery: int, people: int, levels: int | None = None) -> tuple:
    """Return distances (with ties if ``levels``) and ids; at least the first query has a match."""
    rng = np.random.default_rng(seed)
    distmat = rng.random((queries, gallery), dtype=np.float32)
    if levels:
        distmat = np.floor(distmat * levels).astype(np.float32)
    pids = [rng.integers(0, people, n) for n in (queries, gallery)]
    cameras = [rng.integers(0, 3, n) for n in (queries, gallery)]
    pids[0][0], cameras[0][0] = pids[1][0], cameras[1][0] + 1
    return distmat, pids[0], pids[1], cameras[0], cameras[1]


@settings(max_examples=60)
@given(
    queries=st.integers(1, 20),
    gallery=st.integers(1, 70),
    people=st.integers(1, 12),
    levels=st.sampled_from([None, 1, 4]),
    seed=st.integers(0, 999),
)
def test_equals_sorting_with_and_without_ties(
    queries: int, gallery: int, people: int, levels: int | None, seed: int
) -> None:
    arguments = case(seed, queries, gallery, people, levels)
    cmc, precision, penalty = evaluate_rank(*arguments, max_rank=15)
    wanted = by_sorting(*arguments, 15)
    np.testing.assert_allclose(cmc, wanted[0], atol=1e-6)
    np.testing.assert_allclose(precision, wanted[1], atol=1e-6)
    np.testing.assert_allclose(penalty, wanted[2], atol=1e-6)
    assert all(x.dtype == np.float32 for x in (cmc, precision, penalty))


def test_a_worked_example() -> None:
    # Ranked after removal of the same-camera match at 0.1: wrong, right, wrong, right.
    distmat = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    pids, cameras = np.array([7, 8, 7, 9, 7]), np.array([0, 0, 1, 1, 2])
    cmc, precision, penalty = evaluate_rank(distmat, [7], pids, [0], cameras, max_rank=4)
    assert cmc.tolist() == [0, 1, 1, 1]
    assert precision == pytest.approx([(1 / 2 + 2 / 4) / 2]) and penalty == pytest.approx([2 / 4])


def test_small_gallery__cmc_is_padded_and_never_decreases() -> None:
    cmc, *_ = evaluate_rank(*case(0, 6, 9, 3), max_rank=50)
    assert cmc.shape == (50,)
    assert (np.diff(cmc) >= 0).all() and cmc[-1] == pytest.approx(1)


def test_queries_without_a_match_are_excluded() -> None:
    distmat = np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]])
    result = evaluate_rank(distmat, [1, 2, 5], [1, 2], [0, 0, 0], [0, 1])
    assert result[1].tolist() == [0.5] and len(result[2]) == 1


def test_no_match_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no query identity appears in the gallery"):
        evaluate_rank(np.zeros((1, 2)), [1], [2, 3], [0], [1, 1])


def test_distances_may_be_read_only_float64_or_lists() -> None:
    distmat, *ids = case(1, 5, 20, 4)
    wide = distmat.astype(np.float64)
    wide.setflags(write=False)
    before = wide.copy()
    assert (evaluate_rank(wide, *ids)[1] == evaluate_rank(distmat, *ids)[1]).all()
    as_lists = evaluate_rank(distmat.tolist(), *[x.tolist() for x in ids])
    assert (as_lists[0] == evaluate_rank(distmat, *ids, use_cython=False)[0]).all()
    assert (wide == before).all()


@pytest.mark.skipif(kernel("ranking") is None, reason="the kernel is not built")
def test_kernel_equals_its_reference(rng: np.random.Generator) -> None:
    distmat = np.floor(rng.random((12, 90)) * 8).astype(np.float32)
    lists = []
    for _ in range(2):
        counts = rng.integers(0, 6, 12)
        values = np.concatenate([rng.choice(90, c, replace=False) for c in counts])
        lists += [values.astype(np.int64), np.r_[0, np.cumsum(counts)].astype(np.int64)]
    fast = kernel("ranking")
    assert fast is not None
    for threads in (1, 2, 5):
        found = fast.match_ranks(distmat, *lists, threads)
        assert (found == ranking_reference.match_ranks(distmat, *lists)).all()


def test_pure_python_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = case(3, 9, 60, 5, 6)
    wanted = evaluate_rank(*arguments)
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    assert all((a == b).all() for a, b in zip(evaluate_rank(*arguments), wanted))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block_size", [1, 4, 512])
def test_features_in_blocks_equal_the_whole_matrix(
    rng: np.random.Generator, metric: str, block_size: int
) -> None:
    _, *ids = case(4, 11, 80, 6)
    query, gallery = (torch.from_numpy(rng.standard_normal((n, 8), np.float32)) for n in (11, 80))
    wanted = evaluate_rank(feature_distances(query, gallery, metric), *ids)
    for given_features in ((query, gallery), (query.numpy(), gallery.numpy())):
        found = evaluate_features(*given_features, *ids, metric=metric, block_size=block_size)
        for a, b in zip(found, wanted):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_feature_distances_equal_those_of_fast_reid(rng: np.random.Generator) -> None:
    query, gallery = (
        rng.standard_normal((3, 5), np.float32),
        rng.standard_normal((4, 5), np.float32),
    )
    tensors = torch.from_numpy(query), torch.from_numpy(gallery)
    squared = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    np.testing.assert_allclose(feature_distances(*tensors, "euclidean"), squared, atol=1e-5)
    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    cosine = 1 - query @ gallery.T / lengths
    np.testing.assert_allclose(feature_distances(*tensors, "cosine"), cosine, atol=1e-6)


def test_cuhk03__with_one_gallery_image_per_person_is_deterministic() -> None:
    rng = np.random.default_rng(5)
    distmat = rng.random((8, 12), dtype=np.float32)
    q_pids, g_pids = rng.integers(0, 12, 8), rng.permutation(12)
    ids = (q_pids, g_pids, np.zeros(8, int), np.ones(12, int))
    cmc, mean_ap = evaluate_rank(distmat, *ids, max_rank=10, use_metric_cuhk03=True)
    market = evaluate_rank(distmat, *ids, max_rank=10)
    np.testing.assert_allclose(cmc, market[0], atol=1e-6)
    assert isinstance(mean_ap, float) and mean_ap == pytest.approx(float(market[1].mean()))


def test_cuhk03__equals_the_expected_curve_over_all_samples() -> None:
    # Person 0 has images at .2 and .6, person 1 at .1 and .5: four equally likely galleries.
    distmat = np.array([[0.2, 0.6, 0.1, 0.5]])
    ids = ([0], [0, 0, 1, 1], [0], [1, 1, 1, 1])
    draws = [
        evaluate_rank(
            distmat, *ids, max_rank=2, use_metric_cuhk03=True, generator=np.random.default_rng(s)
        )[0]
        for s in range(300)
    ]
    # Only the sample (.2, .5) ranks the match first.
    assert np.mean(draws, axis=0) == pytest.approx([0.25, 1.0], abs=0.04)


def test_cuhk03__is_reproducible_with_a_generator() -> None:
    arguments = case(6, 10, 60, 6)
    first, again = (
        evaluate_rank(
            *arguments, use_metric_cuhk03=True, generator=np.random.default_rng(1)
        )
        for _ in range(2)
    )  # fmt: skip
    assert (first[0] == again[0]).all() and first[1] == again[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distmat": np.zeros(4)}, r"distmat must have shape \(Q, G\)"),
        ({"distmat": np.full((1, 2), np.nan)}, "distmat must not contain NaN"),
        ({"q_pids": [1, 2]}, r"q_pids must have shape \(1,\), got \(2,\)"),
        ({"g_camids": [1]}, r"g_camids must have shape \(2,\)"),
        ({"max_rank": 0}, "max_rank must be an integer >= 1"),
    ],
)
def test_invalid_arguments_are_named(change: dict, words: str) -> None:
    arguments = {
        "distmat": np.zeros((1, 2)),
        "q_pids": [1],
        "g_pids": [1, 2],
        "q_camids": [0],
        "g_camids": [1, 1],
    }
    with pytest.raises(ValueError, match=words):
        evaluate_rank(**(arguments | change))


def test_equals_fast_reid_itself(load_fastreid) -> None:
    arguments = case(7, 40, 400, 15)
    wanted = load_fastreid("rank").evaluate_py(*arguments, 50, False)
    found = evaluate_rank(*arguments)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, atol=1e-6)
    shots = load_fastreid("rank")
    assert len(shots.evaluate_py(*arguments, 50, False)) == len(found)
