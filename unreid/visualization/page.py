"""HTML report of one run (``report.html``); the page lists parts that are not available.

Notation: N images, n in the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unreid
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine.atomic import replace_file
from unreid.visualization import sheets
from unreid.visualization.clusters import ClusterTable, tabulate_clusters
from unreid.visualization.curves import curves, noise, stage_curves
from unreid.visualization.embedding import project_2d
from unreid.visualization.figures import (
    Figure,
    bar_figure,
    heat_figure,
    line_figure,
    number,
    scatter_figure,
)
from unreid.visualization.history import Run, read_run
from unreid.visualization.neighbours import camera_confusion, chance, same_camera
from unreid.visualization.render import render
from unreid.visualization.retrieval import (
    MAX_RANK,
    Limits,
    Retrieval,
    features_of,
    load_model,
    retrieve,
    sample,
)
from unreid.visualization.thumbnails import thumbnail

#: File name of the page in the run's folder.
REPORT = "report.html"
#: Maximum number of points in a scatter plot; t-SNE of more points takes minutes.
_MAP_POINTS = 1500
_NEIGHBOURS = 10
#: Percent sign after a no-break space, so that it never starts a line.
_PERCENT = "\N{NO-BREAK SPACE}%"


@dataclass
class Page:
    """Content of the template; empty parts are omitted."""

    run: Run
    tiles: list[tuple[str, str, str]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    curves: list[Figure] = field(default_factory=list)
    stages: list[Figure] = field(default_factory=list)
    phases: Figure | None = None
    retrieval: list[Figure] = field(default_factory=list)
    ranks: dict[str, list[sheets.Sheet]] = field(default_factory=dict)
    rank_note: str = ""
    spread: list[Figure] = field(default_factory=list)
    clusters: dict[str, list[sheets.Sheet]] = field(default_factory=dict)
    with_ids: bool = False
    gap: list[Figure] = field(default_factory=list)
    gap_note: str = ""
    maps: list[Figure] = field(default_factory=list)
    map_note: str = ""
    remarks: list[str] = field(default_factory=list)


def write_report(
    folder: str | Path,
    *,
    cfg: Any = None,
    images: UnlabelledImages | None = None,
    pids: np.ndarray | None = None,
    limits: Limits | None = None,
    method: str = "tsne",
    output: str | Path | None = None,
    remarks: Sequence[str] = (),
) -> Path:
    """Write the page of the run in ``folder``.

    Args:
        folder: A run's ``OUTPUT_DIR``, finished or not.
        cfg: Config of the run. Without it, the parts that need the model or images are omitted.
        images: Training images of the run, or None.
        pids: (N,) ground-truth identities, or None.
        limits: Sample sizes; the default depends on ``MODEL.DEVICE``.
        method: Embedding for the scatter plots, ``"tsne"`` or ``"pca"``.
        output: HTML file to write; ``report.html`` in ``folder`` by default.
        remarks: Messages about missing parts, shown on the page.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: See :func:`unreid.visualization.history.read_run`.
        OSError: The page cannot be written.
    """
    run = read_run(folder)
    page = Page(run, remarks=[*run.remarks, *remarks])
    page.tiles, page.scores, page.curves = _tiles(run), _scores(run), curves(run)
    page.stages = stage_curves(run.stages)
    seconds = {
        name.replace("_", " "): value
        for name, value in run.results.get("seconds", {}).items()
        if value
    }
    if seconds:
        page.phases = bar_figure("Time per phase", seconds, unit=" s", note="Whole run.")
    if images is not None and not _same_list(run, images):
        page.remarks.append(
            "the training set differs from that of the run: no images of clusters, no embedding"
        )
        images = pids = None
    page.with_ids = pids is not None
    names = _camera_names(run, images)
    if run.labels is not None:
        _add_clusters(page, names, images, pids)
    if cfg is not None:
        limits = limits or Limits.of_device(cfg.MODEL.DEVICE)
        _add_model_sections(page, cfg, images, names, limits, method)
    target = Path(output) if output is not None else Path(folder) / REPORT
    text = render("report.html.jinja", page=page, run=run, version=unreid.__version__)
    with replace_file(str(target)) as file:
        file.write(text.encode())
    return target


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return the summary tiles: (name, value, caption)."""
    tiles = []
    for test_set, values in list(run.scores.items())[:2]:
        for score in ("mAP", "Rank-1"):
            if len(values) and score in values[-1][1]:
                last, first = values[-1][1][score], values[0][1].get(score)
                trained = values[0][0] == 0 and len(values) > 1 and first is not None
                below = f"{first:.1f} before training" if trained and first is not None else ""
                what = f"{score}, {test_set}" if len(run.scores) > 1 else score
                tiles.append((what, f"{last:.1f} %", below))
    if run.epochs:
        last_epoch = run.epochs[-1]
        share = noise(last_epoch)
        below = f"{share:.1f} % of the images are noise" if share is not None else ""
        tiles.append(("Clusters", number(last_epoch.labels.get("clusters", 0)), below))
    if run.labels is not None:
        cameras = len(np.unique(run.labels.camids))
        below = f"from {cameras} camera{'s' if cameras != 1 else ''}, without ids"
        tiles.append(("Training images", f"{len(run.labels.labels):,}".replace(",", " "), below))
    total = sum(run.results.get("seconds", {}).values())
    if total:
        device = run.results.get("versions", {}).get("device", "")
        tiles.append(("Time", duration(total), f"on {device}" if device else ""))
    return tiles


