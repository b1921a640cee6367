"""What a run left in its folder, as numbers by epoch; reads a run that was killed as well.

Counts come from the label files, label quality and seconds from ``log.txt``, losses from
``metrics.json``, the scores of both ends from ``results.json``. (``metrics.json`` cannot serve
for all: fast-reid's writer drops what is put at an iteration that it has written already.)

Letters: N images, E epochs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unreid.clustering.partition import compact
from unreid.reading.arrays import LabelFile, read_labels
from unreid.reading.json_file import read_json
from unreid.reading.yaml_file import read_yaml
from unreid.structures import NOISE

_EPOCH = re.compile(
    r"INFO: Labels of epoch (\d{1,9}): "
    r"(?:(\d{1,18}) clusters, noise \d+ \(([\d.]+) %\)|(those of))"
)
_FILE = re.compile(r"epoch_(\d{1,9})\.npz")
_SECONDS = re.compile(r"; seconds: (.+)$")
_QUALITY = re.compile(r"INFO: {2,}quality, ([^:]+): (.+)$")
_SCORES = re.compile(r"fastreid\.unreid\.trainer INFO: (\S+?)(?: \([^)]*\))?: (Rank-1 .+)$")


@dataclass
class Epoch:
    """One epoch of a run.

    Attributes:
        number: From 0.
        clusters: How many.
        noise: Share of the images in no cluster, 0..1.
        largest: Images of the largest cluster.
        cameras_per_cluster: On average.
        quality: Name -> value, of the labels that were trained on.
        on_the_way: Name of intermediate labels -> their quality.
        seconds: Phase of the label step -> seconds.
        scores: Test set -> name -> percent, where the model was scored after this epoch.
    """

    number: int
    clusters: int
    noise: float
    largest: int
    cameras_per_cluster: float
    quality: dict[str, float] = field(default_factory=dict)
    on_the_way: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run's folder, read.

    Attributes:
        folder: Where it is.
        settings: Dotted config key -> value; empty where there is no ``config.yaml``.
        results: ``results.json``, or an empty dict.
        losses: Name -> [(iteration from 0, value)], of ``metrics.json``.
        epochs: Those with a label file.
        labels: Of the last of them, or None.
        remarks: What could not be read, in words.
    """

    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]
    losses: dict[str, list[tuple[int, float]]]
    epochs: tuple[Epoch, ...]
    labels: LabelFile | None
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name or str(self.folder)

    @property
    def checkpoint(self) -> Path | None:
        """The model at the end, or the last one that a killed run saved."""
        for name in ("model_final.pth", "model_last.pth"):
            if (self.folder / name).is_file():
                return self.folder / name
        return None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.results.get("after")) or (self.folder / "model_final.pth").is_file()

    @property
    def scores(self) -> dict[str, list[tuple[int, dict[str, float]]]]:
        """Test set -> [(epochs done, name -> percent)], 0 being the start weights."""
        found: dict[str, list[tuple[int, dict[str, float]]]] = {}
        for name, values in self._by_set("before").items():
            found.setdefault(name, []).append((0, values))
        after = self._by_set("after")
        for epoch in self.epochs:
            last = epoch is self.epochs[-1] and bool(after)
            for name, values in (after if last else epoch.scores).items():
                found.setdefault(name, []).append((epoch.number + 1, values))
        return found

    def _by_set(self, key: str) -> dict[str, dict[str, float]]:
        """``before`` or ``after`` of the results by test set, of one or of several."""
        scores = self.results.get(key) or {}
        if all(isinstance(v, Mapping) for v in scores.values()):
            return {name: dict(values) for name, values in scores.items()}
        names = self.results.get("datasets", {}).get("test") or ["test"]
        return {str(names[0]): dict(scores)}


def read_run(folder: str | Path) -> Run:
    """Read what is there; what is missing is empty, what is damaged is a remark.

    Raises:
        FileNotFoundError: no such folder, or none that a run of ours left.
    """
    folder = Path(folder)
    made = ("config.yaml", "results.json", "labels", "log.txt", "metrics.json")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name the OUTPUT_DIR of a training")
    if not any((folder / name).exists() for name in made):
        raise FileNotFoundError(
            f"{folder} is not the folder of a run: none of {', '.join(made)} is in it; name the"
            " OUTPUT_DIR of a training"
        )
    remarks: list[str] = []
    epochs, labels = _read_labels(folder / "labels", remarks)
    _read_log(folder / "log.txt", epochs)
    return Run(
        folder=folder,
        settings=dict(_flat(_read(folder / "config.yaml", read_yaml, remarks))),
        results=_of_known_kinds(_read(folder / "results.json", read_json, remarks), remarks),
        losses=_read_losses(folder / "metrics.json"),
        epochs=tuple(epochs.values()),
        labels=labels,
        remarks=tuple(remarks),
    )


