"""Pseudo identities of any features, by each clusterer of :mod:`unreid.clustering` by its name.

Notation: N images, D channels, C clusters, k neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unreid.checks import check_choice, check_features, check_integer, nearest
from unreid.clustering import agglomerative, bottom_up, compact, dbscan, infomap, map_equation
from unreid.data.folder import FolderItem
from unreid.evaluation.label_quality import label_quality
from unreid.graph import jaccard_distance, knn
from unreid.graph.centering import center_cameras
from unreid.graph.smoothing import smooth_mutual
from unreid.graph.whitening import whiten_cameras
from unreid.inference.confidence import confidence
from unreid.inference.pictures import Cell, draw_grid, remove_sheets, save_picture
from unreid.inference.tables import write_csv

#: The clusterer when none is asked for.
DEFAULT = "dbscan"
#: ``agglomerative`` holds N (N - 1) / 2 doubles: 1.6 GB here.
MOST_IMAGES_IN_TREE = 20_000


@dataclass(frozen=True)
class Clusterer:
    """A way to labels.

    Attributes:
        run: (features (N, D), settings) -> (N,) labels.
        defaults: Its settings by name. 0 for ``clusters``: N // ``images_per_cluster``.
        idea: One line for a help text.
    """

    run: Callable[..., np.ndarray]
    defaults: Mapping[str, Any]
    idea: str


def _number(num: int, clusters: int, images_per_cluster: int) -> int:
    """C, from one setting or the other: at least 1, at most N."""
    wanted = clusters or num // check_integer("images_per_cluster", images_per_cluster, 1)
    return min(max(check_integer("clusters", wanted, 0), 1), num)


def _by_map_equation(
    features: np.ndarray, *, neighbours: int, min_similarity: float, seed: int
) -> np.ndarray:
    indices, similarities = knn(features, neighbours)
    return map_equation(indices, similarities, min_similarity=min_similarity, seed=seed)


def _by_infomap(
    features: np.ndarray, *, neighbours: int, min_similarity: float, seed: int
) -> np.ndarray:
    indices, similarities = knn(features, neighbours)
    return infomap(indices, similarities, min_similarity=min_similarity, seed=seed)


def _by_dbscan(
    features: np.ndarray, *, eps: float, min_samples: int, k1: int, k2: int
) -> np.ndarray:
    return dbscan(jaccard_distance(features, k1, k2, max_distance=eps), eps, min_samples)


def _by_agglomerative(
    features: np.ndarray, *, clusters: int, images_per_cluster: int, k1: int, k2: int
) -> np.ndarray:
    if len(features) > MOST_IMAGES_IN_TREE:
        raise ValueError(
            f"agglomerative holds all distances of {len(features)} images; it is for"
            f" {MOST_IMAGES_IN_TREE} at most: take bottom_up, which needs no such matrix"
        )
    number = _number(len(features), clusters, images_per_cluster)
    return agglomerative(jaccard_distance(features, k1, k2), number, "average")


def _by_bottom_up(
    features: np.ndarray, *, clusters: int, images_per_cluster: int
) -> np.ndarray:
    number = _number(len(features), clusters, images_per_cluster)
    return bottom_up(features, num_merges=len(features) - number)


_GRAPH = {"neighbours": 15, "min_similarity": 0.5, "seed": 0}
_JACCARD = {"k1": 30, "k2": 6}
_SIZE = {"clusters": 0, "images_per_cluster": 12}

CLUSTERERS: dict[str, Clusterer] = {
    "dbscan": Clusterer(
        _by_dbscan, {"eps": 0.5, "min_samples": 4, **_JACCARD},
        "density on the k-reciprocal Jaccard distance; finds the number, leaves noise",
    ),
    "map_equation": Clusterer(
        _by_map_equation, _GRAPH,
        "communities of the graph of neighbours; finds the number",
    ),
    "bottom_up": Clusterer(
        _by_bottom_up, _SIZE,
        "exact average linkage of features with SSE, to a given number; for many images",
    ),
    "agglomerative": Clusterer(
        _by_agglomerative, {**_SIZE, **_JACCARD},
        "average linkage on the Jaccard distance, to a given number; to 20,000 images",
    ),
    "infomap": Clusterer(
        _by_infomap, _GRAPH,
        "map_equation by the GPL package infomap (an extra)",
    ),
}


def cluster(
    features: np.ndarray, method: str, *, min_size: int = 2, **settings: Any
) -> np.ndarray:
    """Labels of images by one of :data:`CLUSTERERS`.

    Args:
        features: (N, D) float32, unit rows, N >= 1.
        method: Its name.
        min_size: Clusters of fewer images become noise, >= 1.
        settings: Some of the method's settings; its defaults stand for the others.

    Returns:
        (N,) int64, -1 for noise, else 0..C-1, the largest cluster first (of two as large, that
        whose first image comes first).

    Raises:
        ValueError: no such method, a setting that it does not have, or one out of range.
        ImportError: ``infomap`` is not installed.
    """
    check_features("features", features)
    check_choice("method", method, tuple(CLUSTERERS))
    defaults = CLUSTERERS[method].defaults
    for name in settings:
        if name not in defaults:
            raise ValueError(f"{method} has no setting {name!r}{nearest(name, defaults)};"
                             f" it has {', '.join(defaults)}")
    labels = CLUSTERERS[method].run(features, **{**defaults, **settings})
    return by_size(compact(labels, min_size))


def by_size(labels: np.ndarray) -> np.ndarray:
    """Labels (N,) numbered anew: the largest cluster is 0; ties keep their order."""
    if labels.max(initial=-1) < 0:
        return labels.copy()
    order = np.argsort(-np.bincount(labels[labels >= 0]), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return np.where(labels >= 0, rank[labels], -1)


@dataclass(frozen=True)
class Labelled:
    """Pictures with their pseudo identities.

    Attributes:
        items: N of them.
        labels: (N,) int64, -1 for none.
        sure: (N,) float32: :func:`unreid.inference.confidence.confidence`.
    """

    items: tuple[FolderItem, ...]
    labels: np.ndarray
    sure: np.ndarray

    @property
    def num_clusters(self) -> int:
        """C."""
        return int(self.labels.max(initial=-1)) + 1

    def write(self, path: str, root: str) -> None:
        """path (relative to ``root``), camera, identity, confidence; in the order of the paths."""
        write_csv(path, ("path", "camera", "identity", "confidence"), (
            (_relative(item.path, root), item.camera, int(label), f"{sure:.4f}")
            for item, label, sure in zip(self.items, self.labels, self.sure)))

    def draw_sheets(self, folder: str, root: str, most: int, columns: int = 10) -> int:
        """``cluster_0000.jpg`` for each cluster, the surest pictures first; how many.

        Sheets of an earlier call are deleted; other files in ``folder`` stay.
        """
        check_integer("--sheet-images", most, 1)
        remove_sheets(folder)
        for number in range(self.num_clusters):
            members = np.flatnonzero(self.labels == number)
            members = members[np.argsort(-self.sure[members], kind="stable")]
            cameras = len({self.items[i].camera for i in members})
            title = (f"identity {number}: {len(members)} pictures, {cameras} camera"
                     f"{'s' if cameras > 1 else ''}, confidence {self.sure[members].mean():.2f}")
            if len(members) > most:
                title += f"; the surest {most} are shown"
            cells = [Cell(self.items[i].path, (f"cam {self.items[i].camera}",
                                               f"{self.sure[i]:.2f}")) for i in members[:most]]
            save_picture(draw_grid(title, cells, columns),
                         os.path.join(folder, f"cluster_{number:04d}.jpg"))
        return self.num_clusters


def label_pictures(
    items: Sequence[FolderItem], features: np.ndarray, method: str, *, min_size: int = 2,
    settings: Mapping[str, Any] | None = None, shrinkage: float | None = None,
    whitening: float = 0.0, smoothing: int = 0,
) -> Labelled:
    """Cluster images after the transforms that a training's label step has.

    Args:
        items: N pictures.
        features: (N, D) float32 unit rows.
        method, min_size, settings: see :func:`cluster`.
        shrinkage: Camera centring (:mod:`unreid.graph.centering`), ``UNSUP.CENTER_SHRINKAGE``;
            None does not centre. Images of a single camera are not centred.
        whitening: Power of per-camera whitening (:mod:`unreid.graph.whitening`) after centring,
            ``UNSUP.WHITEN_CAMERAS``; 0 does not whiten.
        smoothing: Neighbours of neighbour smoothing (:mod:`unreid.graph.smoothing`),
            ``UNSUP.SMOOTH_NEIGHBOURS``; 0 does not smooth.

    Raises:
        ValueError: no picture; and see :func:`cluster`.
    """
    if not items:
        raise ValueError("no picture is left to label: none could be read")
    cameras = np.unique([item.camera for item in items], return_inverse=True)[1]
    if shrinkage is not None and cameras.max() > 0:
        features = whiten_cameras(features, cameras, power=whitening, mean_shrinkage=shrinkage) \
            if whitening else center_cameras(features, cameras, shrinkage)
    if smoothing and len(features) > 1:
        features = smooth_mutual(features, smoothing)
    labels = cluster(features, method, min_size=min_size, **(settings or {}))
    return Labelled(tuple(items), labels, confidence(features, labels))


def summary(labelled: Labelled) -> str:
    """Lines for a terminal: numbers, and scores where the ids are known."""
    items, labels = labelled.items, labelled.labels
    sizes = np.bincount(labels[labels >= 0]) if labelled.num_clusters else np.zeros(1, np.int64)
    cameras = np.unique([item.camera for item in items], return_inverse=True)[1]
    seen = len(set(zip(labels[labels >= 0].tolist(), cameras[labels >= 0].tolist())))
    lines = [
        f"{len(items)} pictures of {cameras.max() + 1} cameras: {labelled.num_clusters}"
        f" identities, {int((labels < 0).sum())} pictures in none",
        f"pictures of an identity: {sizes.min()} to {sizes.max()}, median {np.median(sizes):g};"
        f" cameras: {seen / max(labelled.num_clusters, 1):.1f}; mean confidence"
        f" {labelled.sure[labels >= 0].mean() if labelled.num_clusters else 0:.2f}",
    ]
    if all(item.pid is not None for item in items):
        pids = np.unique([str(item.pid) for item in items], return_inverse=True)[1]
        quality = label_quality(labels, pids).as_dict()
        lines.append(f"against the {pids.max() + 1} ids: " + ", ".join(
            f"{key} {quality[key]:.2f}"
            for key in ("precision", "recall", "f_score", "ari", "purity")))
    return "\n".join(lines)


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
