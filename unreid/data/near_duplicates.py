"""Find near duplicates: images that were compressed again, resized, or taken a frame later.

The difference hash (dHash) of an image has 128 bits: whether brightness increases between adjacent
cells of a 9 x 9 grid, to the right and downwards [0]. Images whose hashes differ in few bits are
near duplicates.

[0] Krawetz, Kind of Like That, 2013, https://www.hackerfactor.com/blog/index.php?/archives/529

Notation: N images, G groups.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from unreid.checks import check_integer

#: Bits of a hash, and the number of bands that are compared for equality.
BITS, _BANDS = 128, 4
#: Among hashes that share a band, each is compared with this many of the following ones.
_MAX_COMPARISONS = 256


def difference_hash(image: Image.Image) -> np.ndarray:
    """Return the difference hash of an image: 128 bits, packed as (16,) uint8."""
    grid = np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BOX), dtype=np.int16)
    right = grid[:8, 1:] > grid[:8, :-1]
    down = grid[1:, :8] > grid[:-1, :8]
    return np.packbits(np.concatenate([right.ravel(), down.ravel()]))


def group_hashes(hashes: np.ndarray, max_bits: int = 3) -> np.ndarray:
    """Return connected components of images whose hashes differ in at most ``max_bits`` bits.

    Two hashes that differ in at most three of 128 bits are equal in one of four bands, so only such
    pairs are compared. If more than 256 different hashes share a band (such as many blank images),
    each is compared with the next 256 only, and a pair may be missed.

    Args:
        hashes: (N, 16) uint8 hashes of :func:`difference_hash`.
        max_bits: Largest Hamming distance of near duplicates, 0 to 3.

    Returns:
        (N,) int64 group of each image, 0..G-1.

    Raises:
        ValueError: ``max_bits`` is out of range.
    """
    check_integer("max_bits", max_bits, 0, _BANDS - 1)
    if len(hashes) == 0:
        return np.zeros(0, dtype=np.int64)
    unique, which = np.unique(hashes, axis=0, return_inverse=True)
    which = which.reshape(-1)  # numpy 2.0 returns a second axis
    edges = [np.zeros((0, 2), dtype=np.int64)]
    parts = np.ascontiguousarray(unique).view(np.uint32)
    for band in range(_BANDS):
        order = np.argsort(parts[:, band], kind="stable")
        values = parts[order, band]
        for shift in range(1, min(_MAX_COMPARISONS, len(order) - 1) + 1):
            same = np.flatnonzero(values[shift:] == values[:-shift])
            if same.size == 0:
                break  # sorted: no pair at a larger distance shares the band
            first, second = order[same], order[same + shift]
            differing = np.unpackbits(unique[first] ^ unique[second], axis=1).sum(axis=1)
            near = differing <= max_bits
            edges.append(np.stack([first[near], second[near]], axis=1))
    pairs = np.concatenate(edges)
    graph = coo_matrix(
        (np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])),
        shape=(len(unique), len(unique)),
    )
    return connected_components(graph, directed=False)[1].astype(np.int64)[which]
