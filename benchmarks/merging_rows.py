"""Measurements of ``merging_quality.py``: presets over their passes, and sweeps at fixed sizes.

Notation: N images, K clusters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unreid.clustering import bottom_up, compact
from unreid.clustering.bottom_up import cut_tree, merge_tree
from unreid.evaluation.label_quality import LabelQuality, label_quality
from unreid.graph.centering import camera_means, center_cameras
from unreid.graph.smoothing import smooth_mutual
from unreid.graph.whitening import whiten_cameras

#: Numbers of clusters: 12,936 images after 11, 12 and 13 passes at mp .07, and 751 identities.
SIZES = (2981, 2076, 1171, 751)
LAMBDAS = (0.0, 0.003, 0.01, 0.02, 0.03, 0.1)
FORMS = {"of both, SSE(A) + SSE(B)": "sse", "of the union, SSE(A u B)": "sse_union",
         "its increase": "sse_increase"}  # fmt: skip


@dataclass(frozen=True)
class Images:
    """(N, D) float32 unit rows; (N,) person ids, used for scores only; (N,) cameras from 0."""

    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray

    def prepared(self, how: str) -> np.ndarray:
        """Return the features after the preparation named ``how``."""
        return PREPARATIONS[how](self.features, self.camids)


def _smoothed(features: np.ndarray, camids: np.ndarray) -> np.ndarray:
    return smooth_mutual(whiten_cameras(features, camids))


PREPARATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "as extracted": lambda features, camids: features,
    "centred": center_cameras,
    "smoothed (mutual 12)": lambda x, camids: smooth_mutual(x),
    "centred, smoothed": lambda x, camids: smooth_mutual(center_cameras(x, camids)),
    "whitened": whiten_cameras,
    "whitened, smoothed": _smoothed,
}


@dataclass(frozen=True)
class Preset:
    """Settings of one method, as in its config."""

    name: str
    linkage: str
    regularizer: str
    weight: float
    update: str
    rate: float
    passes: int
    prepared: str = "as extracted"
    pass_rule: str = "union"


FAMILY = (
    Preset("BUC", "minimum", "size", 0.003, "pass", 0.05, 16),
    Preset("DBC", "average", "dispersion", 0.1, "pass", 0.05, 16, pass_rule="skip"),
    Preset("DBC, chains allowed", "average", "dispersion", 0.1, "pass", 0.05, 16),
    Preset("E-cluster", "energy", "none", 0.0, "pass", 0.05, 16),
    Preset("HCT", "average", "none", 0.0, "pass", 0.07, 13),
    Preset("SphereCluster", "average", "sse", 0.02, "exact", 0.07, 13),
    Preset("SphereCluster, centred", "average", "sse", 0.02, "exact", 0.07, 13, "centred"),
    Preset("SphereCluster, whitened", "average", "sse", 0.01, "exact", 0.07, 13, "whitened"),
    Preset("SphereCluster, whitened, smoothed", "average", "sse", 0.02, "exact", 0.07, 13,
           "whitened, smoothed"),
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Label quality after a pass, and the seconds since the start."""

    number: int
    quality: LabelQuality
    largest: int
    seconds: float


def score(images: Images, labels: np.ndarray) -> tuple[LabelQuality, int]:
    """Return the label quality and the size of the largest cluster."""
    quality = label_quality(labels, images.pids, images.camids)
    return quality, int(np.bincount(labels[labels >= 0], minlength=1).max())


def history(images: Images, preset: Preset) -> list[Step]:
    """Return label quality after each pass of a preset, on frozen features."""
    start = time.perf_counter()
    features = images.prepared(preset.prepared)
    merges = int(preset.rate * len(features))
    rule: dict[str, Any] = {
        "linkage": preset.linkage, "regularizer": preset.regularizer, "weight": preset.weight
    }  # fmt: skip
    steps, labels = [], np.arange(len(features))
    tree: Any = None
    if preset.update == "exact":
        tree, _ = merge_tree(features, num_merges=merges * preset.passes, **rule)
    for number in range(1, preset.passes + 1):
        if tree is not None:
            labels = cut_tree(tree, merges * number, len(features))
        else:
            labels = bottom_up(features, num_merges=merges, update="pass", labels=labels,
                               pass_rule=preset.pass_rule, **rule)  # fmt: skip
        steps.append(Step(number, *score(images, labels), time.perf_counter() - start))
    return steps


