"""Refinement against a slow loop written from steps 2 to 4 of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr.refine import node_scores, pivots, refine, removal_share


def slow_scores(indices: np.ndarray, cosines: np.ndarray, least: float) -> np.ndarray:
    """Return S_i, the sum of 1 / (d_ij + dbar) over j with cos >= least; dbar is the mean d."""
    distances = [
        1.0 - float(cosines[i, n])
        for i in range(len(indices))
        for n in range(indices.shape[1])
        if indices[i, n] != i
    ]
    dbar = sum(distances) / len(distances)
    scores = []
    for i in range(len(indices)):
        total = 0.0
        for j, cosine in zip(indices[i], cosines[i].tolist()):
            if j != i and cosine >= least:
                total += 1.0 / ((1.0 - cosine) + dbar)
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("k", [2, 6])
def test_node_scores__the_released_mean_counts_self_distances(k: int) -> None:
    """The release includes d_ii = 0 in dbar: (k - 1) / k of ours. No score has a term j = i."""
    rng = np.random.default_rng(k)
    indices = np.stack(
        [[i, *rng.permutation(np.delete(np.arange(12), i))[: k - 1]] for i in range(12)]
    )
    cosines = np.column_stack([np.ones(12), rng.uniform(0.2, 0.9, (12, k - 1))])
    dbar = np.mean([1.0 - cosines[i, n] for i in range(12) for n in range(1, k)])
    for released, mean in ((False, dbar), (True, dbar * (k - 1) / k)):
        wanted = [
            sum(1 / ((1 - cosines[i, n]) + mean) for n in range(1, k) if cosines[i, n] >= 0.4)
            for i in range(12)
        ]
        found = node_scores(indices, cosines, 0.4, self_in_mean=released)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def slow_refine(
    labels: np.ndarray,
    local: np.ndarray,
    camids: np.ndarray,
    scores: np.ndarray,
    rule: str,
    per_camera: bool,
    share: float,
) -> np.ndarray:
    """Set the label of every x in G(p) of p's camera that is not in L(p) to -1."""
    mean = sum(scores.tolist()) / len(scores)
    removals = []
    for cluster in sorted(set(labels.tolist()) - {-1}):
        members = [i for i in range(len(labels)) if labels[i] == cluster]
        cameras = sorted({camids[i] for i in members}) if per_camera else [None]
        for camera in cameras:
            group = [i for i in members if camera is None or camids[i] == camera]
            good = [i for i in group if scores[i] > mean]
            if not good:
                continue
            pivot = good[-1]
            if rule == "max":
                pivot = max(good, key=lambda i: (scores[i], -i))
            removals += [
                x for x in group if camids[x] == camids[pivot] and local[x] != local[pivot]
            ]
    removals.sort(key=lambda i: (scores[i], i))
    result = labels.copy()
    for i in removals[: round(share * len(removals))]:
        result[i] = -1
    return result


@st.composite
def situations(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return labels with noise, local labels unique over cameras, cameras, and scores with ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num = draw(st.integers(1, 40))
    labels = rng.integers(-1, draw(st.integers(1, 6)), num)
    camids = rng.integers(0, draw(st.integers(1, 4)), num)
    local = camids * 10 + rng.integers(0, 3, num)
    scores = np.round(rng.random(num), draw(st.sampled_from([1, 8])))
    return labels, local, camids, scores


@given(
    situations(),
    st.sampled_from(["max", "last"]),
    st.booleans(),
    st.sampled_from([1.0, 0.75, 0.4, 0.0]),
)
def test_refinement__equals_a_slow_loop(
    situation: tuple[np.ndarray, ...], rule: str, per_camera: bool, share: float
) -> None:
    labels, local, camids, scores = situation
    kept = [a.copy() for a in situation]
    refined = refine(labels, local, camids, scores, pivot=rule, per_camera=per_camera, share=share)
    expected = slow_refine(labels, local, camids, scores, rule, per_camera, share)
    np.testing.assert_array_equal(refined, expected)
    for before, after in zip(kept, situation):
        np.testing.assert_array_equal(before, after)


@given(situations(), st.sampled_from(["max", "last"]))
def test_refinement__only_ever_removes_images_of_the_pivots_camera(
    situation: tuple[np.ndarray, ...], rule: str
) -> None:
    labels, local, camids, scores = situation
    refined = refine(labels, local, camids, scores, pivot=rule)
    removed = np.flatnonzero(refined != labels)
    assert (refined[removed] == -1).all()
    chosen = pivots(labels, np.maximum(labels, 0), scores, rule)
    camera_of = {labels[p]: camids[p] for p in chosen}
    assert all(camids[i] == camera_of[labels[i]] for i in removed)
    np.testing.assert_array_equal(refined[chosen], labels[chosen])


def test_refinement__a_cluster_without_a_good_member_stays() -> None:
    labels = np.array([0, 0, 1, 1])
    scores = np.array([0.0, 0.1, 5.0, 6.0])
    refined = refine(labels, np.arange(4), np.zeros(4, dtype=np.int64), scores)
    assert refined.tolist() == [0, 0, -1, 1]


def test_refinement__all_noise_and_equal_scores_remove_nothing() -> None:
    camids = np.zeros(3, dtype=np.int64)
    noise = np.full(3, -1)
    np.testing.assert_array_equal(refine(noise, np.arange(3), camids, np.arange(3.0)), noise)
    labels = np.zeros(3, dtype=np.int64)
    np.testing.assert_array_equal(refine(labels, np.arange(3), camids, np.ones(3)), labels)


def test_refinement__refuses_an_unknown_pivot_rule_and_share() -> None:
    labels = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="must be one of 'max', 'last', got 'first'"):
        refine(labels, labels, labels, np.ones(2), pivot="first")
    with pytest.raises(ValueError, match="share must be a number >= 0 and <= 1, got 2"):
        refine(labels, labels, labels, np.ones(2), share=2)


@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(2, 8))
def test_node_scores__equal_a_slow_loop(seed: int, num: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    indices = np.argsort(-similarity, axis=1)[:, :k]
    cosines = np.take_along_axis(similarity, indices, axis=1)
    np.testing.assert_allclose(
        node_scores(indices, cosines, 0.5), slow_scores(indices, cosines, 0.5), rtol=1e-9
    )


def test_node_scores__identical_images_score_alike_and_finite() -> None:
    indices = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    scores = node_scores(indices, np.ones((3, 3), dtype=np.float32), 0.5)
    assert np.isfinite(scores).all() and len(set(scores.tolist())) == 1


def test_removal_share__falls_from_one_by_the_formula() -> None:
    assert removal_share(0, 50) == 1.0
    assert removal_share(50, 50) == pytest.approx(0.75)
    assert removal_share(20, 50) == pytest.approx(0.5 * (1 + math.cos(math.pi * 20 / 150)))