def _read(
    path: Path, read: Callable[[Path], dict[str, Any]], remarks: list[str]
) -> dict[str, Any]:
    try:
        return read(path)
    except FileNotFoundError:
        remarks.append(f"{path.name} is not there")
    except ValueError as error:
        remarks.append(f"{path.name} cannot be read ({error})")
    return {}


def _of_known_kinds(results: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    """The results without what is of another kind than a run writes; each is a remark."""
    kept: dict[str, Any] = {}
    for key, value in results.items():
        if _fits(key, value):
            kept[key] = value
        elif value is not None:
            remarks.append(f"results.json: {key} is of an unknown kind, and left out")
    return kept


def _fits(key: str, value: Any) -> bool:
    if key in ("before", "after", "selected", "labels", "seconds"):
        # Numbers by name; scores of several test sets by the names of these.
        if not isinstance(value, dict):
            return False
        numbers = [_is_number(v) for v in value.values()]
        sets = [isinstance(v, dict) and all(map(_is_number, v.values())) for v in value.values()]
        if key == "selected":
            return all(a or b for a, b in zip(numbers, sets))
        return all(numbers) or (key in ("before", "after") and all(sets))
    if key == "datasets":
        return isinstance(value, dict) and all(isinstance(v, list) for v in value.values())
    return isinstance(value, dict) if key == "versions" else value is not None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # no NaN, no infinity


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _read_labels(folder: Path, remarks: list[str]) -> tuple[dict[int, Epoch], LabelFile | None]:
    epochs: dict[int, Epoch] = {}
    last: LabelFile | None = None
    paths = sorted(folder.glob("epoch_*.npz"), key=lambda p: (len(p.name), p.name))
    for path in paths:
        try:
            match = _FILE.fullmatch(path.name)
            if match is None:
                raise ValueError(f"{path} must be called epoch_, a number, .npz")
            labels = read_labels(path)
        except (FileNotFoundError, ValueError) as error:
            remarks.append(f"labels/{path.name} cannot be read ({error})")
            continue
        if path == paths[-1]:
            last = labels
        number = int(match[1])
        epochs[number] = _counted(number, labels.labels, labels.camids)
    return epochs, last


def _counted(number: int, labels: np.ndarray, camids: np.ndarray) -> Epoch:
    kept = labels != NOISE
    sizes = np.bincount(compact(labels)[kept]) if kept.any() else np.zeros(0, np.int64)
    seen = np.unique(np.stack([labels[kept], camids[kept]]), axis=1).shape[1]
    return Epoch(
        number, len(sizes), float(1 - kept.mean()), int(sizes.max(initial=0)),
        seen / len(sizes) if len(sizes) else 0.0,
    )


def _values(text: str) -> dict[str, float]:
    """``precision 0.078, recall 0.262`` by name; what is no number is left out."""
    found = {}
    for part in text.split(", "):
        name, _, value = part.strip().rpartition(" ")
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found


def _read_log(path: Path, epochs: dict[int, Epoch]) -> None:
    """Fill in quality, seconds and scores.

    An epoch that was done again after a kill counts by its last line. Stages before the main one
    write lines of the same form: a line of other counts than the label file's is not of it.
    """
    if not path.is_file():
        return
    current: Epoch | None = None
    before: Epoch | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _EPOCH.search(line):
            number, clusters, share, kept = match.groups()
            before, current = current, epochs.get(int(number))
            if current is None:
                continue
            current.quality, current.on_the_way = {}, {}
            current.seconds, current.scores = {}, {}
            if kept:
                current.quality = dict(before.quality) if before else {}
            elif (int(clusters), share) != (current.clusters, f"{100 * current.noise:.1f}"):
                current = None
            elif found := _SECONDS.search(line):
                current.seconds = _values(found.group(1))
        elif current is None:
            continue
        elif match := _QUALITY.search(line):
            if match.group(1) in ("final", "pairs"):
                current.quality.update(_values(match.group(2)))
            else:
                current.on_the_way[match.group(1)] = _values(match.group(2))
        elif match := _SCORES.search(line):
            # The first is the evaluation of the epoch; after the last epoch others may follow.
            current.scores.setdefault(match.group(1), _values(match.group(2)))


def _drawn(value: float) -> float:
    """Within what a chart can hold; NaN and infinity stay, and are no points of a curve."""
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return number if abs(number) < 1e30 else math.inf if number > 0 else -math.inf


def _read_losses(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Losses and the learning rate by iteration; a torn last line of a killed run is left out."""
    found: dict[str, dict[int, float]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                iteration = int(row["iteration"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue
            for name, value in row.items():
                if (name == "lr" or name.startswith("loss") or name.endswith("loss")) \
                        and type(value) in (int, float) and 0 <= iteration < 10**12:
                    found.setdefault(name, {})[iteration] = _drawn(value)
    return {name: sorted(points.items()) for name, points in sorted(found.items())}
