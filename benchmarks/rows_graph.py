"""Benchmark rows of kNN search, Jaccard distance, DBSCAN, re-ranking and ranking.

Notation: N images, D channels, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import dense_reference, peers
from benchmarks.harness import Floor, Row, Target
from benchmarks.inputs import clustered, no_real_features, real

K1, K2 = 30, 6
#: Number of rows of a large result that are compared between processes.
SAMPLED = 64


def _size(quick: bool) -> tuple[int, int]:
    return (3000, 512) if quick else (12936, 2048)


def _features(quick: bool) -> np.ndarray:
    """Return synthetic features after a warm-up call, so that imports are not timed."""
    import faiss

    from unreid.graph import jaccard_distance

    features, _ = clustered(*_size(quick))
    jaccard_distance(features[:400])
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features[:400])
    index.search(features[:400], K1)
    return features


def _knn_ours(features: np.ndarray) -> Any:
    from unreid.graph import knn

    return knn(features, K1)


def _knn_faiss(features: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    similarities, indices = index.search(features, K1)
    return indices, similarities


def _knn_agree(ours: Any, peer: Any) -> str:
    """Return the fraction of equal neighbour sets, and the largest difference of the others."""
    same = (np.sort(ours[0], axis=1) == np.sort(peer[0], axis=1)).all(axis=1)
    apart = np.abs(ours[1][:, -1] - peer[1][:, -1])[~same]
    ties = f", the others tied to {apart.max():.0e}" if apart.size else ""
    return f"{100 * same.mean():.2f} % of the sets equal{ties}"


def _knn_floor(quick: bool) -> Floor:
    num, channels = _size(quick)
    return Floor(num * (num - 1.0) * channels, 4.0 * num * channels, "half the product, float32")


def _with_neighbours(quick: bool) -> Any:
    features = _features(quick)
    return features, _knn_ours(features)


def _jaccard_ours(inputs: Any) -> Any:
    from unreid.graph import jaccard_distance

    return jaccard_distance(inputs[0], K1, K2, neighbours=inputs[1])


def _jaccard_dense(inputs: Any) -> Any:
    return dense_reference.jaccard(inputs[0], inputs[1][0], K1, K2)


def _all_ours(features: np.ndarray) -> Any:
    from unreid.graph import jaccard_distance

    return jaccard_distance(features, K1, K2)


def _all_dense(features: np.ndarray) -> Any:
    return dense_reference.jaccard(features, _knn_faiss(features)[0], K1, K2)


def _sample(_: Any, distance: Any) -> Any:
    """Return some rows as a dense array, and the mean number of entries below 1 per row."""
    rows = np.linspace(0, distance.shape[0] - 1, SAMPLED).astype(int)
    if isinstance(distance, np.ndarray):
        return distance[rows], (distance < 1.0).sum() / len(distance)
    part = distance[rows].tocoo()
    dense = np.ones(part.shape, dtype=np.float32)
    dense[part.row, part.col] = part.data
    return dense, distance.nnz / distance.shape[0]


def _sample_agree(ours: Any, peer: Any) -> str:
    return f"largest difference in {SAMPLED} rows {np.abs(ours[0] - peer[0]).max():.0e}"


def _sample_remark(digest: Any) -> str:
    return f"{digest[1]:,.0f} entries a row"


def _jaccard_floor(quick: bool) -> Floor:
    num, channels = _size(quick)
    # About 24 members and 1,800 results per row: read the members, write a column and a value.
    return Floor(num * 24.0 * 2 * channels, num * (24.0 * 4 * channels + 1800 * 8.0), "gathers")


def _both_floor(quick: bool) -> Floor:
    one, two = _knn_floor(quick), _jaccard_floor(quick)
    return Floor(one.flop + two.flop, one.bytes + two.bytes, "both of the above")


def _large(quick: bool) -> np.ndarray:
    _features(True)
    return clustered(4000, 512)[0] if quick else clustered(32621, 2048)[0]


def _cluster(features: np.ndarray) -> Any:
    from unreid.clustering.dbscan import dbscan
    from unreid.graph import jaccard_distance

    return dbscan(jaccard_distance(features, K1, K2, max_distance=0.6), 0.6, 4)


def _large_floor(quick: bool) -> Floor:
    num, channels = (4000, 512) if quick else (32621, 2048)
    return Floor(num * (num - 1.0) * channels, 4.0 * num * channels, "half the product, float32")


def _clusters(_: Any, labels: Any) -> Any:
    return int(labels.max()) + 1, float((labels < 0).mean())


def _clusters_remark(digest: Any) -> str:
    return f"{digest[0]:,} clusters, {100 * digest[1]:.1f} % noise"


def _huge(quick: bool) -> np.ndarray:
    import faiss

    _features(True)
    features = clustered(5000 if quick else 200000, 256)[0]
    faiss.Kmeans(4, 2).train(np.random.default_rng(0).random((200, 4), dtype=np.float32))
    return features


def _cluster_ivf(features: np.ndarray) -> Any:
    from unreid.clustering.dbscan import dbscan
    from unreid.graph import jaccard_distance, knn

    neighbours = knn(features, K1, method="ivf")
    distance = jaccard_distance(features, K1, K2, neighbours=neighbours, max_distance=0.6)
    return dbscan(distance, 0.6, 4), neighbours[0]


def _recall(features: np.ndarray, result: Any) -> Any:
    """Return the clusters, the noise, and recall@30 of 1,000 rows against exact search."""
    labels, indices = result
    rows = np.linspace(0, len(features) - 1, 1000).astype(int)
    exact = np.argpartition(-(features[rows] @ features.T), K1, axis=1)[:, :K1]
    hits = [len(np.intersect1d(a, b)) for a, b in zip(indices[rows], exact)]
    return (*_clusters(None, labels), float(np.mean(hits)) / K1)


def _recall_remark(digest: Any) -> str:
    return f"recall@30 {digest[2]:.4f}, {_clusters_remark(digest)}"


def _query_gallery(quick: bool) -> Any:
    from unreid.evaluation.rerank import k_reciprocal_rerank

    queries, gallery, channels = (400, 2600, 512) if quick else (2907, 16374, 2048)
    features, _ = clustered(queries + gallery, channels)
    k_reciprocal_rerank(features[:50], features[-400:])
    return features[:queries], features[queries:], peers.rerank().re_ranking


def _rerank_ours(inputs: Any) -> Any:
    from unreid.evaluation.rerank import k_reciprocal_rerank

    return k_reciprocal_rerank(inputs[0], inputs[1], 20, 6, 0.3)


def _rerank_peer(inputs: Any) -> Any:
    query, gallery, re_ranking = inputs
    products = (query @ gallery.T, query @ query.T, gallery @ gallery.T)
    for product in products:
        np.subtract(1.0, product, out=product)
    return re_ranking(*products, 20, 6, 0.3)


def _ranked(_: Any, final: np.ndarray) -> Any:
    rows = np.linspace(0, len(final) - 1, SAMPLED).astype(int)
    return final[rows]


def _ranked_agree(ours: Any, peer: Any) -> str:
    best = [np.argsort(x, axis=1, kind="stable")[:, :100] for x in (ours, peer)]
    same = 100 * (best[0] == best[1]).mean()
    return f"largest difference {np.abs(ours - peer).max():.0e}, {same:.2f} % of the first 100"


def _rerank_floor(quick: bool) -> Floor:
    num, channels = (3000, 512) if quick else (19281, 2048)
    return Floor(num * (num - 1.0) * channels, 4.0 * num * channels, "half the product, float32")


def _distances(quick: bool) -> Any:
    from unreid.evaluation.rank import evaluate_rank

    rng = np.random.default_rng(0)
    queries, gallery = (600, 3000) if quick else (3368, 15913)
    ids = [rng.integers(0, 750, n) for n in (queries, gallery)]
    cameras = [rng.integers(0, 6, n) for n in (queries, gallery)]
    distmat = rng.random((queries, gallery), dtype=np.float32)
    distmat -= 0.4 * (ids[0][:, None] == ids[1])
    arguments = (distmat, ids[0], ids[1], cameras[0], cameras[1])
    evaluate_rank(distmat[:100], ids[0][:100], ids[1], cameras[0][:100], cameras[1])
    return arguments, peers.rank_cython().evaluate_cy


def _rank_ours(inputs: Any) -> Any:
    from unreid.evaluation.rank import evaluate_rank

    return evaluate_rank(*inputs[0], 50)


def _rank_peer(inputs: Any) -> Any:
    return inputs[1](*inputs[0], 50, False)


def _scores(_: Any, result: Any) -> Any:
    cmc, precision, penalty = result
    return cmc, np.mean(precision, dtype=np.float64), np.mean(penalty, dtype=np.float64)


def _scores_agree(ours: Any, peer: Any) -> str:
    apart = max(np.abs(np.asarray(a) - b).max() for a, b in zip(ours, peer))
    return f"mAP, CMC and mINP differ by at most {apart:.0e}"


def _rank_floor(quick: bool) -> Floor:
    cells = 600.0 * 3000 if quick else 3368.0 * 15913
    return Floor(0.0, 4 * cells, "read the matrix once")


def _real(_: bool) -> Any:
    from unreid.graph import jaccard_distance

    features, pids, camids = real()
    jaccard_distance(features[:400])
    return features, pids, camids


def _label_real(inputs: Any, eps: float) -> Any:
    from unreid.clustering.dbscan import dbscan
    from unreid.graph import jaccard_distance

    return dbscan(jaccard_distance(inputs[0], K1, K2, max_distance=eps), eps, 4)


def _quality(inputs: Any, labels: Any) -> Any:
    from unreid.evaluation.label_quality import label_quality

    return label_quality(labels, inputs[1]).as_dict()


def _quality_remark(digest: Any) -> str:
    return (
        f"ARI {digest['ari']:.3f}, pairwise F {digest['f_score']:.3f},"
        f" {digest['num_clusters']:,} clusters, {digest['num_noise']:,} noise"
    )


def _quality_row(eps: float) -> Row:
    return Row(
        name=f"dbscan_real_{eps}",
        title=f"Jaccard + DBSCAN, eps {eps}, real features",
        size="12,936 x 128",
        quick_size="12,936 x 128",
        setup=_real,
        contenders={"ours": lambda inputs: _label_real(inputs, eps)},
        digest=_quality,
        remark=_quality_remark,
        unavailable=no_real_features,
    )


MARKET, SMALL = "12,936 x 2,048", "3,000 x 512"
DENSE = "dense SpCL formula"

ROWS = [
    Row(
        name="knn",
        title=f"kNN, k = {K1}",
        size=MARKET,
        quick_size=SMALL,
        setup=_features,
        contenders={"ours": _knn_ours, "faiss IndexFlatIP": _knn_faiss},
        targets=[Target("<= 0.65 x the time", "faiss IndexFlatIP", faster=1 / 0.65)],
        floor=_knn_floor,
        digest=lambda _, result: result,
        agree=_knn_agree,
    ),
    Row(
        name="jaccard",
        title="Jaccard, neighbours given",
        size=MARKET,
        quick_size=SMALL,
        setup=_with_neighbours,
        contenders={"ours": _jaccard_ours, DENSE: _jaccard_dense},
        targets=[Target(">= 10 x, <= 1/4 memory", DENSE, faster=10.0, smaller=4.0)],
        floor=_jaccard_floor,
        digest=_sample,
        agree=_sample_agree,
        remark=_sample_remark,
    ),
    Row(
        name="jaccard_knn",
        title="Jaccard with its kNN (dense: faiss)",
        size=MARKET,
        quick_size=SMALL,
        setup=_features,
        contenders={"ours": _all_ours, DENSE: _all_dense},
        targets=[Target(">= 4 x, <= 1/4 memory", DENSE, faster=4.0, smaller=4.0)],
        floor=_both_floor,
        digest=_sample,
        agree=_sample_agree,
        remark=_sample_remark,
    ),
    Row(
        name="jaccard_dbscan_32k",
        title="kNN + Jaccard + DBSCAN, eps 0.6",
        size="32,621 x 2,048",
        quick_size="4,000 x 512",
        setup=_large,
        contenders={"ours": _cluster},
        targets=[Target("< 3 GiB", mebibytes=3072.0)],
        floor=_large_floor,
        digest=_clusters,
        remark=_clusters_remark,
    ),
    Row(
        name="jaccard_dbscan_200k",
        title="ivf kNN + Jaccard + DBSCAN, eps 0.6",
        size="200,000 x 256",
        quick_size="5,000 x 256",
        setup=_huge,
        contenders={"ours": _cluster_ivf},
        targets=[Target("< 15 min, < 24 GiB", seconds=900.0, mebibytes=24576.0)],
        digest=_recall,
        remark=_recall_remark,
        repeats=1,
    ),
    Row(
        name="rerank",
        title="k-reciprocal re-ranking",
        size="(2,907 + 16,374) x 2,048",
        quick_size="(400 + 2,600) x 512",
        setup=_query_gallery,
        contenders={"ours": _rerank_ours, "fast-reid re_ranking": _rerank_peer},
        targets=[Target(">= 3 x, <= 1/4 memory", "fast-reid re_ranking", faster=3.0, smaller=4.0)],
        floor=_rerank_floor,
        digest=_ranked,
        agree=_ranked_agree,
        unavailable=peers.no_fastreid,
    ),
    Row(
        name="ranking",
        title="CMC, mAP, mINP from distances",
        size="3,368 x 15,913",
        quick_size="600 x 3,000",
        setup=_distances,
        contenders={"ours": _rank_ours, "fast-reid Cython": _rank_peer},
        targets=[Target(">= 5 x", "fast-reid Cython", faster=5.0)],
        floor=_rank_floor,
        digest=_scores,
        agree=_scores_agree,
        unavailable=peers.no_fastreid,
    ),
    _quality_row(0.5),
    _quality_row(0.6),
]
