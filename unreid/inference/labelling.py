"""Assign pseudo identities to the images of a folder by the label step of training.

Notation: N images, D channels, C clusters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tabulate import tabulate

from unreid.checks import check_integer
from unreid.clustering.partition import compact
from unreid.data.folder import FolderItem
from unreid.evaluation.label_quality import label_quality
from unreid.inference.confidence import confidence
from unreid.inference.image_grid import Cell, draw_grid, name_lines, remove_sheets, save_image
from unreid.inference.tables import write_csv
from unreid.labels.auto import Trial, select, try_settings
from unreid.labels.clusterers import build_clusterer, parameters
from unreid.labels.neighbours import Neighbours, Search
from unreid.labels.transforms import CenterCameras, Transform, WhitenCameras, apply_transforms
from unreid.structures import FeatureBank

#: Default clusterer.
DEFAULT = "dbscan"
#: Instead of a clusterer: several are tried, see :mod:`unreid.labels.auto`.
AUTO = "auto"


def cluster(
    neighbours: Neighbours, method: str, *, min_size: int = 2, **settings: Any
) -> np.ndarray:
    """Return cluster labels of images.

    Args:
        neighbours: Neighbours of (N, D) features, N >= 1.
        method: A name in :data:`unreid.labels.clusterers.CLUSTERER_REGISTRY`.
        min_size: Clusters with fewer images become noise, >= 1.
        **settings: Parameters of the clusterer; defaults are used for the others.

    Returns:
        (N,) int64 labels: -1 for noise, else 0..C-1 by decreasing cluster size. Clusters of equal
        size are ordered by their first image.

    Raises:
        KeyError: The method does not exist; lists the methods.
        ValueError: A parameter is unknown or out of range.
        ImportError: ``infomap`` is not installed.
    """
    clusterer = build_clusterer(method, **settings)
    return by_size(compact(clusterer(neighbours), min_size))


def by_size(labels: np.ndarray) -> np.ndarray:
    """Return labels (N,) renumbered by decreasing cluster size; ties keep their order."""
    if labels.max(initial=-1) < 0:
        return labels.copy()
    order = np.argsort(-np.bincount(labels[labels >= 0]), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return np.where(labels >= 0, rank[labels], -1)


@dataclass(frozen=True)
class Labelled:
    """Images with their pseudo identities.

    Attributes:
        items: N images.
        labels: (N,) int64, -1 is unassigned.
        sure: (N,) float32 confidence, see :func:`unreid.inference.confidence.confidence`.
        method: Clusterer of the labels.
        settings: All of its parameters.
        trials: What :data:`AUTO` tried; empty otherwise.
    """

    items: tuple[FolderItem, ...]
    labels: np.ndarray
    sure: np.ndarray
    method: str = DEFAULT
    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    @property
    def num_clusters(self) -> int:
        """Number of clusters C."""
        return int(self.labels.max(initial=-1)) + 1

    def write(self, path: str, root: str) -> None:
        """Write a CSV with path (relative to ``root``), camera, identity, confidence."""
        write_csv(
            path,
            ("path", "camera", "identity", "confidence"),
            (
                (_relative(item.path, root), item.camera, int(label), f"{sure:.4f}")
                for item, label, sure in zip(self.items, self.labels, self.sure)
            ),
        )

    def draw_sheets(self, folder: str, root: str, most: int, columns: int = 10) -> int:
        """Draw ``cluster_0000.jpg`` for each cluster, by decreasing confidence.

        Below each image are its row of the CSV (as spreadsheets count, the header is row 1),
        confidence, camera and file name. Sheets of an earlier call are deleted; other files in
        ``folder`` stay.

        Args:
            folder: Output folder.
            root: Names are relative to it.
            most: Maximum number of images on a sheet, >= 1.
            columns: Images per row.

        Returns:
            Number of sheets.
        """
        check_integer("--sheet-images", most, 1)
        remove_sheets(folder)
        for number in range(self.num_clusters):
            members = np.flatnonzero(self.labels == number)
            members = members[np.argsort(-self.sure[members], kind="stable")]
            cameras = len({self.items[i].camera for i in members})
            title = (
                f"identity {number}: {len(members)} images, {cameras} camera"
                f"{'s' if cameras > 1 else ''}, confidence {self.sure[members].mean():.2f}"
            )
            if len(members) > most:
                title += f"; the {most} most confident are shown"
            cells = [
                Cell(
                    self.items[i].path,
                    (
                        f"row {i + 2}: {self.sure[i]:.2f}",
                        f"cam {self.items[i].camera}",
                        *name_lines(_relative(self.items[i].path, root)),
                    ),
                )
                for i in members[:most]
            ]
            save_image(
                draw_grid(title, cells, columns), os.path.join(folder, f"cluster_{number:04d}.jpg")
            )
        return self.num_clusters


def label_images(
    items: Sequence[FolderItem],
    features: np.ndarray,
    method: str,
    *,
    min_size: int = 2,
    settings: Mapping[str, Any] | None = None,
    transforms: Sequence[Transform] = (),
    search: Search | None = None,
) -> Labelled:
    """Cluster images and compute the confidence of each.

    Args:
        items: N images.
        features: (N, D) float32 unit rows.
        method: See :func:`cluster`; or :data:`AUTO`, which tries several and takes no settings.
        min_size: See :func:`cluster`.
        settings: Parameters of the clusterer, see :func:`cluster`.
        transforms: Feature transforms before clustering, see
            :func:`unreid.labels.transforms.transforms_from_config`. Camera transforms are skipped
            if all images are of one camera.
        search: Neighbour search; None for exact search on the CPU.

    Raises:
        ValueError: There are no images; see also :func:`cluster`.
        KeyError: See :func:`cluster`.
    """
    if not items:
        raise ValueError("there are no images to label: none could be read")
    cameras = np.unique([item.camera for item in items], return_inverse=True)[1]
    if cameras.max() == 0:
        transforms = [t for t in transforms if not isinstance(t, (CenterCameras, WhitenCameras))]
    bank = apply_transforms(FeatureBank(features, cameras.astype(np.int64)), transforms)
    neighbours = (search or Search())(bank.features)
    trials: tuple[Trial, ...] = ()
    chosen: Mapping[str, Any] = settings or {}
    if method == AUTO:
        trials = tuple(try_settings(neighbours, min_size=min_size))
        best = select(trials)
        method, chosen, labels = best.method, best.settings, by_size(best.labels)
    else:
        labels = cluster(neighbours, method, min_size=min_size, **chosen)
    sure = confidence(bank.features, labels)
    return Labelled(tuple(items), labels, sure, method, {**parameters(method), **chosen}, trials)


def trials_table(labelled: Labelled) -> str:
    """Return what ``auto`` tried as a table; the selected trial is marked by ``*``."""
    cameras = np.unique([item.camera for item in labelled.items], return_inverse=True)[1]
    rows = []
    best = select(labelled.trials)
    for trial in labelled.trials:
        assigned = trial.labels >= 0
        sizes = np.bincount(trial.labels[assigned])
        seen = len(set(zip(trial.labels[assigned].tolist(), cameras[assigned].tolist())))
        rows.append(
            [
                "*" if trial is best else "",
                trial.method,
                " ".join(f"--{k.replace('_', '-')} {v}" for k, v in trial.settings.items()),
                len(sizes),
                100 * float(1 - assigned.mean()),
                int(sizes.max(initial=0)),
                seen / max(len(sizes), 1),
                f"{trial.score:.3f}",
            ]
        )
    names = ["", "method", "setting", "identities", "unassigned %", "largest", "cameras", "score"]
    return tabulate(rows, names, floatfmt=".1f", disable_numparse=[1, 2, 7])


def summary(labelled: Labelled) -> str:
    """Return a text summary: counts, and clustering metrics if all ids are known."""
    items, labels = labelled.items, labelled.labels
    sizes = np.bincount(labels[labels >= 0]) if labelled.num_clusters else np.zeros(1, np.int64)
    cameras = np.unique([item.camera for item in items], return_inverse=True)[1]
    seen = len(set(zip(labels[labels >= 0].tolist(), cameras[labels >= 0].tolist())))
    lines = [
        f"{len(items)} images of {cameras.max() + 1} cameras: {labelled.num_clusters}"
        f" identities, {int((labels < 0).sum())} images unassigned",
        f"images per identity: {sizes.min()} to {sizes.max()}, median {np.median(sizes):g};"
        f" cameras per identity: {seen / max(labelled.num_clusters, 1):.1f}; mean confidence"
        f" {labelled.sure[labels >= 0].mean() if labelled.num_clusters else 0:.2f}",
    ]
    if all(item.pid is not None for item in items):
        pids = np.unique([str(item.pid) for item in items], return_inverse=True)[1]
        quality = label_quality(labels, pids).as_dict()
        lines.append(
            f"against the {pids.max() + 1} ids: "
            + ", ".join(
                f"{key} {quality[key]:.2f}"
                for key in ("precision", "recall", "f_score", "ari", "purity")
            )
        )
    return "\n".join(lines)


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