def duration(seconds: float) -> str:
    """Return a duration as text: 45 s, 12 min, 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _scores(run: Run) -> list[dict[str, Any]]:
    """Return one table per test set; its columns are before, after, gain, and selected model."""
    tables = []
    results = run.results
    for test_set, values in run.scores.items():
        if not values:
            continue
        first = values[0][1] if values[0][0] == 0 else {}
        last = values[-1][1] if values[-1][0] else {}
        chosen = results.get("selected") or {}
        chosen = chosen.get(test_set, chosen)
        names = [n for n in (last or first) if isinstance((last or first)[n], float)]
        tables.append(
            {
                "set": test_set,
                "selected": any(n in chosen for n in names),
                "rows": [
                    (
                        n,
                        first.get(n),
                        last.get(n),
                        last[n] - first[n] if n in last and n in first else None,
                        chosen.get(n),
                    )
                    for n in names
                ],
            }
        )
    return tables


def _same_list(run: Run, images: UnlabelledImages) -> bool:
    return run.labels is None or run.labels.paths == images.relative_paths


def _camera_names(run: Run, images: UnlabelledImages | None) -> list[str]:
    if images is not None:
        return sheets.camera_names(images.cameras)
    num = int(run.labels.camids.max()) + 1 if run.labels is not None else 0
    return [str(i) for i in range(num)]


def _add_clusters(
    page: Page, names: list[str], images: UnlabelledImages | None, pids: np.ndarray | None
) -> None:
    labels = page.run.labels
    assert labels is not None
    table = tabulate_clusters(labels.labels, labels.camids, pids)
    page.spread = _spread(table)
    if images is None:
        return
    show = _cached_thumbnail()
    page.clusters = sheets.cluster_sheets(
        table, labels.labels, labels.camids, pids, names, list(images.paths), show
    )
    unassigned = sheets.noise_sheet(labels.labels, labels.camids, names, list(images.paths), show)
    if unassigned is not None:
        page.clusters["noise"] = [unassigned]


def _spread(table: ClusterTable) -> list[Figure]:
    """Return histograms of the clusters by number of cameras and by size."""
    if not len(table.ids):
        return []
    seen = np.bincount(table.cameras)
    cameras = {f"{i} camera{'s' if i > 1 else ''}": float(seen[i]) for i in range(1, len(seen))}
    charts = [bar_figure("Clusters by number of cameras", cameras)]
    edges = [1, 2, 3, 5, 9, 17, 33, 65, 129, 257]
    edges = [*[e for e in edges if e <= table.sizes.max()], int(table.sizes.max()) + 1]
    sizes: dict[str, float] = {}
    for low, high in pairwise(edges):
        name = f"{low} image{'s' if low > 1 else ''}"
        if high > low + 1:
            name = f"{low} to {high - 1} images"
        found = int(((table.sizes >= low) & (table.sizes < high)).sum())
        if found or sizes:  # no empty bars at the start
            sizes[name] = float(found)
    return [*charts, bar_figure("Clusters by size", sizes)]


def _cached_thumbnail() -> Callable[[str], str | None]:
    """Return a thumbnail function that reads each file once."""
    return lru_cache(maxsize=None)(thumbnail)


def _add_model_sections(
    page: Page,
    cfg: Any,
    images: UnlabelledImages | None,
    names: list[str],
    limits: Limits,
    method: str,
) -> None:
    """Add the parts that need a model; a failure becomes a remark on the page."""
    features: dict[str, np.ndarray] = {}
    chosen = None
    if images is not None:
        chosen = sample(len(images), limits.train, cfg.UNSUP.SEED)
    checkpoint = page.run.checkpoint
    if checkpoint is None:
        page.remarks.append("no checkpoint: no retrieval results and no neighbours after training")
    for when, weights in (("before", cfg.MODEL.WEIGHTS), ("after", checkpoint)):
        if weights is None or (chosen is None and when == "before"):
            continue
        try:
            model = load_model(cfg, str(weights))
            if images is not None and chosen is not None:
                features[when] = features_of(cfg, model, images, chosen)
            if when == "after" and cfg.DATASETS.TESTS:
                _add_retrieval(page, retrieve(cfg, model, limits))
        except (OSError, ValueError, KeyError, RuntimeError, FloatingPointError) as error:
            page.remarks.append(f"the model {when} training could not be evaluated: {error}")
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    if chosen is not None and images is not None and len(chosen) > 1:
        _add_cameras(page, features, images, chosen, names)
        _add_maps(page, features, images, chosen, names, method, cfg.UNSUP.SEED)


def _add_retrieval(page: Page, retrieval: Retrieval) -> None:
    queries, all_queries, gallery, whole = retrieval.sample_sizes
    looked = f"{queries} queries against {gallery} gallery images"
    if not retrieval.complete:
        looked = (
            f"a sample: {queries} of {all_queries} queries against {gallery} of {whole}"
            " gallery images, so the numbers differ from those of the run"
        )
    mean = 100 * retrieval.average_precisions.mean()
    page.rank_note = " ".join(
        [f"{retrieval.name}, {looked}; mAP {mean:.2f} %.", retrieval.remark]
    ).strip()
    points = [(float(r + 1), float(100 * retrieval.cmc[r])) for r in range(MAX_RANK)]
    lines = {"after training": points}
    known = dict(page.run.scores.get(retrieval.name, []))
    if 0 in known:
        lines["before training"] = [
            (float(r), known[0][f"Rank-{r}"]) for r in (1, 5, 10) if f"Rank-{r}" in known[0]
        ]
    cmc = line_figure(
        "Cumulative matching characteristic (CMC)", lines, "rank", zero=True, unit="%"
    )
    tenths = np.minimum((10 * retrieval.average_precisions).astype(int), 9)
    counts = np.bincount(tenths, minlength=10)
    spread = bar_figure(
        "Queries by average precision",
        {f"{10 * i} to {10 * i + 10} %": float(counts[i]) for i in reversed(range(10))},
    )
    page.retrieval = [chart for chart in (cmc, spread) if chart is not None]
    page.ranks = sheets.rank_sheets(retrieval, _cached_thumbnail())


def _add_cameras(
    page: Page,
    features: dict[str, np.ndarray],
    images: UnlabelledImages,
    chosen: np.ndarray,
    names: list[str],
) -> None:
    camids = images.camids[chosen]
    if len(np.unique(camids)) < 2 or not features:
        return
    num = len(images.cameras)
    words = []
    for when, rows in features.items():
        shares = camera_confusion(rows, camids, num, _NEIGHBOURS)
        page.gap.append(
            heat_figure(
                f"Cameras of the nearest neighbours, {when} training",
                shares,
                names,
                note="Row: camera of the image. Column: camera of its neighbours, in percent.",
            )
        )
        words.append(f"{100 * same_camera(shares, camids):.0f}{_PERCENT} {when} training")
    by_chance = same_camera(chance(camids, num), camids)
    page.gap_note = (
        f"Share of the {min(_NEIGHBOURS, len(chosen) - 1)} nearest neighbours from the same camera:"
        f" {', '.join(words)}; {100 * by_chance:.0f}{_PERCENT} by chance."
        + _sampled(len(chosen), len(images))
    )


def _add_maps(
    page: Page,
    features: dict[str, np.ndarray],
    images: UnlabelledImages,
    chosen: np.ndarray,
    names: list[str],
    method: str,
    seed: int,
) -> None:
    labels = page.run.labels
    if labels is None:
        return
    part = sample(len(chosen), _MAP_POINTS, seed)
    groups, camids = labels.labels[chosen[part]], images.camids[chosen[part]]
    cameras = {i: f"camera {name}" if name.isdigit() else name for i, name in enumerate(names)}
    for when, rows in features.items():
        points = project_2d(rows[part], method, seed)
        page.maps.append(scatter_figure(f"By cluster, {when} training", points, groups, {}))
        page.maps.append(scatter_figure(f"By camera, {when} training", points, camids, cameras))
    name = {"tsne": "t-SNE", "pca": "principal components"}[method]
    page.map_note = (
        f"Features in two dimensions by {name}. Clusters are those of the last epoch;"
        " their colours repeat, and grey is noise." + _sampled(len(part), len(images))
    )


def _sampled(num: int, total: int) -> str:
    return f" A sample: {num} of {total} images." if num < total else f" All {total} images."
