"""Label quality of bottom-up merging on real features, without training: presets and sweeps.

python benchmarks/merging_quality.py [FEATURES.npz] [--only NAME ...] [--output FOLDER]

FEATURES.npz holds ``features`` (N, D), ``pids`` and ``camids`` (N,); by default the shared
Market-1501 features. The ids are used for scores only. Prints markdown tables. The output folder
gets a plot of the presets and a CSV with every pass. A tree takes seconds, and each part of
``forms`` a minute.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.inputs import REAL
from benchmarks.merging_rows import (
    FAMILY,
    SIZES,
    Images,
    Preset,
    Step,
    form_rows,
    history,
    lambda_rows,
    length_rows,
    noise_rows,
    preparation_rows,
    quality_cells,
    update_rows,
)

AT_SIZES = [f"K = {size:,}" for size in SIZES]
SCORES = ["ARI", "P", "R", "F", "purity"]


def read(path: str) -> Images:
    """Read features as unit rows, and cameras numbered from 0; exit with a message if invalid."""
    if not Path(path).is_file():
        sys.exit(
            f"merging_quality.py: no file {path}; name an .npz with features (N, D), pids and"
            " camids (N,)"
        )
    with np.load(path) as file:
        missing = {"features", "pids", "camids"} - set(file.files)
        if missing:
            sys.exit(f"merging_quality.py: {path} has no {', '.join(sorted(missing))}")
        features = file["features"].astype(np.float32)
        pids, camids = file["pids"].astype(np.int64), file["camids"].astype(np.int64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if len(features) <= max(SIZES):
        sys.exit(
            f"merging_quality.py: more than {max(SIZES)} images are needed,"
            f" {path} has {len(features)}"
        )
    return Images(features / lengths, pids, np.unique(camids, return_inverse=True)[1])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def presets(images: Images, folder: Path) -> str:
    """Return the table of every preset over its passes; write a CSV file and a plot."""
    runs = [(preset, history(images, preset)) for preset in FAMILY]
    with open(folder / "presets.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["preset", "pass", "clusters", "largest", *SCORES, "seconds"])
        for preset, steps in runs:
            for step in steps:
                writer.writerow([preset.name, step.number, step.quality.num_clusters, step.largest,
                                 *quality_cells(step.quality), f"{step.seconds:.2f}"])  # fmt: skip
    last = [
        [preset.name, preset.update, f"{preset.rate:g} x {steps[-1].number}",
         f"{steps[-1].quality.num_clusters:,}", f"{steps[-1].largest:,}",
         *quality_cells(steps[-1].quality),
         "{1:.3f} at {0:,}".format(*best(steps)), f"{steps[-1].seconds:.1f}"]
        for preset, steps in runs
    ]  # fmt: skip
    head = ["preset", "update", "mp x passes", "clusters", "largest", *SCORES, "best ARI",
            "seconds"]  # fmt: skip
    passes = max(len(steps) for _, steps in runs)
    by_pass = [
        [str(number + 1), *(_at(steps, number) for _, steps in runs)] for number in range(passes)
    ]
    parts = [
        "After the last pass:",
        table(head, last),
        "ARI / pairwise F / clusters by pass:",
        table(["pass", *(preset.name for preset, _ in runs)], by_pass),
        draw(runs, folder),
    ]
    return "\n\n".join(parts)


def best(steps: Sequence[Step]) -> tuple[int, float]:
    """Return (clusters, ARI) of the pass with the highest ARI."""
    step = max(steps, key=lambda s: s.quality.ari)
    return step.quality.num_clusters, step.quality.ari


def _at(steps: Sequence[Step], number: int) -> str:
    if number >= len(steps):
        return ""
    quality = steps[number].quality
    return f"{quality.ari:.3f} / {quality.f_score:.3f} / {quality.num_clusters:,}"


def draw(runs: Sequence[tuple[Preset, list[Step]]], folder: Path) -> str:
    """Plot ARI and purity against the number of clusters; return the markdown of the plot."""
    try:
        import matplotlib
    except ImportError:
        return "(no curve: matplotlib is not installed)"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "unreid", "font.size": 9}):
        figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), sharex=True)
        for preset, steps in runs:
            clusters = [step.quality.num_clusters for step in steps]
            for axis, key in zip(axes, ("ari", "f_score", "purity")):
                values = [getattr(step.quality, key) for step in steps]
                axis.plot(clusters, values, marker="o", markersize=3, label=preset.name)
        for axis, title in zip(axes, ("ARI", "pairwise F", "purity")):
            axis.set_title(title)
            axis.set_xlabel("clusters (merging goes to the right)")
            axis.grid(alpha=0.3)
        axes[0].invert_xaxis()
        axes[0].legend(fontsize=7)
        figure.tight_layout()
        path = folder / "presets.svg"
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return f"(curve: {path})"


def lambdas(images: Images, _: Path) -> str:
    """Return tables over the weight lambda of SSE."""
    rows = [row for how in ("as extracted", "centred", "whitened") for row in
            lambda_rows(images, how)]  # fmt: skip
    return table(["features", "lambda", *AT_SIZES], rows)


def updates(images: Images, _: Path) -> str:
    """Return tables of UPDATE ``exact`` and ``pass`` (mp .07)."""
    rows = [row for how in ("as extracted", "centred") for row in update_rows(images, how)]
    return table(["features", "distance", "update", *AT_SIZES], rows)


def forms(images: Images, _: Path) -> str:
    """Return tables of the three forms of SSE; only two weights, because the union is slow."""
    rows = form_rows(images, "as extracted", (0.01, 0.03))
    return table(["features", "SSE", "lambda", *AT_SIZES], rows)


def forms_centred(images: Images, _: Path) -> str:
    """Return the tables of the three forms of SSE on centred features."""
    rows = form_rows(images, "centred", (0.01, 0.03))
    return table(["features", "SSE", "lambda", *AT_SIZES], rows)


def noise(images: Images, _: Path) -> str:
    """Return the table with small clusters treated as noise."""
    rows = [row for how, weight in (("as extracted", 0.02), ("centred", 0.02), ("whitened", 0.01))
            for row in noise_rows(images, how, weight)]  # fmt: skip
    return table(["features", "K", "MIN_CLUSTER_SIZE", "clusters", "noise", *SCORES], rows)


def sphere(images: Images, _: Path) -> str:
    """Return the table of centred features with and without normalisation to unit length."""
    note = (
        "Stored features are unit rows, so lengths as extracted cannot be compared here; raw"
        " means centred features that keep the length they have then."
    )
    return note + "\n\n" + table(["features", "lambda", *AT_SIZES], length_rows(images))


def preparations(images: Images, _: Path) -> str:
    """Return the table of feature preparations."""
    rows = preparation_rows(images, (0.01, 0.02, 0.03))
    return table(["features", "lambda", *AT_SIZES, "seconds to prepare"], rows)


SECTIONS: dict[str, Callable[[Images, Path], str]] = {
    "presets": presets, "lambdas": lambdas, "updates": updates, "forms": forms,
    "forms_centred": forms_centred, "noise": noise,
    "sphere": sphere, "preparations": preparations,
}  # fmt: skip


def main() -> None:
    """Print each section as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("features", nargs="?", default=str(REAL), help="an .npz (the shared one)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS),
                        metavar="NAME", help=f"sections: {', '.join(SECTIONS)}")  # fmt: skip
    parser.add_argument("--output", default="runs/merging", help="for the curve (runs/merging)")
    given = parser.parse_args()
    images = read(given.features)
    folder = Path(given.output)
    os.makedirs(folder, exist_ok=True)
    num, channels = images.features.shape
    print(
        f"{num:,} x {channels}, {len(np.unique(images.pids)):,} people,"
        f" {len(np.unique(images.camids))} cameras; ARI (largest cluster) unless named otherwise"
    )
    for name in given.only:
        start = time.perf_counter()
        text = SECTIONS[name](images, folder)
        seconds = time.perf_counter() - start
        print(f"\n## {name}\n\n{text}\n\n({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
