"""Read the recorded values of a run from its folder; incomplete runs are accepted.

Epochs are read from ``epochs.jsonl``, losses by iteration from ``metrics.json``, and the scores
before and after training from ``results.json``. An epoch has no line if it was interrupted, or if
an older version wrote the run. Its counts are then computed from its label file.

Notation: N images, E epochs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unreid.clustering.partition import compact
from unreid.reading.arrays import LabelFile, read_labels
from unreid.reading.epochs_file import EPOCHS, EpochRecord, read_epochs
from unreid.reading.json_file import read_json
from unreid.reading.yaml_file import read_yaml
from unreid.structures import NOISE

_FILE = re.compile(r"epoch_(\d{1,9})\.npz")


@dataclass(frozen=True)
class Run:
    """Content of a run's folder.

    Attributes:
        folder: Path.
        settings: Dotted config key -> value; empty without ``config.yaml``.
        results: ``results.json``, or an empty dict.
        losses: Name -> [(iteration from 0, value)], of ``metrics.json``.
        epochs: Records in ascending order of epochs.
        stages: Name of a stage before the main stage -> part (a camera) -> its epochs.
        labels: The last label file, or None.
        remarks: Messages about files that could not be read.
    """

    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]
    losses: dict[str, list[tuple[int, float]]]
    epochs: tuple[EpochRecord, ...]
    stages: dict[str, dict[str, tuple[EpochRecord, ...]]]
    labels: LabelFile | None
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name or str(self.folder)

    @property
    def checkpoint(self) -> Path | None:
        """Final checkpoint, or the last one of an interrupted run; None without any."""
        for name in ("model_final.pth", "model_last.pth"):
            if (self.folder / name).is_file():
                return self.folder / name
        return None

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return bool(self.results.get("after")) or (self.folder / "model_final.pth").is_file()

    @property
    def scores(self) -> dict[str, list[tuple[int, dict[str, float]]]]:
        """Test set -> [(epochs trained, score name -> percent)]; 0 is before training."""
        found: dict[str, list[tuple[int, dict[str, float]]]] = {}
        for name, values in self._by_set("before").items():
            found.setdefault(name, []).append((0, values))
        after = self._by_set("after")
        for epoch in self.epochs:
            last = epoch is self.epochs[-1] and bool(after)
            scores: Mapping[str, Mapping[str, float]] = after if last else epoch.scores
            for name, reached in scores.items():
                found.setdefault(name, []).append((epoch.epoch + 1, dict(reached)))
        return found

    def _by_set(self, key: str) -> dict[str, dict[str, float]]:
        """Return ``before`` or ``after`` of the results by test set."""
        scores = self.results.get(key) or {}
        if all(isinstance(v, Mapping) for v in scores.values()):
            return {name: dict(values) for name, values in scores.items()}
        names = self.results.get("datasets", {}).get("test") or ["test"]
        return {str(names[0]): dict(scores)}


def read_run(folder: str | Path) -> Run:
    """Read a run's folder; missing files give empty values, damaged files give remarks.

    Raises:
        FileNotFoundError: The folder does not exist, or has no file of a run.
    """
    folder = Path(folder)
    made = ("config.yaml", "results.json", EPOCHS, "labels", "log.txt", "metrics.json")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the OUTPUT_DIR of a training")
    if not any((folder / name).exists() for name in made):
        raise FileNotFoundError(
            f"{folder} is not the folder of a run: it has none of {', '.join(made)}; give the"
            " OUTPUT_DIR of a training"
        )
    remarks: list[str] = []
    records, found = _read_records(folder / EPOCHS)
    remarks += found
    epochs, labels = _read_labels(folder / "labels", records, remarks)
    return Run(
        folder=folder,
        settings=dict(_flat(_read(folder / "config.yaml", read_yaml, remarks))),
        results=_of_known_kinds(_read(folder / "results.json", read_json, remarks), remarks),
        losses=_read_losses(folder / "metrics.json"),
        epochs=epochs,
        stages=_read_stages(folder, remarks),
        labels=labels,
        remarks=tuple(remarks),
    )


def _read(path: Path, read: Callable[[Path], dict[str, Any]], remarks: list[str]) -> dict[str, Any]:
    try:
        return read(path)
    except FileNotFoundError:
        remarks.append(f"{path.name} is missing")
    except ValueError as error:
        remarks.append(f"{path.name} cannot be read ({error})")
    return {}


def _of_known_kinds(results: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    """Return the results that have the expected types; a remark is added for each other one."""
    kept: dict[str, Any] = {}
    for key, value in results.items():
        if _fits(key, value):
            kept[key] = value
        elif value is not None:
            remarks.append(f"results.json: {key} has an unexpected type and is ignored")
    return kept


def _fits(key: str, value: Any) -> bool:
    if key in ("before", "after", "selected", "labels", "seconds"):
        # Name -> number; with several test sets: test set -> name -> number.
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


def _read_records(path: Path) -> tuple[list[EpochRecord], list[str]]:
    try:
        return read_epochs(path)
    except FileNotFoundError:
        return [], []
    except ValueError as error:
        return [], [f"{path.name} cannot be read ({error})"]


def _read_stages(folder: Path, remarks: list[str]) -> dict[str, dict[str, tuple[EpochRecord, ...]]]:
    """Return stage -> part -> epochs, from ``OUTPUT_DIR/<stage>/<part>/epochs.jsonl``."""
    stages: dict[str, dict[str, tuple[EpochRecord, ...]]] = {}
    for path in sorted(folder.glob(f"*/*/{EPOCHS}")):
        stage, part = path.parent.parent.name, path.parent.name
        if stage == "previous":
            continue
        records, found = _read_records(path)
        remarks += [f"{stage}/{part}/{remark}" for remark in found]
        if records:
            stages.setdefault(stage, {})[part] = tuple(records)
    return stages


def _read_labels(
    folder: Path, records: list[EpochRecord], remarks: list[str]
) -> tuple[tuple[EpochRecord, ...], LabelFile | None]:
    """Return all epochs and the last label file.

    The counts of epochs without a record are computed from their label files.
    """
    epochs = {record.epoch: record for record in records}
    last: LabelFile | None = None
    paths = sorted(folder.glob("epoch_*.npz"), key=lambda p: (len(p.name), p.name))
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is not None and int(match[1]) in epochs and path != paths[-1]:
            continue
        try:
            if match is None:
                raise ValueError(f"{path} must have the name epoch_<number>.npz")
            labels = read_labels(path)
        except (FileNotFoundError, ValueError) as error:
            remarks.append(f"labels/{path.name} cannot be read ({error})")
            continue
        if path == paths[-1]:
            last = labels
        number = int(match[1])
        epochs.setdefault(number, _counted(number, labels.labels, labels.camids))
    return tuple(epochs[number] for number in sorted(epochs)), last


def _counted(number: int, labels: np.ndarray, camids: np.ndarray) -> EpochRecord:
    kept = labels != NOISE
    sizes = np.bincount(compact(labels)[kept]) if kept.any() else np.zeros(0, np.int64)
    seen = np.unique(np.stack([labels[kept], camids[kept]]), axis=1).shape[1]
    return EpochRecord(
        number,
        labels={
            "images": len(labels),
            "clusters": len(sizes),
            "noise": int((~kept).sum()),
            "largest": int(sizes.max(initial=0)),
            "cameras_per_cluster": seen / len(sizes) if len(sizes) else 0.0,
        },
    )


def _chart_value(value: float) -> float:
    """Return a value that a chart can show; values beyond 1e30 become infinite."""
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return number if abs(number) < 1e30 else math.inf if number > 0 else -math.inf


def _read_losses(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return losses and learning rate by iteration; an incomplete last line is skipped."""
    found: dict[str, dict[int, float]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                iteration = int(row["iteration"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue
            for name, value in row.items():
                if (
                    (name == "lr" or name.startswith("loss") or name.endswith("loss"))
                    and type(value) in (int, float)
                    and 0 <= iteration < 10**12
                ):
                    found.setdefault(name, {})[iteration] = _chart_value(value)
    return {name: sorted(points.items()) for name, points in sorted(found.items())}
