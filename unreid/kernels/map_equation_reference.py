"""Reference implementation of ``map_equation.pyx`` in Python: test oracle and fallback.

[0] Rosvall, Bergstrom: Maps of random walks on complex networks, 2008,
    https://arxiv.org/abs/0707.0609
[1] Blondel et al.: Fast unfolding of communities, 2008, https://arxiv.org/abs/0803.0476

Notation: n nodes of a level, m links of its symmetrised graph.
"""

from __future__ import annotations

from math import log2

import numpy as np


def plogp(x: float) -> float:
    """Return x log2 x, and 0 for x <= 0."""
    return x * log2(x) if x > 0 else 0.0


def between(enter: float, leave: float, flow: float) -> float:
    """Return the terms of one module in the codelength, without the sum of all enter rates."""
    return plogp(leave + flow) - plogp(enter) - plogp(leave)


def move_nodes(
    starts: np.ndarray,
    neighbours: np.ndarray,
    weights: np.ndarray,
    flow: np.ndarray,
    enter: np.ndarray,
    exit_: np.ndarray,
    order: np.ndarray,
    within: np.ndarray,
    modules: np.ndarray,
    members: np.ndarray,
    module_flow: np.ndarray,
    module_enter: np.ndarray,
    module_exit: np.ndarray,
    active: np.ndarray,
    total_enter: float,
    threshold: float,
) -> tuple[int, float]:
    """Move each active node of ``order`` to the module where the codelength [0] falls most.

    One round of the local moving of [1]; a node whose neighbour moved becomes active again.

    Args:
        starts: (n + 1,) int64, row starts of the symmetrised link flow without self links.
        neighbours: (m,) int32, node j of each link.
        weights: (m,) float64, flow i -> j plus flow j -> i.
        flow: (n,) float64 visit rate of each node.
        enter: (n,) float64 enter rate of each node.
        exit_: (n,) float64 exit rate of each node.
        order: (any,) int64, nodes to visit.
        within: (n,) int32; a node joins only modules of nodes with the same value.
        modules: (n,) int32, changed in place, as are the next five.
        members: (n,) int32, nodes in each module.
        module_flow: (n,) float64 visit rate of each module.
        module_enter: (n,) float64 enter rate of each module.
        module_exit: (n,) float64 exit rate of each module.
        active: (n,) uint8, nodes to visit.
        total_enter: the sum of ``module_enter``.
        threshold: the smallest gain, in bits, that is worth a move.

    Returns:
        The number of moves, and the new ``total_enter``.
    """
    empty = [int(i) for i in np.flatnonzero(members == 0)[::-1]]
    moves = 0
    for i in order:
        if not active[i]:
            continue
        active[i] = 0
        links = range(starts[i], starts[i + 1])
        if not links:
            continue
        a = int(modules[i])
        shared: dict[int, float] = {a: 0.0}
        for e in links:
            j = neighbours[e]
            if within[j] == within[i]:
                b = int(modules[j])
                shared[b] = shared.get(b, 0.0) + float(weights[e])
        if members[a] > 1:
            shared[empty[-1]] = 0.0
        en = ex = fl = 0.0
        if members[a] > 1:
            en = module_enter[a] - enter[i] + shared[a]
            ex = module_exit[a] - exit_[i] + shared[a]
            fl = module_flow[a] - flow[i]
        total = total_enter + en - module_enter[a]
        gone = between(en, ex, fl) - between(module_enter[a], module_exit[a], module_flow[a])
        gone -= plogp(total_enter)
        best, best_delta = a, -threshold
        for b, x in shared.items():
            if b == a:
                continue
            en_b, ex_b, fl_b = module_enter[b], module_exit[b], module_flow[b]
            delta = gone + plogp(total + enter[i] - x) - between(en_b, ex_b, fl_b)
            delta += between(en_b + enter[i] - x, ex_b + exit_[i] - x, fl_b + flow[i])
            if delta < best_delta:
                best, best_delta = b, delta
        if best == a:
            continue
        total_enter = total + enter[i] - shared[best]
        if members[best] == 0:
            empty.pop()
        module_enter[a], module_exit[a], module_flow[a] = en, ex, fl
        members[a] -= 1
        if members[a] == 0:
            empty.append(a)
        module_enter[best] += enter[i] - shared[best]
        module_exit[best] += exit_[i] - shared[best]
        module_flow[best] += flow[i]
        members[best] += 1
        modules[i] = best
        moves += 1
        for e in links:
            if modules[neighbours[e]] != best:
                active[neighbours[e]] = 1
    return moves, float(total_enter)
