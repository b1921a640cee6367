"""Communities of the kNN graph by the two-level map equation.

The map equation [0] is the description length of a random walk with one code book for moves
between modules and one for each module. It is minimised by local moves over aggregated levels [1],
then by moves of single images and submodules until the gain is small (the refinement of [2],
appendix). The implementation follows these papers only.

[0] Rosvall, Bergstrom: Maps of random walks on complex networks reveal community structure,
    2008, https://arxiv.org/abs/0707.0609
[1] Blondel et al.: Fast unfolding of communities, 2008, https://arxiv.org/abs/0803.0476
[2] Rosvall, Axelsson, Bergstrom: The map equation, 2009, https://arxiv.org/abs/0906.1405

Notation: N images, k neighbours, n nodes of a level, C modules.
"""

from __future__ import annotations

import numpy as np

from unreid.checks import check_integer
from unreid.clustering.link_flow import (
    Level,
    aggregate,
    knn_links,
    leaf_level,
    link_flow,
    module_rates,
)
from unreid.kernels import kernel, map_equation_reference

#: Minimum gain of a move in bits, and minimum gain of a round relative to the codelength.
SMALLEST_GAIN = 1e-10
MIN_ROUND_GAIN = 1e-4
MAX_ROUNDS = 20
MAX_SWEEPS = 50


def map_equation(
    indices: np.ndarray, similarities: np.ndarray, *, min_similarity: float, seed: int
) -> np.ndarray:
    """Return the modules of the directed kNN graph by the map equation, two levels.

    The flow is that of ``link_flow``. The same input and seed give the same labels. Another seed
    or order of the images can give another local optimum with nearly the same codelength.
    Unconnected components are separated for every seed and order.

    Args:
        indices: (N, k) integer neighbours, as ``unreid.graph.knn`` returns them (self links
            are left out; < 0 means none).
        similarities: (N, k) floating, their cosines, the weights of the links.
        min_similarity: In [0, 1]; links with a smaller similarity are not used.
        seed: Seed >= 0 of the random order in which nodes are visited.

    Returns:
        (N,) int64 labels 0..C-1, numbered by first appearance; no noise: an image without
        links is its own module.

    Raises:
        ValueError, TypeError: An argument has a wrong shape, type or range.
    """
    rng = np.random.default_rng(check_integer("seed", seed, 0))
    leaves = leaf_level(link_flow(knn_links(indices, similarities, min_similarity)))
    if len(leaves) == 0:
        return np.zeros(0, np.int64)
    labels = _move_and_aggregate(leaves, np.arange(len(leaves), dtype=np.int32), rng)
    length = partition_codelength(leaves, labels)
    for _ in range(MAX_ROUNDS):
        before = length
        for tune in (_fine_tune, _coarse_tune):
            tuned = tune(leaves, labels, rng)
            tuned_length = partition_codelength(leaves, tuned)
            if tuned_length < length:
                labels, length = tuned, tuned_length
        if before - length <= MIN_ROUND_GAIN * before:
            break
    return _numbered(labels)[0].astype(np.int64)


def codelength(
    indices: np.ndarray, similarities: np.ndarray, labels: np.ndarray, *, min_similarity: float
) -> float:
    """Return the bits per step that a walk on the kNN graph costs under a partition, [0] eq. 1.

    Args:
        indices: See :func:`map_equation`.
        similarities: See :func:`map_equation`.
        min_similarity: See :func:`map_equation`.
        labels: (N,) integers >= 0, a module for every image.

    Returns:
        The two-level codelength; 0 for a graph without links.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(indices),):
        raise ValueError(f"labels must have shape ({len(indices)},), got {labels.shape}")
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must be >= 0, a module for every image, got {labels.min()}")
    leaves = leaf_level(link_flow(knn_links(indices, similarities, min_similarity)))
    return partition_codelength(leaves, labels)


def _plogp(x: np.ndarray) -> float:
    x = x[x > 0]
    return float((x * np.log2(x)).sum())


def partition_codelength(leaves: Level, labels: np.ndarray) -> float:
    """Return the codelength in bits of (n,) module ids >= 0 on a level of images."""
    if len(leaves) == 0:
        return 0.0
    modules, count = _numbered(labels)
    flow, enter, leave = module_rates(leaves, modules, count)
    borders = _plogp(enter.sum(keepdims=True)) - _plogp(enter) - _plogp(leave)
    return borders - _plogp(leaves.flow) + _plogp(leave + flow)


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (n,) int32 ids 0..C-1 by first appearance, and C."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse], len(first)


def _local_moves(
    level: Level, modules: np.ndarray, rng: np.random.Generator, within: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """Move nodes in random order until none moves; return (n,) numbered modules and C."""
    move_nodes = (kernel("map_equation") or map_equation_reference).move_nodes
    n = len(level)
    modules = modules.astype(np.int32)
    flow, enter, leave = module_rates(level, modules, n)
    members = np.bincount(modules, minlength=n).astype(np.int32)
    active = np.ones(n, np.uint8)
    within = np.zeros(n, np.int32) if within is None else within.astype(np.int32)
    total = float(enter.sum())
    for _ in range(MAX_SWEEPS):
        order = rng.permutation(np.flatnonzero(active))
        moves, total = move_nodes(
            level.starts, level.neighbours, level.weights, level.flow, level.enter, level.exit,
            order, within, modules, members, flow, enter, leave, active,
            total, SMALLEST_GAIN,
        )  # fmt: skip
        if moves == 0:
            break
    return _numbered(modules)


def _move_and_aggregate(level: Level, modules: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Alternate local moves and aggregation until no modules join; return (n,) module ids."""
    labels, count = _local_moves(level, modules, rng)
    current = aggregate(level, labels, count)
    while True:
        joined, fewer = _local_moves(current, np.arange(count, dtype=np.int32), rng)
        if fewer == count:
            return labels
        labels, count = joined[labels], fewer
        current = aggregate(current, joined, fewer)


def _fine_tune(leaves: Level, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move single images between the modules found, then repeat the search [2]."""
    return _move_and_aggregate(leaves, _numbered(labels)[0], rng)


def _coarse_tune(leaves: Level, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Split every module into submodules and move these between modules [2]."""
    modules, _ = _numbered(labels)
    parts, count = _local_moves(leaves, np.arange(len(leaves), dtype=np.int32), rng, modules)
    owner = np.zeros(count, np.int32)
    owner[parts] = modules
    return _move_and_aggregate(aggregate(leaves, parts, count), owner, rng)[parts]
