"""Sharded neighbour search and Jaccard distance for several processes.

The joined shards equal the result of one process bit by bit.

On a CPU a shard of the search is a subset of the blocks of the upper triangle of similarities, so
each image has candidates from several shards. On a GPU a shard is a subset of the rows. A shard of
the distances is two strips of rows of the upper triangle, one from the top and one from the bottom,
so that all shards have equal work.

Notation: N images, D channels, K neighbours, R rows of a share, E entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse

from unreid.graph import triangle
from unreid.graph.jaccard import Csr, distances
from unreid.graph.knn import BLOCK_SIZE, pair_similarities, search
from unreid.kernels import kernel, zero_copy

#: rows (R,) int64, indices (R, K - 1) int32 and similarities (R, K - 1) float32 of other images,
#: and the images (F,) int64 to search again. A similarity of -inf marks an empty entry.
Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def knn_share(
    features: np.ndarray, k: int, part: int, parts: int, *, device: str = "cpu",
    block_size: int = BLOCK_SIZE,
) -> Found:
    """Return the shard ``part`` of ``parts`` of ``knn(features, k)``.

    Args:
        features: (N, D) float32, unit rows.
        k: Neighbours, the image itself included, 1..N.
        part: Index of the shard.
        parts: Number of shards.
        device: Device of the matrix products.
        block_size: Rows in a block of the product.
    """
    num = len(features)
    if device == "cpu" and kernel("knn") is not None:
        return _blocks(features, k, part, parts, block_size)
    rows = np.array_split(np.arange(num, dtype=np.int64), parts)[part]
    moved = torch.tensor(features, device=device)
    found, values = search(moved, torch.from_numpy(rows).to(device), k, block_size)
    indices, scores = found[:, 1:].int().cpu().numpy(), values[:, 1:].cpu().numpy()
    return rows, indices, scores, rows[:0]


def _blocks(features: np.ndarray, k: int, part: int, parts: int, block_size: int) -> Found:
    num, wanted = len(features), k - 1
    # Small enough that every process has blocks; a block also stands for its transpose.
    block_size = max(1, min(block_size, -(-num // (2 * parts))))
    kernels = kernel("knn")
    assert kernels is not None
    quantized = triangle.quantize(features)
    lists = triangle.CandidateLists(kernels, quantized, wanted)
    triangle.scan(quantized, block_size, [lists], part, parts)
    indices, scores, again = lists.finish(features)
    seen = np.zeros(num, dtype=np.int64)
    for row, column in triangle.block_pairs(num, block_size, part, parts):
        seen[row : row + block_size] += min(block_size, num - column)
        if column != row:
            seen[column : column + block_size] += block_size
    scores = np.where((seen > 0)[:, None], scores, -np.inf).astype(np.float32)
    return np.arange(num, dtype=np.int64), indices, scores, again[seen[again] > 0]


def join_knn(
    features: np.ndarray, k: int, shares: Sequence[Found], *, device: str = "cpu",
    block_size: int = BLOCK_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Join the shards of all processes into the result of ``knn(features, k)``.

    Args:
        features, k, device, block_size: Those of :func:`knn_share`.
        shares: Results of :func:`knn_share`, in any order.
    """
    num, wanted = len(features), k - 1
    every = np.arange(num, dtype=np.int32)
    indices = np.zeros((num, k), dtype=np.int32)
    similarities = np.empty((num, k), dtype=np.float32)
    indices[:, 0] = every
    similarities[:, 0] = pair_similarities(features, every, every)
    if all(len(rows) == num for rows, *_ in shares):
        for start in range(0, num, 4096):
            part = slice(start, start + 4096)
            candidates = np.concatenate([share[1][part] for share in shares], axis=1)
            scores = np.concatenate([share[2][part] for share in shares], axis=1)
            best = np.lexsort((candidates, -scores), axis=1)[:, :wanted]
            indices[part, 1:] = np.take_along_axis(candidates, best, 1)
            similarities[part, 1:] = np.take_along_axis(scores, best, 1)
    else:
        for rows, candidates, scores, _ in shares:
            indices[rows, 1:], similarities[rows, 1:] = candidates, scores
    again = np.unique(np.concatenate([share[3] for share in shares]))
    if again.size:
        moved = zero_copy(features) if device == "cpu" else torch.tensor(features, device=device)
        found, values = search(moved, torch.from_numpy(again).to(device), k, block_size)
        indices[again, 1:] = found[:, 1:].int().cpu().numpy()
        similarities[again, 1:] = values[:, 1:].cpu().numpy()
    return indices, similarities


def strips(num: int, part: int, parts: int) -> list[tuple[int, int]]:
    """Return two strips of rows (start, end) with 1 / ``parts`` of an upper triangle."""
    ends = np.linspace(0, num, 2 * parts + 1).round().astype(int).tolist()
    return [(ends[i], ends[i + 1]) for i in (part, 2 * parts - 1 - part)]


def jaccard_share(encoded: Csr, max_distance: float, part: int, parts: int) -> Csr:
    """Return one shard of the upper triangle of the Jaccard distances as rows, columns, values.

    Args:
        encoded: CSR (N, N) of :func:`unreid.graph.jaccard.encode`.
        max_distance: Larger distances are left out, and so are those of 1.
        part: Index of the shard.
        parts: Number of shards.

    Returns:
        (E,) int32 rows, (E,) int32 columns >= rows, (E,) float32 distances.
    """
    num = len(encoded[0]) - 1
    found: list[tuple[np.ndarray, ...]] = []
    for start, end in strips(num, part, parts):
        if end == start:
            continue
        pointers, others, far = distances(_from_row(encoded, start), end - start, 0, max_distance)
        rows = np.repeat(np.arange(end - start, dtype=np.int32), np.diff(pointers))
        upper = (others >= rows) & (others < num - start)
        found.append((rows[upper] + np.int32(start), others[upper] + np.int32(start), far[upper]))
    if not found:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    rows, others, far = (np.concatenate(arrays) for arrays in zip(*found))
    return rows, others, far


def _from_row(encoded: Csr, start: int) -> Csr:
    """Return the rows from ``start`` on, followed by the earlier rows with one entry each.

    The kernel takes a square matrix; distances to the earlier rows belong to other strips.
    """
    indptr, columns, values = encoded
    first, fill = indptr[start], np.arange(start, dtype=columns.dtype)
    rest = indptr[start:] - first
    return (
        np.concatenate([rest, rest[-1] + 1 + fill.astype(indptr.dtype)]),
        np.concatenate([columns[first:], fill]),
        np.concatenate([values[first:], np.ones(start, dtype=values.dtype)]),
    )


def join_jaccard(num: int, shares: Sequence[Sequence[np.ndarray]]) -> sparse.csr_array:
    """Join all shards into the matrix of :func:`unreid.graph.jaccard.jaccard_distance`."""
    rows, columns, values = (np.concatenate([share[i] for share in shares]) for i in range(3))
    off = rows != columns
    both: tuple[Any, Any] = (np.concatenate([rows, columns[off]]),
                             np.concatenate([columns, rows[off]]))
    matrix = sparse.coo_array((np.concatenate([values, values[off]]), both), shape=(num, num))
    found = matrix.tocsr()
    found.sort_indices()
    return found
