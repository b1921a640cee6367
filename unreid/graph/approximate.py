"""Approximate nearest neighbours by faiss, with exact scores and the order of the exact search.

[0] Johnson et al., Billion-scale similarity search with GPUs, 2017, arXiv:1702.08734 (faiss).
[1] Malkov & Yashunin, Hierarchical navigable small world graphs, 2016, arXiv:1603.09320.

Notation: N images, D channels, K neighbours, L inverted lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unreid.kernels import kernel, knn_reference, num_threads

#: Links per node of the HNSW graph, and efConstruction.
LINKS, BUILD_BEAM = 32, 80
#: Training images of the k-means of IVF, per inverted list.
TRAINING_PER_LIST = 64


def _ivf(faiss: Any, features: np.ndarray, num_probes: int, seed: int) -> Any:
    """Return an inverted file with about 4 sqrt(N) lists over exact vectors."""
    num, channels = features.shape
    num_lists = max(1, min(num // 8, int(4 * np.sqrt(num))))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(channels), channels, num_lists, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed = seed
    index.cp.max_points_per_centroid = TRAINING_PER_LIST
    index.cp.min_points_per_centroid = 1
    index.nprobe = min(num_probes, num_lists)
    index.train(features)
    index.add(features)
    return index


def _hnsw(faiss: Any, features: np.ndarray, k: int, num_probes: int) -> Any:
    """Return an HNSW index; one thread builds it, so that the order of insertion is fixed."""
    index = faiss.IndexHNSWFlat(features.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_BEAM
    index.hnsw.efSearch = max(num_probes, 2 * k)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index.add(features)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def approximate(
    features: np.ndarray, k: int, method: str, num_probes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the approximate neighbours (N, k); rows with missing results are searched exactly.

    Args:
        features: (N, D) float32 unit rows.
        k: Neighbours, the image itself included, <= N.
        method: "ivf" or "hnsw".
        num_probes: Inverted lists to visit, or efSearch.
        seed: Seed of the k-means of "ivf".

    Returns:
        Indices int32 and similarities float32 (N, k): self first, then descending, ties by
        index. The similarities are those of the exact search.
    """
    import faiss

    num = len(features)
    if method == "ivf":
        index = _ivf(faiss, features, num_probes, seed)
    else:
        index = _hnsw(faiss, features, k, num_probes)
    found = index.search(features, k)[1]
    del index
    own = np.arange(num)
    absent = (found != own[:, None]).all(axis=1)
    found[absent, -1] = own[absent]
    short = np.flatnonzero((found < 0).any(axis=1))
    if short.size:
        whole = faiss.IndexFlatIP(features.shape[1])
        whole.add(features)
        found[short] = whole.search(features[short], k)[1]
        lost = short[(found[short] != short[:, None]).all(axis=1)]
        found[lost, -1] = lost
    found.sort(axis=1)
    pair_products = (kernel("knn") or knn_reference).pair_products
    scores = pair_products(features, features, np.repeat(own, k), found.reshape(-1), num_threads())
    scores = scores.reshape(num, k)
    ranked = np.where(found == own[:, None], np.inf, scores)
    order = np.argsort(-ranked, axis=1, kind="stable")
    return (
        np.take_along_axis(found, order, 1).astype(np.int32),
        np.take_along_axis(scores, order, 1),
    )
