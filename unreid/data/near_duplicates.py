"""Pictures that look the same: re-saved, re-sized or a frame later.

A picture's look is 128 bits: whether it gets brighter from one cell of a 9 x 9 grid to the next,
to the right and downwards [0]. Looks that differ in few bits are near duplicates.

[0] Krawetz, Kind of Like That, 2013, https://www.hackerfactor.com/blog/index.php?/archives/529

Notation: N images, G groups.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from unreid.checks import check_integer

#: Bits of a look, and the parts of it that are compared whole.
BITS, _BANDS = 128, 4
#: Of looks that agree in a whole part, each is compared with so many that follow it.
_WINDOW = 256


def look(image: Image.Image) -> np.ndarray:
    """(16,) uint8, 128 bits that stay when a picture is re-saved or re-sized."""
    grid = np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BOX), dtype=np.int16)
    right = grid[:8, 1:] > grid[:8, :-1]
    down = grid[1:, :8] > grid[:-1, :8]
    return np.packbits(np.concatenate([right.ravel(), down.ravel()]))


def group_looks(looks: np.ndarray, max_bits: int = 3) -> np.ndarray:
    """Groups of images joined by looks that differ in ``max_bits`` or fewer.

    Two looks that differ in at most three of 128 bits agree in one of four parts, so that only
    those are compared. Where more than 256 different looks agree in a part (an album of blank
    pictures), each is compared with the next 256, and a pair may be missed.

    Args:
        looks: (N, 16) uint8, of :func:`look`.
        max_bits: 0 to 3.

    Returns:
        (N,) int64 groups 0..G-1.
    """
    check_integer("max_bits", max_bits, 0, _BANDS - 1)
    if len(looks) == 0:
        return np.zeros(0, dtype=np.int64)
    unique, which = np.unique(looks, axis=0, return_inverse=True)
    which = which.reshape(-1)  # numpy 2.0 gave it a second axis
    edges = [np.zeros((0, 2), dtype=np.int64)]
    parts = np.ascontiguousarray(unique).view(np.uint32)
    for band in range(_BANDS):
        order = np.argsort(parts[:, band], kind="stable")
        values = parts[order, band]
        for shift in range(1, min(_WINDOW, len(order) - 1) + 1):
            same = np.flatnonzero(values[shift:] == values[:-shift])
            if same.size == 0:
                break  # sorted: none agrees at a longer distance either
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
