"""The map equation: codelength against the formula, and partitions against the infomap package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unreid.clustering import compact, map_equation
from unreid.clustering.map_equation import codelength
from unreid.kernels import kernel


def drawn(num: int, k: int, seed: int, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return the kNN graph (self included) of unit rows around a few centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, num // 8), 6))
    x = centres[rng.integers(0, len(centres), num)] + spread * rng.normal(size=(num, 6))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (x @ x.T).astype(np.float32)
    np.fill_diagonal(cosines, 1.5)
    indices = np.argsort(-cosines, axis=1, kind="stable")[:, :k].astype(np.int32)
    return indices, np.minimum(np.take_along_axis(cosines, indices, 1), 1)


def slow_codelength(
    indices: np.ndarray, similarities: np.ndarray, labels: np.ndarray, lowest: float
) -> float:
    """Return the two-level codelength over dense arrays [Rosvall & Bergstrom 2008, eq. 1]."""
    num = len(labels)
    weights = np.zeros((num, num))
    for i in range(num):
        for j, s in zip(indices[i], similarities[i]):
            if j != i and s >= np.float32(lowest):
                weights[i, j] = s
    if weights.sum() == 0:
        return 0.0
    out = weights.sum(axis=1)
    jump = out / out.sum()
    step = np.where(out[:, None] > 0, weights / np.maximum(out, 1e-300)[:, None], jump)
    p = np.full(num, 1 / num)
    for _ in range(400):
        p = 0.85 * p @ step + 0.15 * jump
    flow = np.where(out[:, None] > 0, p[:, None] * step, 0)
    flow /= flow.sum()
    visits = flow.sum(axis=0)

    def entropy(rates: list[float]) -> float:
        """Return the entropy of a code book times its rate of use, in bits."""
        used = sum(rates)
        return -sum(r * np.log2(r / used) for r in rates if r > 0)

    apart = labels[:, None] != labels
    enter = [float((flow * apart)[:, labels == m].sum()) for m in np.unique(labels)]
    total = entropy(enter)
    for m in np.unique(labels):
        leaving = float((flow * apart)[labels == m].sum())
        total += entropy([leaving, *visits[labels == m]])
    return total


@given(num=st.integers(2, 20), k=st.integers(1, 6), seed=st.integers(0, 9999))
def test_codelength__is_that_of_the_formula(num: int, k: int, seed: int) -> None:
    graph = drawn(num, min(k, num), seed)
    labels = np.random.default_rng(seed).integers(0, 4, num)
    found = codelength(*graph, labels, min_similarity=0.5)
    assert found == pytest.approx(slow_codelength(*graph, labels, 0.5), abs=1e-9)


@settings(max_examples=50)
@given(num=st.integers(2, 40), k=st.integers(2, 6), seed=st.integers(0, 9999))
def test_codelength__is_what_the_package_reports(num: int, k: int, seed: int) -> None:
    package = pytest.importorskip("infomap")
    indices, similarities = drawn(num, min(k, num), seed)
    rows, columns = np.nonzero(similarities >= np.float32(0.5))
    others = indices[rows, columns]
    keep = others != rows
    if not keep.any():
        return
    with pytest.warns(Warning):
        search = package.Infomap(two_level=True, directed=True, silent=True, seed=1)
        values = similarities[rows, columns].astype(float)
        search.add_links(
            list(zip(rows[keep].tolist(), others[keep].tolist(), values[keep].tolist()))
        )
        search.run()
        labels = np.arange(num) + 10**6
        for node, module in search.get_modules().items():
            labels[node] = module
        reported = search.codelength
    found = codelength(indices, similarities, labels, min_similarity=0.5)
    assert found == pytest.approx(reported, abs=1e-6)


def partitions(num: int) -> list[list[int]]:
    """Return all partitions of ``num`` nodes, as labels by first appearance."""
    found = [[0]]
    for _ in range(num - 1):
        found = [[*p, c] for p in found for c in range(max(p) + 2)]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_tiny_graph__finds_the_shortest_of_all_partitions(seed: int) -> None:
    graph = drawn(6, 3, seed, spread=0.8)
    lengths = [codelength(*graph, np.array(p), min_similarity=0.0) for p in partitions(6)]
    found = map_equation(*graph, min_similarity=0.0, seed=0)
    assert codelength(*graph, found, min_similarity=0.0) <= min(lengths) + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_plain_python__gives_the_same_labels(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel("map_equation") is None:
        pytest.skip("kernels not built")
    graph = drawn(120, 6, seed)
    wanted = map_equation(*graph, min_similarity=0.3, seed=seed)
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    np.testing.assert_array_equal(map_equation(*graph, min_similarity=0.3, seed=seed), wanted)


def test_same_seed__same_labels_and_another_nearly_the_same_length() -> None:
    graph = drawn(800, 8, 0)
    first = map_equation(*graph, min_similarity=0.3, seed=3)
    np.testing.assert_array_equal(map_equation(*graph, min_similarity=0.3, seed=3), first)
    lengths = [
        codelength(*graph, map_equation(*graph, min_similarity=0.3, seed=s), min_similarity=0.3)
        for s in range(5)
    ]
    assert max(lengths) <= 1.005 * min(lengths)


def permuted(
    indices: np.ndarray, similarities: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the graph of the images order[0], order[1], ..."""
    place = np.argsort(order)
    return place[indices[order]].astype(np.int32), similarities[order]


