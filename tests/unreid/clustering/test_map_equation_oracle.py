"""The map equation against an exhaustive search and known partitions, without the GPL package.

[0] Rosvall, Bergstrom: Maps of random walks on complex networks, 2008,
    https://arxiv.org/abs/0707.0609
[1] Lambiotte, Rosvall: Ranking and clustering of nodes in networks with smart teleportation,
    2012, https://arxiv.org/abs/1112.5252
[2] Zachary: An information flow model for conflict and fission in small groups, 1977
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.unreid.clustering.test_map_equation import drawn, partitions
from unreid.clustering import compact, map_equation
from unreid.clustering.map_equation import codelength

#: The module itself: the package exports a function of the same name.
map_equation_module = importlib.import_module("unreid.clustering.map_equation")

Graph = tuple[np.ndarray, np.ndarray]

#: Edges of the karate club graph [2], with nodes numbered from 1.
KARATE = {
    1: [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 18, 20, 22, 32], 2: [3, 4, 8, 14, 18, 20, 22, 31],
    3: [4, 8, 9, 10, 14, 28, 29, 33], 4: [8, 13, 14], 5: [7, 11], 6: [7, 11, 17], 7: [17],
    9: [31, 33, 34], 10: [34], 14: [34], 15: [33, 34], 16: [33, 34], 19: [33, 34], 20: [34],
    21: [33, 34], 23: [33, 34], 24: [26, 28, 30, 33, 34], 25: [26, 28, 32], 26: [32],
    27: [30, 34], 28: [34], 29: [32, 34], 30: [33, 34], 31: [33, 34], 32: [33, 34], 33: [34],
}  # fmt: skip

#: Modules of the karate club by the two-level map equation; codelength 4.3118 bits.
KARATE_MODULES = [
    {1, 2, 3, 4, 8, 10, 12, 13, 14, 18, 20, 22},
    {5, 6, 7, 11, 17},
    {9, 15, 16, 19, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34},
]


def undirected(edges: list[tuple[int, int]], count: int) -> Graph:
    """Return the neighbour lists with both directions of each edge at weight 1, padded with -1."""
    near: list[list[int]] = [[] for _ in range(count)]
    for i, j in edges:
        near[i].append(j)
        near[j].append(i)
    indices = np.full((count, max(map(len, near))), -1)
    for i, others in enumerate(near):
        indices[i, : len(others)] = others
    return indices, np.ones(indices.shape, np.float32)


def cliques(number: int, size: int, ring: bool) -> Graph:
    """Return cliques with one edge between each and the next."""
    edges = []
    for c in range(number):
        first = c * size
        edges += [(first + i, first + j) for i in range(size) for j in range(i)]
        if ring or c + 1 < number:
            edges.append((first + size - 1, (first + size) % (number * size)))
    return undirected(edges, number * size)


def slow_flow(graph: Graph) -> np.ndarray:
    """Return the flow of each link with unrecorded link teleportation [1], after 2,000 steps."""
    num = len(graph[0])
    weights = np.zeros((num, num))
    for i in range(num):
        for j, similarity in zip(*(part[i] for part in graph)):
            if j >= 0 and j != i:
                weights[i, j] = similarity
    out = weights.sum(axis=1)
    jump = out / out.sum()
    visits = np.full(num, 1 / num)
    for _ in range(2000):
        after = np.zeros(num)
        for i in range(num):
            after += visits[i] * (0.15 * jump + 0.85 * (weights[i] / out[i] if out[i] else jump))
        visits = after
    flow = np.array([visits[i] * weights[i] / out[i] if out[i] else 0 * out for i in range(num)])
    return flow / flow.sum()


def entropy(rates: list[float]) -> float:
    """Return the entropy of a code book times its rate of use, in bits."""
    used = sum(rates)
    return -sum(rate * np.log2(rate / used) for rate in rates if rate > 0)


def slow_length(flow: np.ndarray, labels: np.ndarray) -> float:
    """Return the codelength [0, eq. 1] of one partition by a loop over modules."""
    enter, total = [], 0.0
    for module in range(labels.max() + 1):
        inside = labels == module
        enter.append(float(flow[~inside][:, inside].sum()))
        leave = float(flow[inside][:, ~inside].sum())
        total += entropy([leave, *flow[:, inside].sum(axis=0).tolist()])
    return total + entropy(enter)


@pytest.mark.parametrize(("num", "seed"), [(5, 0), (6, 1), (7, 2), (7, 3), (8, 4), (8, 5)])
def test_oracle__no_partition_of_a_small_graph_is_shorter(num: int, seed: int) -> None:
    graph = drawn(num, 3, seed, spread=0.8)
    graph = graph[0], np.maximum(graph[1], np.float32(0.01))
    flow = slow_flow(graph)
    shortest = min(slow_length(flow, np.array(labels)) for labels in partitions(num))
    found = map_equation(*graph, min_similarity=0.0, seed=0)
    assert slow_length(flow, found) == pytest.approx(shortest, abs=1e-9)
    assert codelength(*graph, found, min_similarity=0.0) == pytest.approx(shortest, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("number", "size", "ring"), [(2, 4, False), (2, 6, False), (6, 4, True), (12, 5, True)]
)
def test_oracle__cliques_joined_by_an_edge_are_the_modules(
    number: int, size: int, ring: bool, seed: int
) -> None:
    found = map_equation(*cliques(number, size, ring), min_similarity=0.5, seed=seed)
    np.testing.assert_array_equal(found, np.arange(number * size) // size)


def test_oracle__karate_club_has_its_known_modules() -> None:
    graph = undirected([(i - 1, j - 1) for i, js in KARATE.items() for j in js], 34)
    assert (graph[0] >= 0).sum() == 2 * 78
    modules = np.array(
        [next(m for m, who in enumerate(KARATE_MODULES) if i + 1 in who) for i in range(34)]
    )
    assert slow_length(slow_flow(graph), modules) == pytest.approx(4.3118, abs=5e-5)
    found_lengths = []
    for seed in range(5):
        found = map_equation(*graph, min_similarity=0.5, seed=seed)
        found_lengths.append(slow_length(slow_flow(graph), found))
    assert min(found_lengths) == pytest.approx(4.3118, abs=5e-5)
    best = map_equation(*graph, min_similarity=0.5, seed=int(np.argmin(found_lengths)))
    np.testing.assert_array_equal(best, compact(modules))


#: Sum over the next test's graphs of the shortest codelength that six seeds found.
SHORTEST = 71.216584


def lengths(graphs: list[Graph], seeds: int) -> np.ndarray:
    """Return the codelengths, shape (graphs, seeds), of the partitions found."""
    return np.array([
        [codelength(*graph, map_equation(*graph, min_similarity=0.3, seed=seed), min_similarity=0.3)
         for seed in range(seeds)] for graph in graphs
    ])  # fmt: skip


def test_oracle__three_seeds_stay_within_a_thousandth_of_the_shortest() -> None:
    """The excess is .062 %; without fine tuning .155 %, without coarse tuning .124 %."""
    sizes = ((60, 5, 0.5), (120, 5, 0.6), (250, 6, 0.7))
    graphs = [drawn(num, k, seed, spread) for num, k, spread in sizes for seed in range(6)]
    assert SHORTEST * (1 - 1e-9) <= lengths(graphs, 3).mean(axis=1).sum() <= 1.001 * SHORTEST


@pytest.mark.parametrize(
    ("component", "without", "least"),
    [
        ("_fine_tune", lambda leaves, labels, rng: labels, 0.0015),
        ("_coarse_tune", lambda leaves, labels, rng: labels, 0.001),
        ("MIN_ROUND_GAIN", 0.1, 0.0004),
    ],
    ids=["fine tuning", "coarse tuning", "rounds until little is gained"],
)
def test_oracle__every_component_of_the_search_is_needed(
    component: str, without: object, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disable one component of the search: the codelength must increase for every seed.

    Measured on six graphs of 800 nodes, as ranges over seeds: codelengths increase by .28 to .35 %
    without fine tuning, .18 to .24 % without coarse tuning, .08 to .10 % with a single round.
    """
    graphs = [drawn(800, 6, seed, 0.7) for seed in range(6)]
    whole = lengths(graphs, 3)
    monkeypatch.setattr(map_equation_module, component, without)
    longer = lengths(graphs, 3).sum(axis=0) / whole.sum(axis=0) - 1
    assert longer.mean() > least and longer.min() > 0
