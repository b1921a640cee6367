"""Advice on degenerate labels: what was found, and the setting that changes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Share of the images from which unassigned images are reported.
UNASSIGNED = 0.5
#: Share of the images from which one identity is reported, and how many times the median size of
#: the others it must have.
LARGEST, TIMES_MEDIAN = 0.25, 10
#: Below this number of images, one identity alone may be right.
FEW = 20

#: Clusterer -> setting, its step towards fewer unassigned images, limits.
_SETTINGS: dict[str, tuple[str, float, tuple[float, float]]] = {
    "dbscan": ("eps", 0.1, (0.1, 0.9)),
    "map_equation": ("min_similarity", -0.1, (0.1, 0.9)),
    "infomap": ("min_similarity", -0.1, (0.1, 0.9)),
    "bottom_up": ("images_per_cluster", 2.0, (2, 10**6)),
    "agglomerative": ("images_per_cluster", 2.0, (2, 10**6)),
}


def advice(labels: np.ndarray, method: str, settings: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each way in which labels are degenerate; none for usual ones.

    Args:
        labels: (N,) int64, -1 is unassigned, the largest cluster first.
        method: The clusterer of the labels.
        settings: All of its parameters.
    """
    num = len(labels)
    sizes = np.bincount(labels[labels >= 0])
    found = []
    unassigned = int((labels < 0).sum())
    if num > 1 and unassigned > UNASSIGNED * num:
        found.append(
            f"{100 * unassigned / num:.0f} % of the images are unassigned"
            + _change(method, settings, looser=True)
        )
    if len(sizes) == 1 and num >= FEW and not unassigned:
        found.append(
            f"all {num} images have one identity" + _change(method, settings, looser=False)
        )
    elif len(sizes) and sizes[0] > LARGEST * num and sizes[0] >= FEW:
        others = float(np.median(sizes[1:])) if len(sizes) > 1 else 1.0
        if sizes[0] > TIMES_MEDIAN * others:
            found.append(
                f"one identity has {sizes[0]} of the {num} images"
                + _change(method, settings, looser=False)
            )
    return found


def _change(method: str, settings: Mapping[str, Any], *, looser: bool) -> str:
    """Return the setting to change, its value and the next one to try."""
    name, step, (low, high) = _SETTINGS[method]
    value = settings[name]
    option = f"--{name.replace('_', '-')}"
    if name == "images_per_cluster":
        if settings.get("num_clusters", 0):
            option, value, looser = "--num-clusters", settings["num_clusters"], not looser
        new: Any = value * 2 if looser else max(value // 2, 1)
    else:
        new = round(min(max(value + (step if looser else -step), low), high), 2)
    verb = "raise" if new > value else "lower"
    if new == value:
        return f", and {option} is {value:g} already: the features may not separate these images"
    return f": {verb} {option} ({value:g} now), for example {option} {new:g}"
