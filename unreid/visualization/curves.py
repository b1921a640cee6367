"""The curves of one run, or of several over each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unreid.visualization.charts import Chart, Points, line_chart
from unreid.visualization.history import Epoch, Run

#: Scores of the labels, in the order of the legend.
_QUALITY = ("precision", "recall", "f_score", "ari", "nmi", "purity", "pair_precision",
            "pair_recall", "pair_precision_cross")
_SCORES = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def curves(run: Run) -> list[Chart]:
    """What there is to draw of a run; a curve without a number is left out."""
    several = len(run.scores) > 1
    scores = {
        f"{test_set}: {name}" if several else name: points
        for test_set, values in run.scores.items() for name in (_SCORES[:2] if several else _SCORES)
        if (points := [(float(x), v[name]) for x, v in values if name in v])
    }
    quality = {name: points for name in _QUALITY
               if (points := _of(run, lambda e, n=name: e.quality.get(n)))}  # type: ignore[misc]
    losses = {name: [(float(x), y) for x, y in points]
              for name, points in run.losses.items() if name != "lr"}
    rate = {"lr": [(float(x), y) for x, y in run.losses.get("lr", [])]}
    charts = [
        line_chart("Retrieval", scores, "epochs trained", zero=True, unit="%",
                   note="0 is the model before training."),
        line_chart("Losses", losses, "iteration"),
        line_chart("Clusters", {"clusters": _of(run, lambda e: e.clusters)}, "epoch"),
        line_chart("Images in no cluster", {"noise": _of(run, lambda e: 100 * e.noise)}, "epoch",
                   zero=True, unit="%"),
        line_chart("Cameras per cluster", {"mean": _of(run, lambda e: e.cameras_per_cluster)},
                   "epoch"),
        line_chart("Largest cluster", {"images": _of(run, lambda e: e.largest)}, "epoch",
                   zero=True),
        line_chart("Label quality", quality, "epoch", zero=True,
                   note="Of the labels that were trained on, against the ids that training"
                        " never saw."),
        _on_the_way(run),
        _seconds(run),
        line_chart("Learning rate", rate, "iteration", zero=True),
    ]
    return [chart for chart in charts if chart is not None]


def _of(run: Run, value: Callable[[Epoch], float | None]) -> list[tuple[float, float]]:
    """(epoch, value) where there is a value."""
    found = [(float(epoch.number), value(epoch)) for epoch in run.epochs]
    return [(x, float(y)) for x, y in found if y is not None]


def _on_the_way(run: Run) -> Chart | None:
    """F-score of the labels before what a method does to them, beside that of the final ones."""
    names = dict.fromkeys(name for epoch in run.epochs for name in epoch.on_the_way)
    if not names:
        return None
    lines: dict[str, Points] = {
        name.replace("_", " "): _of(run, lambda e, n=name: e.on_the_way.get(n, {}).get("f_score"))  # type: ignore[misc]
        for name in names
    }
    lines["final"] = _of(run, lambda e: e.quality.get("f_score"))
    return line_chart("F-score of the labels, step by step", lines, "epoch", zero=True)


def _seconds(run: Run) -> Chart | None:
    phases = dict.fromkeys(name for epoch in run.epochs for name in epoch.seconds)
    lines = {name: _of(run, lambda e, n=name: e.seconds.get(n)) for name in phases}  # type: ignore[misc]
    return line_chart("Seconds of the label step", lines, "epoch", zero=True, unit=" s")


def overlaid(runs: Sequence[tuple[str, Run]]) -> list[Chart]:
    """One chart per number, one line per run.

    Args:
        runs: (name, run), each name once.
    """
    sets = dict.fromkeys(test_set for _, run in runs for test_set in run.scores)
    panels: list[tuple[str, str, str, dict[str, Points]]] = []
    for test_set in sets:
        for score in ("mAP", "Rank-1"):
            title = f"{score} on {test_set}" if len(sets) > 1 else score
            panels.append((title, "epochs trained", "%", {
                name: [(float(x), v[score]) for x, v in run.scores.get(test_set, [])
                       if score in v] for name, run in runs}))
    for title, unit, value in (
        ("Clusters", "", lambda e: e.clusters),
        ("Images in no cluster", "%", lambda e: 100 * e.noise),
        ("Cameras per cluster", "", lambda e: e.cameras_per_cluster),
        ("F-score of the labels", "", lambda e: e.quality.get("f_score")),
        ("ARI of the labels", "", lambda e: e.quality.get("ari")),
        ("Precision of the pairs", "", lambda e: e.quality.get("pair_precision")),
    ):  # fmt: skip
        panels.append((title, "epoch", unit, {name: _of(run, value) for name, run in runs}))
    panels.append(("Total loss", "iteration", "", {
        name: [(float(x), y) for x, y in run.losses.get("total_loss", [])] for name, run in runs}))
    charts = [line_chart(title, {k: v for k, v in lines.items() if v}, x_name, unit=unit)
              for title, x_name, unit, lines in panels]
    return [chart for chart in charts if chart is not None]
