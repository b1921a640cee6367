"""Training curves of one run, and of several runs in common charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from unreid.reading.epochs_file import EpochRecord
from unreid.visualization.figures import Figure, Points, line_figure
from unreid.visualization.history import Run

#: Metrics of the labels, in the order of the legend.
_QUALITY = ("precision", "recall", "f_score", "ari", "nmi", "purity")
_PAIRS = ("pair_precision", "pair_recall", "pair_precision_cross")
_SCORES = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def curves(run: Run) -> list[Figure]:
    """Return the charts of a run; charts without data are omitted."""
    several = len(run.scores) > 1
    scores = {
        f"{test_set}: {name}" if several else name: points
        for test_set, values in run.scores.items()
        for name in (_SCORES[:2] if several else _SCORES)
        if (points := [(float(x), v[name]) for x, v in values if name in v])
    }
    losses = {
        name: [(float(x), y) for x, y in points]
        for name, points in run.losses.items()
        if name != "lr"
    }
    rate = {"lr": [(float(x), y) for x, y in run.losses.get("lr", [])]}
    every = run.epochs
    return _present(
        [
            line_figure(
                "Retrieval scores",
                scores,
                "epochs trained",
                zero=True,
                unit="%",
                note="0 is the model before training.",
            ),
            line_figure("Losses", losses, "iteration"),
            line_figure("Clusters", {"clusters": _of(every, _count("clusters"))}, "epoch"),
            line_figure(
                "Noise (images in no cluster)",
                {"noise": _of(every, noise)},
                "epoch",
                zero=True,
                unit="%",
            ),
            line_figure(
                "Cameras per cluster", {"mean": _of(every, _count("cameras_per_cluster"))}, "epoch"
            ),
            line_figure(
                "Largest cluster", {"images": _of(every, _count("largest"))}, "epoch", zero=True
            ),
            line_figure("Pairs", {"pairs": _of(every, _count("pairs"))}, "epoch", zero=True),
            line_figure(
                "Label quality",
                _label_quality(every),
                "epoch",
                zero=True,
                note="Clustering metrics of the labels that were trained on, against ground"
                " truth that training does not use.",
            ),
            _intermediate(every),
            line_figure("Time of the label step", _seconds(every), "epoch", zero=True, unit=" s"),
            line_figure("Learning rate", rate, "iteration", zero=True),
        ]
    )


def stage_curves(stages: Mapping[str, Mapping[str, Iterable[EpochRecord]]]) -> list[Figure]:
    """Return charts of the stages before the main stage, with one line per part (camera)."""
    charts: list[Figure | None] = []
    for stage, parts in stages.items():
        for title, value in (
            ("total loss", lambda e: e.losses.get("total_loss")),
            ("clusters", _count("clusters")),
            ("F-score of the labels", _metric("final", "f_score")),
            ("ARI of the labels", _metric("final", "ari")),
            ("silhouette", _silhouette),
        ):
            lines = {
                part: points for part, records in parts.items() if (points := _of(records, value))
            }
            charts.append(line_figure(f"Stage {stage}: {title}", lines, "epoch"))
    return _present(charts)


def noise(epoch: EpochRecord) -> float | None:
    """Return the share of unassigned images in percent."""
    images = epoch.labels.get("images")
    return 100 * epoch.labels.get("noise", 0) / images if images else None


def _silhouette(epoch: EpochRecord) -> float | None:
    try:
        return float(epoch.remarks["silhouette"])
    except (KeyError, ValueError):
        return None


def _present(charts: Iterable[Figure | None]) -> list[Figure]:
    return [chart for chart in charts if chart is not None]


def _count(name: str) -> Callable[[EpochRecord], float | None]:
    return lambda epoch: epoch.labels.get(name)


def _metric(labels: str, name: str) -> Callable[[EpochRecord], float | None]:
    return lambda epoch: epoch.quality.get(labels, {}).get(name)


def _of(
    epochs: Iterable[EpochRecord], value: Callable[[EpochRecord], float | None]
) -> list[tuple[float, float]]:
    """Return (epoch, value) of the epochs that have the value."""
    found = [(float(epoch.epoch), value(epoch)) for epoch in epochs]
    return [(x, float(y)) for x, y in found if y is not None]


def _label_quality(epochs: Sequence[EpochRecord]) -> dict[str, Points]:
    every = [(name, _of(epochs, _metric("final", name))) for name in _QUALITY]
    every += [(name, _of(epochs, _metric("pairs", name))) for name in _PAIRS]
    return {name: points for name, points in every if points}


def _intermediate(epochs: Sequence[EpochRecord]) -> Figure | None:
    """Return the F-score chart of the intermediate (before refinement) and final labels."""
    names = dict.fromkeys(
        name for epoch in epochs for name in epoch.quality if name not in ("final", "pairs")
    )
    if not names:
        return None
    lines = {name.replace("_", " "): _of(epochs, _metric(name, "f_score")) for name in names}
    lines["final"] = _of(epochs, _metric("final", "f_score"))
    return line_figure("F-score of intermediate and final labels", lines, "epoch", zero=True)


def _seconds(epochs: Sequence[EpochRecord]) -> dict[str, Points]:
    found: dict[str, list[tuple[float, float]]] = {}
    for epoch in epochs:
        own = {k: v for k, v in epoch.seconds.items() if k not in ("train", "evaluate")}
        for name, value in {**own, **epoch.label_seconds}.items():
            found.setdefault(name, []).append((float(epoch.epoch), value))
    return dict(found)


def overlaid(runs: Sequence[tuple[str, Run]]) -> list[Figure]:
    """Return one chart per quantity, with one line per run.

    Args:
        runs: (unique name, run).
    """
    sets = dict.fromkeys(test_set for _, run in runs for test_set in run.scores)
    panels: list[tuple[str, str, str, dict[str, Points]]] = []
    for test_set in sets:
        for score in ("mAP", "Rank-1"):
            title = f"{score} on {test_set}" if len(sets) > 1 else score
            panels.append(
                (
                    title,
                    "epochs trained",
                    "%",
                    {
                        name: [
                            (float(x), v[score])
                            for x, v in run.scores.get(test_set, [])
                            if score in v
                        ]
                        for name, run in runs
                    },
                )
            )
    for title, unit, value in (
        ("Clusters", "", _count("clusters")),
        ("Noise (images in no cluster)", "%", noise),
        ("Cameras per cluster", "", _count("cameras_per_cluster")),
        ("F-score of the labels", "", _metric("final", "f_score")),
        ("ARI of the labels", "", _metric("final", "ari")),
        ("Precision of the pairs", "", _metric("pairs", "pair_precision")),
    ):  # fmt: skip
        panels.append((title, "epoch", unit, {name: _of(run.epochs, value) for name, run in runs}))
    panels.append(
        (
            "Total loss",
            "iteration",
            "",
            {
                name: [(float(x), y) for x, y in run.losses.get("total_loss", [])]
                for name, run in runs
            },
        )
    )
    return _present(
        line_figure(title, {k: v for k, v in lines.items() if v}, x_name, unit=unit)
        for title, x_name, unit, lines in panels
    )
