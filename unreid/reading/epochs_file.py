"""``epochs.jsonl``: the measurements of each epoch of a run, one JSON object per line.

The fields of a line are those of :class:`EpochRecord`; ``docs/run_files.md`` describes them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from unreid.reading.json_file import MAX_BYTES

#: The name of the file in a run's ``OUTPUT_DIR``.
EPOCHS = "epochs.jsonl"

#: Largest valid epoch number.
_MAX_EPOCH = 10**9


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        iterations: Optimiser steps of this epoch.
        started: Time at which the label step began, ISO 8601 in UTC.
        finished: Time at which the record was written, ISO 8601 in UTC.
        relabelled: False if the labels of the previous epoch were kept.
        losses: Name -> mean over the iterations (and the processes); ``total_loss`` is their sum.
        learning_rate: Learning rate at the last iteration.
        labels: ``images``, ``clusters``, ``noise`` (unassigned images), ``largest`` and
            ``mean_size`` (images per cluster), ``cameras_per_cluster`` (mean), and ``pairs``
            (pseudo pairs) if the method uses pairs.
        quality: Name of the labels (``final``, ``pairs``, or an intermediate step such as
            ``before_refinement``) -> name of the metric -> value against the ground truth; empty
            without ground truth, or if ``UNSUP.LOG_LABEL_QUALITY`` is off.
        remarks: Name -> text, added by the method.
        seconds: Phase of the epoch (``extract``, ``label``, ``judge``, ``train``,
            ``evaluate``) -> wall seconds.
        label_seconds: Phase inside ``label`` -> wall seconds.
        scores: Test set -> score -> percent; empty if the epoch did not end with an evaluation.
    """

    epoch: int
    iterations: int = 0
    started: str = ""
    finished: str = ""
    relabelled: bool = True
    losses: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    label_seconds: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the record as one line of JSON; a value that is not finite becomes ``null``."""
        return json.dumps(_finite(asdict(self)), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> EpochRecord:
        """Return the record of one line.

        Values of an unexpected type and unknown fields are left out.

        Raises:
            ValueError: The line is not a JSON object with an epoch.
        """
        try:
            row = json.loads(line)
        except RecursionError as error:
            raise ValueError("it nests too deep") from error
        if not isinstance(row, dict):
            raise ValueError(f"it holds a {type(row).__name__}")
        epoch = row.get("epoch")
        if type(epoch) is not int or not 0 <= epoch < _MAX_EPOCH:
            raise ValueError(f"epoch must be an integer >= 0, got {epoch!r:.60}")
        iterations, rate = row.get("iterations"), row.get("learning_rate")
        return cls(
            epoch=epoch,
            iterations=iterations if type(iterations) is int and iterations >= 0 else 0,
            started=_text(row.get("started")),
            finished=_text(row.get("finished")),
            relabelled=row.get("relabelled") is not False,
            losses=_numbers(row.get("losses")),
            learning_rate=rate if _is_number(rate) else None,
            labels=_numbers(row.get("labels")),
            quality={k: _numbers(v) for k, v in _object(row, "quality").items()},
            remarks={k: v for k, v in _object(row, "remarks").items() if isinstance(v, str)},
            seconds=_numbers(row.get("seconds")),
            label_seconds=_numbers(row.get("label_seconds")),
            scores={k: _numbers(v) for k, v in _object(row, "scores").items()},
        )


def read_epochs(path: str | os.PathLike[str]) -> tuple[list[EpochRecord], list[str]]:
    """Return the records of a file by epoch, and remarks about unreadable lines.

    An incomplete last line, as a killed process leaves it, is skipped. If an epoch has several
    records, the last one is returned.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read, or is larger than 64 MiB.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise ValueError(f"{size} bytes, and at most {MAX_BYTES} are read")
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} must be lines of JSON ({error})") from error
    found: dict[int, EpochRecord] = {}
    remarks = []
    for number, line in enumerate(lines, start=1):
        try:
            record = EpochRecord.from_line(line)
        except ValueError as error:
            incomplete = number == len(lines)  # it does not end with a line break
            if line.strip() and not incomplete:
                remarks.append(f"{os.path.basename(path)}: line {number} cannot be read ({error})")
            continue
        found[record.epoch] = record
    return [found[epoch] for epoch in sorted(found)], remarks


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # neither NaN nor infinity


def _numbers(value: Any) -> dict[str, float]:
    entries = value.items() if isinstance(value, dict) else ()
    return {key: entry for key, entry in entries if _is_number(entry)}


def _object(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
