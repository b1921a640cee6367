"""Registry of clusterers; each is a dataclass of its parameters.

``CLUSTERER_REGISTRY.get("dbscan")(eps=0.5)(neighbours)`` returns the labels of the images of
``neighbours``. Parameters have the same names here, in ``UNSUP.CLUSTER`` (upper case) and as
options of ``label``. Defaults are declared here only.

Notation: N images, C clusters, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from unreid.checks import check_integer, nearest
from unreid.clustering.agglomerative import agglomerative
from unreid.clustering.bottom_up import bottom_up, merge_tree
from unreid.clustering.cut import cut_by_silhouette
from unreid.clustering.dbscan import dbscan
from unreid.clustering.infomap import infomap
from unreid.clustering.map_equation import map_equation
from unreid.labels.neighbours import Neighbours
from unreid.registry import Registry

#: ``clusterer = CLUSTERER_REGISTRY.get(cfg.UNSUP.CLUSTER.NAME)(...)``
CLUSTERER_REGISTRY = Registry("clusterer", "UNSUP.CLUSTER.NAME")

#: Maximum N of ``Agglomerative``, which stores N (N - 1) / 2 doubles: 1.6 GB for this N.
MAX_DENSE_IMAGES = 20_000

#: Parameters that are keys of ``UNSUP`` themselves, because other parts read them, too.
SHARED_KEYS = {
    "k": "UNSUP.KNN.K",
    "min_similarity": "UNSUP.KNN.MIN_SIMILARITY",
    "k1": "UNSUP.JACCARD.K1",
    "k2": "UNSUP.JACCARD.K2",
    "seed": "UNSUP.SEED",
}


class Clusterer:
    """Base class: a frozen dataclass of parameters that maps neighbours to labels.

    Attributes:
        summary: One line for a help text.
    """

    summary: ClassVar[str] = ""

    def __call__(self, neighbours: Neighbours) -> np.ndarray:
        """Return (N,) int64 labels, -1 for noise; ids may have gaps."""
        raise NotImplementedError


@CLUSTERER_REGISTRY.register("dbscan")
@dataclass(frozen=True)
class DBSCAN(Clusterer):
    """DBSCAN on the k-reciprocal Jaccard distance."""

    eps: float = 0.6
    min_samples: int = 4
    k1: int = 30
    k2: int = 6
    summary = "density on the k-reciprocal Jaccard distance; finds the number, leaves noise"

    def __call__(self, neighbours: Neighbours) -> np.ndarray:
        distance = neighbours.jaccard(self.k1, self.k2, max_distance=self.eps)
        return dbscan(distance, self.eps, self.min_samples)


@CLUSTERER_REGISTRY.register("map_equation")
@dataclass(frozen=True)
class MapEquation(Clusterer):
    """Communities of the kNN graph by the map equation.

    ``k`` includes the image itself; ``min_similarity`` is the minimum cosine of an edge.
    """

    k: int = 15
    min_similarity: float = 0.5
    seed: int = 0
    summary = "communities of the graph of neighbours; finds the number"

    def __call__(self, neighbours: Neighbours) -> np.ndarray:
        graph = neighbours.knn(self.k)
        return map_equation(*graph, min_similarity=self.min_similarity, seed=self.seed)


@CLUSTERER_REGISTRY.register("infomap")
@dataclass(frozen=True)
class Infomap(MapEquation):
    """The same communities by the GPL package infomap."""

    summary = "map_equation by the GPL package infomap (an extra)"

    def __call__(self, neighbours: Neighbours) -> np.ndarray:
        graph = neighbours.knn(self.k)
        return infomap(*graph, min_similarity=self.min_similarity, seed=self.seed)


@CLUSTERER_REGISTRY.register("bottom_up")
@dataclass(frozen=True)
class BottomUp(Clusterer):
    """Bottom-up merging of features by the regularised distance of SphereCluster.

    ``num_clusters`` 0 means N // ``images_per_cluster``; -1 means the level of the merge tree with
    the best silhouette. See :func:`unreid.clustering.bottom_up.bottom_up` for the other parameters.
    """

    num_clusters: int = 0
    images_per_cluster: int = 12
    linkage: str = "average"
    regularizer: str = "sse"
    weight: float = 0.01
    update: str = "exact"
    pass_rule: str = "union"
    summary = "merging of features by average linkage with SSE, to a given number"

    def __call__(self, neighbours: Neighbours) -> np.ndarray:
        features = neighbours.features
        if check_integer("num_clusters", self.num_clusters, -1) < 0:
            return cut_by_silhouette(features, merge_tree(features, **self._rule())[0])[0]
        wanted = _count(len(features), self.num_clusters, self.images_per_cluster)
        return self.merge(features, len(features) - wanted)

    def merge(self, features: np.ndarray, num_merges: int, **options: Any) -> np.ndarray:
        """Return the labels after ``num_merges`` merges; ``num_clusters`` is ignored.

        Args:
            features: (N, D) floating.
            num_merges: Merges per pass, >= 0.
            **options: ``passes``, ``labels``, ``sphere`` of
                :func:`unreid.clustering.bottom_up.bottom_up`.
        """
        return bottom_up(
            features,
            num_merges=num_merges,
            update=self.update,
            pass_rule=self.pass_rule,
            **self._rule(),
            **options,
        )

    def _rule(self) -> dict[str, Any]:
        return {"linkage": self.linkage, "regularizer": self.regularizer, "weight": self.weight}


@CLUSTERER_REGISTRY.register("agglomerative")
@dataclass(frozen=True)
class Agglomerative(Clusterer):
    """Linkage on the k-reciprocal Jaccard distance, to a given number of clusters.

    ``num_clusters`` 0 means N // ``images_per_cluster``.
    """

    num_clusters: int = 0
    images_per_cluster: int = 12
    linkage: str = "average"
    k1: int = 30
    k2: int = 6
    summary = "average linkage on the Jaccard distance, to a given number; to 20,000 images"

    def __call__(self, neighbours: Neighbours) -> np.ndarray:
        num = len(neighbours)
        if num > MAX_DENSE_IMAGES:
            raise ValueError(
                f"agglomerative stores the distances of all pairs; it must have at most"
                f" {MAX_DENSE_IMAGES} images, got {num}; use bottom_up, which stores no matrix"
            )
        wanted = _count(num, self.num_clusters, self.images_per_cluster)
        return agglomerative(neighbours.jaccard(self.k1, self.k2), wanted, self.linkage)


def _count(num: int, num_clusters: int, images_per_cluster: int) -> int:
    """Return C in 1..N, from ``num_clusters``, or from ``images_per_cluster`` if it is 0."""
    per_cluster = check_integer("images_per_cluster", images_per_cluster, 1)
    wanted = check_integer("num_clusters", num_clusters, 0) or num // per_cluster
    return min(max(wanted, 1), num)


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a clusterer: name -> default.

    Raises:
        KeyError: The clusterer does not exist; lists the existing ones.
    """
    return {field.name: field.default for field in fields(CLUSTERER_REGISTRY.get(name))}


