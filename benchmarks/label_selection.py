"""Compare label-free scores that select a clusterer: ARI of the selected labels on real features.

python benchmarks/label_selection.py FEATURES.npz [FEATURES.npz ...]

Each file holds ``features`` (N, D), ``pids`` and ``camids`` (N,). The candidates are those of
``unreid label --method auto``, on the features as extracted and with camera-mean subtraction. The
ids are used for ARI only. Prints a markdown table: ARI of the best candidate, of the default, and
of the candidate that each score selects.

Notation: N images, D channels, T trials.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from unreid.clustering.silhouette import sphere_silhouette
from unreid.evaluation.label_quality import label_quality
from unreid.graph.centering import center_cameras
from unreid.labels.auto import Trial, try_settings
from unreid.labels.neighbours import Neighbours, Search

#: Number of neighbours in the graph for modularity.
NEIGHBOURS = 10
#: Shrinkage of camera-mean subtraction, the default of UNSUP.CENTER_SHRINKAGE.
SHRINKAGE = 16.0


def silhouette(neighbours: Neighbours, trials: list[Trial]) -> list[float]:
    """Return the silhouette of each trial times its fraction of images that are not noise."""
    return [
        sphere_silhouette(neighbours.features, t.labels) * float((t.labels >= 0).mean())
        for t in trials
    ]


def modularity(neighbours: Neighbours, trials: list[Trial]) -> list[float]:
    """Return Newman's modularity of each trial on the kNN graph; noise images are singletons."""
    found = neighbours.knn(NEIGHBOURS + 1)[0][:, 1:]
    left, right = np.repeat(np.arange(len(found)), found.shape[1]), found.ravel()
    scores = []
    for trial in trials:
        labels = trial.labels.copy()
        noise = labels < 0
        labels[noise] = labels.max(initial=-1) + 1 + np.arange(int(noise.sum()))
        ends = np.bincount(labels[left]) + np.bincount(labels[right], minlength=labels.max() + 1)
        shares = ends / ends.sum()
        scores.append(float((labels[left] == labels[right]).mean() - (shares**2).sum()))
    return scores


def agreement(neighbours: Neighbours, trials: list[Trial]) -> list[float]:
    """Return the score of ``--method auto``."""
    return [trial.score for trial in trials]


SCORES: dict[str, Callable[[Neighbours, list[Trial]], list[float]]] = {
    "silhouette": silhouette,
    "modularity": modularity,
    "agreement": agreement,
}


def row(path: str, *, center: bool) -> tuple[str, list[float]]:
    """Return a row title, the ARI of best and default, and that of each score's selection."""
    with np.load(path) as file:
        features = file["features"].astype(np.float32)
        pids, camids = file["pids"].astype(np.int64), file["camids"].astype(np.int64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    if center:
        features = center_cameras(features, camids, SHRINKAGE)
    neighbours = Search()(features)
    trials = try_settings(neighbours)
    aris = [label_quality(trial.labels, pids).ari for trial in trials]
    default = next(
        i for i, t in enumerate(trials) if (t.method, t.settings) == ("dbscan", {"eps": 0.6})
    )
    selected = [aris[int(np.argmax(score(neighbours, trials)))] for score in SCORES.values()]
    title = f"{Path(path).stem}, {'centred' if center else 'as extracted'} | {len(pids):,}"
    return title, [max(aris), aris[default], *selected]


def main() -> None:
    """Print a row per file and feature kind, then mean and largest loss against the best."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("features", nargs="+", metavar="FEATURES.npz")
    args = parser.parse_args()
    print("| features | images | best | dbscan 0.6 | " + " | ".join(SCORES) + " |", flush=True)
    print("|" + "---|" * (4 + len(SCORES)), flush=True)
    values = []
    for path in args.features:
        for center in (False, True):
            title, aris = row(path, center=center)
            print(f"| {title} | " + " | ".join(f"{ari:.3f}" for ari in aris) + " |", flush=True)
            values.append(aris)
    losses = np.array(values)[:, :1] - np.array(values)
    for name, row_ in (("mean loss", losses.mean(0)), ("largest loss", losses.max(0))):
        print(f"| {name} | | " + " | ".join(f"{v:.3f}" for v in row_) + " |")


if __name__ == "__main__":
    main()
