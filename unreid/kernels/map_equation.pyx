# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One round of greedy moves of the two-level map equation.

The reference implementation is map_equation_reference.py.

Notation: n nodes of a level, m links of its symmetrised graph.
"""

import numpy as np

from libc.math cimport log2


cdef inline double plogp(double x) noexcept nogil:
    return x * log2(x) if x > 0 else 0.0


cdef inline double between(double enter, double exit_, double flow) noexcept nogil:
    """Return the terms of one module in the codelength.

    The term of the sum of all enter rates is not included.
    """
    return plogp(exit_ + flow) - plogp(enter) - plogp(exit_)


def move_nodes(
    const long long[::1] starts, const int[::1] neighbours, const double[::1] weights,
    const double[::1] flow, const double[::1] enter, const double[::1] exit_,
    const long long[::1] order, const int[::1] within, int[::1] modules, int[::1] members,
    double[::1] module_flow, double[::1] module_enter, double[::1] module_exit,
    unsigned char[::1] active, double total_enter, double threshold,
):
    """See ``map_equation_reference.move_nodes``.

    Changes modules, members, module_flow, module_enter, module_exit and active in place.
    """
    cdef Py_ssize_t n = flow.shape[0], num = order.shape[0], t, e, c, touched
    cdef int i, j, a, b, best, empties = 0
    cdef long long moves = 0
    cdef double x, gone, en, ex, fl, total, delta, best_delta, x_best
    cdef double[::1] shared = np.zeros(n)
    cdef unsigned char[::1] seen = np.zeros(n, np.uint8)
    cdef int[::1] candidates = np.empty(n + 1, np.int32)
    cdef int[::1] empty = np.empty(n + 1, np.int32)
    with nogil:
        for i in range(n - 1, -1, -1):
            if members[i] == 0:
                empty[empties] = i
                empties += 1
        for t in range(num):
            i = order[t]
            if not active[i]:
                continue
            active[i] = 0
            if starts[i] == starts[i + 1]:
                continue
            a = modules[i]
            touched = 0
            seen[a] = 1
            for e in range(starts[i], starts[i + 1]):
                j = neighbours[e]
                if within[j] != within[i]:
                    continue
                b = modules[j]
                if not seen[b]:
                    seen[b] = 1
                    candidates[touched] = b
                    touched += 1
                shared[b] += weights[e]
            if members[a] > 1:  # an empty module is a candidate too
                candidates[touched] = empty[empties - 1]
                touched += 1
            # Links between the node and its old module become boundary links of that module.
            x = shared[a]
            if members[a] > 1:
                en = module_enter[a] - enter[i] + x
                ex = module_exit[a] - exit_[i] + x
                fl = module_flow[a] - flow[i]
            else:
                en = ex = fl = 0.0
            total = total_enter + en - module_enter[a]
            gone = between(en, ex, fl) - between(module_enter[a], module_exit[a], module_flow[a])
            gone -= plogp(total_enter)
            best = a
            best_delta = -threshold
            for c in range(touched):
                b = candidates[c]
                x = shared[b]
                delta = (
                    gone
                    + plogp(total + enter[i] - x)
                    + between(module_enter[b] + enter[i] - x, module_exit[b] + exit_[i] - x,
                              module_flow[b] + flow[i])
                    - between(module_enter[b], module_exit[b], module_flow[b])
                )
                if delta < best_delta:
                    best_delta = delta
                    best = b
            if best != a:
                x_best = shared[best]
                total_enter = total + enter[i] - x_best
                if members[best] == 0:
                    empties -= 1
                module_enter[a] = en
                module_exit[a] = ex
                module_flow[a] = fl
                members[a] -= 1
                if members[a] == 0:
                    empty[empties] = a
                    empties += 1
                module_enter[best] += enter[i] - x_best
                module_exit[best] += exit_[i] - x_best
                module_flow[best] += flow[i]
                members[best] += 1
                modules[i] = best
                moves += 1
                for e in range(starts[i], starts[i + 1]):
                    j = neighbours[e]
                    if modules[j] != best:
                        active[j] = 1
            seen[a] = 0
            shared[a] = 0.0
            for c in range(touched):
                seen[candidates[c]] = 0
                shared[candidates[c]] = 0.0
    return moves, total_enter