def build_clusterer(name: str, **settings: Any) -> Clusterer:
    """Return a clusterer with the given parameters; defaults are used for the others.

    Raises:
        KeyError: The clusterer does not exist.
        ValueError: The clusterer has no parameter of this name.
    """
    known = parameters(name)
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"{name} has no setting {setting!r}{nearest(setting, known)};"
                f" it has {', '.join(known)}"
            )
    return CLUSTERER_REGISTRY.get(name)(**settings)


def clusterer_from_config(cfg: Any) -> Clusterer:
    """Return the clusterer of ``UNSUP.CLUSTER``."""
    unsup = cfg.UNSUP
    name = unsup.CLUSTER.NAME
    shared = {
        "k": unsup.KNN.K,
        "min_similarity": unsup.KNN.MIN_SIMILARITY,
        "k1": unsup.JACCARD.K1,
        "k2": unsup.JACCARD.K2,
        "seed": unsup.SEED,
    }
    own = unsup.CLUSTER.get(name.upper(), {})
    return build_clusterer(
        name,
        **{key: shared[key] if key in shared else own[key.upper()] for key in parameters(name)},
    )


def describe_clusterer(cfg: Any) -> str:
    """Return the config keys that determine the number of clusters, for error messages."""
    chosen, name = clusterer_from_config(cfg), cfg.UNSUP.CLUSTER.NAME
    given = [
        f"{SHARED_KEYS.get(f.name, f'UNSUP.CLUSTER.{name.upper()}.{f.name.upper()}')}"
        f" {getattr(chosen, f.name)}"
        for f in fields(chosen)  # type: ignore[arg-type]
        if f.name != "seed"
    ]
    return (
        f"UNSUP.CLUSTER.NAME {name} ({', '.join(given)}),"
        f" UNSUP.CLUSTER.MIN_SIZE {cfg.UNSUP.CLUSTER.MIN_SIZE}"
    )