def at_sizes(
    features: np.ndarray, sizes: Sequence[int] = SIZES, **rule: Any
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (K, labels): one exact merge tree, cut at each number of clusters."""
    num = len(features)
    sizes = [size for size in sizes if size <= num]
    tree, _ = merge_tree(features, num_merges=num - min(sizes), **rule)
    for size in sizes:
        yield size, cut_tree(tree, num - size, num)


def passes_at_sizes(features: np.ndarray, rate: float, **rule: Any) -> dict[int, np.ndarray]:
    """Return labels of ``pass`` at each number of clusters; the last pass has fewer merges."""
    num, found = len(features), {}
    labels, merges = np.arange(num), int(rate * num)
    for size in SIZES:
        while (left := int(labels.max()) + 1 - size) > 0:
            labels = bottom_up(
                features, num_merges=min(merges, left), update="pass", labels=labels, **rule
            )
        found[size] = labels
    return found


def cell(images: Images, labels: np.ndarray) -> str:
    """Return ARI and the size of the largest cluster as text."""
    quality, largest = score(images, labels)
    return f"{quality.ari:.3f} ({largest})"


def lambda_rows(images: Images, how: str, regularizer: str = "sse") -> list[list[str]]:
    """Return a row per lambda: ARI (size of the largest cluster) at each number of clusters."""
    features = images.prepared(how)
    return [
        [how, f"{weight:g}", *(cell(images, labels) for _, labels in at_sizes(
            features, regularizer=regularizer if weight else "none", weight=weight))]
        for weight in LAMBDAS
    ]  # fmt: skip


def form_rows(images: Images, how: str, weights: Sequence[float]) -> list[list[str]]:
    """Return a row per form of SSE and weight."""
    features = images.prepared(how)
    rows = []
    for name, regularizer in FORMS.items():
        for weight in weights:
            cut = at_sizes(features, regularizer=regularizer, weight=weight)
            rows.append([how, name, f"{weight:g}", *(cell(images, x) for _, x in cut)])
    return rows


def update_rows(images: Images, how: str) -> list[list[str]]:
    """Return rows of ``pass`` and ``exact``, with and without SSE, and of Ward."""
    features = images.prepared(how)
    rows = []
    rules: dict[str, dict[str, Any]] = {
        "average": {"linkage": "average", "regularizer": "none", "weight": 0.0},
        "average + .02 SSE": {"linkage": "average", "regularizer": "sse", "weight": 0.02},
        "Ward": {"linkage": "ward", "regularizer": "none", "weight": 0.0},
    }
    for title, rule in rules.items():
        passed = passes_at_sizes(features, 0.07, **rule)
        rows.append([how, title, "pass", *(cell(images, passed[size]) for size in SIZES)])
        exact = at_sizes(features, **rule)
        rows.append([how, title, "exact", *(cell(images, x) for _, x in exact)])
    return rows


def noise_rows(images: Images, how: str, weight: float) -> list[list[str]]:
    """Return rows over ``MIN_CLUSTER_SIZE``; a noise image counts as its own cluster."""
    rows = []
    for size, labels in at_sizes(images.prepared(how), regularizer="sse", weight=weight):
        for least in (1, 2, 4):
            quality, _ = score(images, compact(labels, least))
            rows.append([how, f"{size:,}", str(least), f"{quality.num_clusters:,}",
                         f"{quality.num_noise:,}", *quality_cells(quality)])  # fmt: skip
    return rows


def quality_cells(quality: LabelQuality) -> list[str]:
    """Return ARI, precision, recall, F and purity as text."""
    values = (quality.ari, quality.precision, quality.recall, quality.f_score, quality.purity)
    return [f"{value:.3f}" for value in values]


def preparation_rows(images: Images, weights: Sequence[float]) -> list[list[str]]:
    """Return rows over feature preparations, with the seconds of the preparation."""
    rows = []
    for how in PREPARATIONS:
        start = time.perf_counter()
        features = images.prepared(how)
        seconds = time.perf_counter() - start
        for weight in weights:
            cut = at_sizes(features, regularizer="sse", weight=weight)
            rows.append([how, f"{weight:g}", *(cell(images, x) for _, x in cut), f"{seconds:.1f}"])
    return rows


def length_rows(images: Images) -> list[list[str]]:
    """Return rows of centred features with and without normalisation to unit length."""
    camids = images.camids
    means = camera_means(images.features, camids, int(camids.max()) + 1)
    apart = images.features - means[camids]
    rows = []
    for weight in (0.0, 0.02):
        rule: dict[str, Any] = {"regularizer": "sse" if weight else "none", "weight": weight}
        # SSE and d both scale with the square of the features, so lambda is comparable.
        scaled = apart / np.sqrt((apart**2).sum(axis=1).mean())
        for name, features, sphere in (
            ("raw", scaled, False),
            ("sphere", images.prepared("centred"), True),
        ):
            cut = at_sizes(features.astype(np.float32), sphere=sphere, **rule)
            rows.append([name, f"{weight:g}", *(cell(images, x) for _, x in cut)])
    return rows