def test_permuted_images__permute_parts_without_links_exactly() -> None:
    # 30 cliques of 5.
    indices = np.arange(150).reshape(30, 1, 5).repeat(5, axis=1).reshape(150, 5)
    similarities = np.full((150, 5), 0.9, np.float32)
    order = np.random.default_rng(0).permutation(150)
    moved = map_equation(*permuted(indices, similarities, order), min_similarity=0.5, seed=0)
    np.testing.assert_array_equal(moved, compact(np.arange(150)[order] // 5))


def test_permuted_images__nearly_keep_the_codelength() -> None:
    graph = drawn(800, 8, 0)
    moved = permuted(*graph, np.random.default_rng(0).permutation(800))
    lengths = [
        codelength(*g, map_equation(*g, min_similarity=0.3, seed=0), min_similarity=0.3)
        for g in (graph, moved)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=5e-3)


def test_self_links_and_padding__do_not_count() -> None:
    indices, similarities = drawn(60, 6, 0)
    wanted = map_equation(indices, similarities, min_similarity=0.3, seed=0)
    bare = np.where(indices == np.arange(60)[:, None], -1, indices)
    padded = np.column_stack([bare, np.full((60, 2), -1, np.int32)])
    values = np.column_stack([similarities, np.ones((60, 2), np.float32)])
    np.testing.assert_array_equal(map_equation(padded, values, min_similarity=0.3, seed=0), wanted)


def test_threshold__is_inclusive_and_in_the_similarities_own_precision() -> None:
    indices = np.array([[1], [0], [3], [2]])
    similarities = np.array([[0.7], [0.7], [0.6], [0.6]], np.float32)
    found = map_equation(indices, similarities, min_similarity=0.7, seed=0)
    np.testing.assert_array_equal(found, [0, 0, 1, 2])


@pytest.mark.parametrize(
    ("indices", "wanted"),
    [
        (np.zeros((0, 3), np.int32), []),
        (np.zeros((1, 1), np.int32), [0]),
        (np.arange(4)[:, None], [0, 1, 2, 3]),
        (np.array([[0, 1], [1, 0], [2, 3], [3, 2]]), [0, 0, 1, 1]),
        (np.arange(6)[None].repeat(6, axis=0), [0] * 6),
    ],
    ids=["empty", "one node", "no links", "two parts", "identical images"],
)
def test_edge_cases(indices: np.ndarray, wanted: list[int]) -> None:
    similarities = np.ones(indices.shape, np.float32)
    found = map_equation(indices, similarities, min_similarity=0.5, seed=0)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wanted)
    assert codelength(indices, similarities, found, min_similarity=0.5) >= 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"min_similarity": 1.5}, ValueError, r"min_similarity must be a number >= 0 and <= 1"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
        ({"indices": np.full((4, 2), 4)}, ValueError, "indices must be < 4"),
        ({"indices": np.zeros((4, 3), int)}, ValueError, r"same shape \(N, k\)"),
        ({"indices": np.zeros((4, 2))}, TypeError, "indices must be integers, got float64"),
        ({"similarities": np.full((4, 2), np.nan)}, ValueError, "similarities must be finite"),
    ],
)
def test_wrong_argument__is_named(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    given_: dict[str, object] = {
        "indices": np.zeros((4, 2), int), "similarities": np.ones((4, 2)),
        "min_similarity": 0.5, "seed": 0, **change,
    }  # fmt: skip
    with pytest.raises(error, match=words):
        map_equation(**given_)  # type: ignore[arg-type]


def test_noise_labels__have_no_codelength() -> None:
    with pytest.raises(ValueError, match="labels must be >= 0"):
        codelength(np.zeros((2, 1), int), np.ones((2, 1)), np.array([0, -1]), min_similarity=0.5)


def test_input__is_not_modified() -> None:
    indices, similarities = drawn(50, 5, 0)
    kept = indices.copy(), similarities.copy()
    indices.flags.writeable = similarities.flags.writeable = False
    map_equation(indices, similarities, min_similarity=0.3, seed=0)
    np.testing.assert_array_equal(indices, kept[0])
    np.testing.assert_array_equal(similarities, kept[1])


@pytest.mark.parametrize("min_similarity", [0.6])
def test_real_features__no_longer_than_the_packages_partition(
    shared_data: Path, min_similarity: float
) -> None:
    pytest.importorskip("infomap")
    from unreid.clustering import infomap
    from unreid.graph import knn

    file = np.load(shared_data / "features" / "market_train_osnet_x0_25.npz")
    x = file["features"].astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    graph = knn(x, 15)
    ours, theirs = (
        codelength(
            *graph, search(*graph, min_similarity=min_similarity, seed=0),
            min_similarity=min_similarity,
        )
        for search in (map_equation, infomap)
    )  # fmt: skip
    assert ours <= 1.005 * theirs


def test_smallest_gain__separates_modules_of_a_hundred_millionth_of_the_flow() -> None:
    """Two triangles beside four cliques of weight 1: a move within them gains about 1e-8 bits."""
    indices = np.full((22, 4), -1, np.int64)
    similarities = np.zeros((22, 4), np.float32)
    groups = [(4 * c, 4, 1.0) for c in range(4)] + [(16, 3, 1e-8), (19, 3, 1e-8)]
    for first, size, weight in groups:
        for i in range(size):
            indices[first + i, : size - 1] = [first + j for j in range(size) if j != i]
            similarities[first + i, : size - 1] = weight
    labels = map_equation(indices, similarities, min_similarity=0.0, seed=0)
    assert labels[16:].tolist() == [4, 4, 4, 5, 5, 5]
