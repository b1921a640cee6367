"""Benchmark rows of merging, map equation, and label quality of each clusterer.

Notation: N images, D channels, C clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import dense_merging
from benchmarks.harness import Floor, Row, Target
from benchmarks.inputs import clustered, no_real_features, real

#: Number of neighbours in CALR's graph, and the seed.
NEIGHBOURS, SEED = 15, 0
#: Number of clusters left after HCT's thirteen passes of 7 %.
LEFT = 1171
BUC_WEIGHT, BUC_SHARE = 0.003, 0.05


def _size(quick: bool) -> tuple[int, int]:
    return (3000, 512) if quick else (12936, 2048)


def _features(quick: bool) -> np.ndarray:
    """Return synthetic features after a warm-up call, so that imports are not timed."""
    import faiss

    from unreid.clustering import bottom_up

    features, _ = clustered(*_size(quick))
    bottom_up(features[:400], num_merges=100)
    bottom_up(features[:400], num_merges=100, update="pass")
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features[:400])
    index.search(features[:400], 30)
    return features


def _left(num: int) -> int:
    return LEFT * num // 12936


def _tree(features: np.ndarray) -> np.ndarray:
    from unreid.clustering import bottom_up

    return bottom_up(features, num_merges=len(features) - _left(len(features)))


def _search(features: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    return index.search(features, 30)


def _pass_dense(features: np.ndarray) -> np.ndarray:
    num = len(features)
    return dense_merging.merge_pass(features, np.arange(num), int(BUC_SHARE * num), BUC_WEIGHT)


def _pass_ours(features: np.ndarray) -> np.ndarray:
    from unreid.clustering import bottom_up

    return bottom_up(
        features, num_merges=int(BUC_SHARE * len(features)), linkage="minimum",
        regularizer="size", weight=BUC_WEIGHT, update="pass",
    )  # fmt: skip


def _pass_average(features: np.ndarray) -> np.ndarray:
    from unreid.clustering import bottom_up

    return bottom_up(features, num_merges=int(0.07 * len(features)), update="pass")


def _labels(features: np.ndarray, result: Any) -> Any:
    """Return renumbered labels for comparison, or None for a community search."""
    from unreid.clustering import compact

    return None if isinstance(result, tuple) else compact(result)


def _same(ours: Any, peer: Any) -> str:
    if peer is None:
        return ""
    if len(ours) != len(peer) or ours.max() != peer.max():
        return ""
    return f"{100 * (ours == peer).mean():.2f} % of the labels equal"


def _sizes(labels: Any) -> str:
    return f"{labels.max() + 1:,} clusters, largest {np.bincount(labels).max()}"


def _product_floor(quick: bool) -> Floor:
    num, channels = _size(quick)
    return Floor(num * (num - 1.0) * channels, 4.0 * num * channels, "half the product, float32")


def _graph(quick: bool) -> Any:
    from unreid.clustering import map_equation
    from unreid.graph import knn

    indices, similarities = knn(real()[0], NEIGHBOURS)
    few = np.minimum(indices[:300], 299), similarities[:300]
    map_equation(*few, min_similarity=0.5, seed=SEED)
    try:
        from unreid.clustering import infomap

        infomap(*few, min_similarity=0.5, seed=SEED)
    except ImportError:
        pass  # the contender raises this error itself
    return indices, similarities


def _modules(name: str, min_similarity: float) -> Any:
    def run(inputs: Any) -> np.ndarray:
        from unreid import clustering

        search = getattr(clustering, name)
        return search(*inputs, min_similarity=min_similarity, seed=SEED)

    return run


def _length(min_similarity: float) -> Any:
    def digest(inputs: Any, labels: np.ndarray) -> Any:
        from unreid.clustering.map_equation import codelength

        bits = codelength(*inputs, labels, min_similarity=min_similarity)
        return bits, int(labels.max()) + 1

    return digest


def _bits(digest: Any) -> str:
    return f"{digest[0]:.4f} bits, {digest[1]:,} modules"


def _bits_beside(ours: Any, peer: Any) -> str:
    return f"{_bits(peer)}; ours is {100 * (ours[0] / peer[0] - 1):+.2f} %"


def _real(centred: bool) -> Any:
    def setup(quick: bool) -> Any:
        from unreid.graph.centering import center_cameras

        features, pids, camids = real()
        return (center_cameras(features, camids) if centred else features), pids

    return setup


def _clusterer(name: str, **options: Any) -> Any:
    """Return a contender: ``bottom_up`` to ``LEFT`` clusters, or a community search."""

    def run(inputs: Any) -> np.ndarray:
        from unreid import clustering
        from unreid.graph import knn

        if name == "bottom_up":
            passes = options.get("passes", 1)
            num_merges = (len(inputs[0]) - LEFT) // passes
            return clustering.bottom_up(inputs[0], num_merges=num_merges, **options)
        graph = knn(inputs[0], NEIGHBOURS)
        return getattr(clustering, name)(*graph, seed=SEED, **options)

    return run


def _quality(inputs: Any, labels: np.ndarray) -> Any:
    from unreid.clustering import compact
    from unreid.evaluation.label_quality import label_quality

    return label_quality(compact(labels), inputs[1]), int(labels.max()) + 1


def _quality_words(digest: Any) -> str:
    q, count = digest
    return (
        f"{count:,} clusters; P {q.precision:.3f} R {q.recall:.3f} F {q.f_score:.3f},"
        f" ARI {q.ari:.3f}"
    )


CLUSTERERS = {
    "ours": _clusterer("bottom_up"),
    "bottom_up, weight .03": _clusterer("bottom_up", weight=0.03),
    "bottom_up, average alone": _clusterer("bottom_up", regularizer="none", weight=0.0),
    "bottom_up, ward": _clusterer("bottom_up", linkage="ward", regularizer="none", weight=0.0),
    "bottom_up, 13 passes": _clusterer("bottom_up", passes=13, update="pass"),
    "BUC, 13 passes": _clusterer(
        "bottom_up", passes=13, update="pass", linkage="minimum", regularizer="size",
        weight=BUC_WEIGHT,
    ),
    "map_equation at .5": _clusterer("map_equation", min_similarity=0.5),
    "map_equation at .6": _clusterer("map_equation", min_similarity=0.6),
    "infomap at .5": _clusterer("infomap", min_similarity=0.5),
    "infomap at .6": _clusterer("infomap", min_similarity=0.6),
}  # fmt: skip

ROWS = [
    Row(
        name="exact_tree",
        title=f"exact tree, average + .01 SSE, cut at {LEFT:,}",
        size="12,936 x 2048",
        quick_size="3,000 x 512",
        setup=_features,
        contenders={"ours": _tree, "one kNN (faiss)": _search, "BUC, one pass": _pass_dense},
        targets=(
            Target("<= 3 x one kNN", "one kNN (faiss)", faster=1 / 3),
            Target("<= 1/5 of BUC's memory", "BUC, one pass", smaller=5),
        ),
        floor=_product_floor,
        digest=_labels,
        remark=_sizes,
    ),
    Row(
        name="merge_pass",
        title="one pass, minimum + .003 size",
        size="12,936 x 2048",
        quick_size="3,000 x 512",
        setup=_features,
        contenders={"ours": _pass_ours, "BUC, dense": _pass_dense},
        targets=(Target(">= 8 x faster", "BUC, dense", faster=8),),
        floor=_product_floor,
        digest=_labels,
        agree=_same,
        remark=_sizes,
    ),
    Row(
        name="merge_pass_average",
        title="one pass, average + .01 SSE",
        size="12,936 x 2048",
        quick_size="3,000 x 512",
        setup=_features,
        contenders={"ours": _pass_average},
        floor=_product_floor,
        digest=_labels,
        remark=_sizes,
    ),
    *(
        Row(
            name=f"map_equation_{int(10 * lowest)}",
            title=f"map equation, kNN 15 at {lowest}",
            size="12,936 real images",
            quick_size="12,936 real images",
            setup=_graph,
            contenders={
                "ours": _modules("map_equation", lowest),
                "infomap package": _modules("infomap", lowest),
            },
            targets=(Target("not slower", "infomap package", faster=1),),
            digest=_length(lowest),
            agree=_bits_beside,
            remark=_bits,
            unavailable=no_real_features,
        )
        for lowest in (0.5, 0.6, 0.7)
    ),
    *(
        Row(
            name=f"labels_{name}",
            title=f"label quality, {words}; ours = bottom_up, average + .01 SSE",
            size="12,936 x 128 real",
            setup=_real(name == "centred"),
            contenders=CLUSTERERS,
            digest=_quality,
            agree=lambda ours, peer: _quality_words(peer),
            remark=_quality_words,
            repeats=1,
            unavailable=no_real_features,
        )
        for name, words in (("raw", "as extracted"), ("centred", "cameras centred"))
    ),
]
