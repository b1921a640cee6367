"""Community detection with the ``infomap`` package of its authors, an optional dependency.

The licence of the package is GPL-3.0, so it is not a requirement. ``map_equation`` minimises the
same objective; this module serves for comparison.

[0] Rosvall, Bergstrom: Maps of random walks on complex networks, 2008,
    https://arxiv.org/abs/0707.0609
[1] https://www.mapequation.org/infomap (``--two-level --directed``)

Notation: N images, k neighbours, C modules.
"""

from __future__ import annotations

import warnings

import numpy as np

from unreid.checks import check_integer
from unreid.clustering.link_flow import knn_links


def infomap(
    indices: np.ndarray, similarities: np.ndarray, *, min_similarity: float, seed: int
) -> np.ndarray:
    """Return the two-level partition of the directed kNN graph, computed by ``infomap`` [1].

    Self links are not passed to the package, as in the released code of CALR.

    Args:
        indices: See :func:`unreid.clustering.map_equation.map_equation`.
        similarities: See :func:`unreid.clustering.map_equation.map_equation`.
        min_similarity: See :func:`unreid.clustering.map_equation.map_equation`.
        seed: Random seed >= 0; passed on as ``seed + 1``, because seeds of the package start at 1.

    Returns:
        (N,) int64 labels 0..C-1, numbered by first appearance. There is no noise: an image without
        links is a module of its own.

    Raises:
        ImportError: The package is not installed.
        ValueError: An argument has a wrong shape or is out of range.
        TypeError: An argument has a wrong type.
    """
    seed = check_integer("seed", seed, 0)
    try:
        from infomap import Infomap
    except ImportError as error:
        raise ImportError(
            "unreid.clustering.infomap needs the infomap package (GPL-3.0):"
            " pip install unreid[infomap]; unreid.clustering.map_equation does not need it"
        ) from error
    links = knn_links(indices, similarities, min_similarity).tocoo()
    labels = -1 - np.arange(links.shape[0], dtype=np.int64)
    if links.nnz:
        with warnings.catch_warnings():
            # Deprecated names; version 2.7 does not have their successors of version 3.
            warnings.simplefilter("ignore")
            search = Infomap(two_level=True, directed=True, silent=True, seed=seed + 1)
            search.add_links(zip(links.row.tolist(), links.col.tolist(), links.data.tolist()))
            search.run()
            for node, module in search.get_modules().items():
                labels[node] = module
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
