"""Console output of a training: one line per epoch, progress within it, scores at the end.

Everything else is written to ``log.txt`` only.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fastreid.engine.hooks import HookBase
from tabulate import tabulate

from unreid.cli import EXPECTED, Progress, duration
from unreid.engine.epoch_log import EpochLogHook
from unreid.reading.epochs_file import EpochRecord

#: Scores shown in tables, in percent.
SHOWN = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def score_table(scores: Mapping[str, Mapping[str, Any] | None], *, settings: str = "") -> str:
    """Return a text table with one row per score and one column per evaluation.

    Args:
        scores: Column title -> scores in percent, of one test set or of several by name. Columns
            without scores are omitted. If "before" and "after" exist, a column of gains is added.
        settings: Test settings to state in the header, see
            :func:`unreid.engine.trainer.describe_test_settings`.
    """
    columns: dict[str, dict[str, float]] = {}
    for title, found in scores.items():
        if found:
            columns[title] = dict(_by_row(found))
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
    header = [f"percent{settings}", *columns]
    if {"before", "after"} <= columns.keys():
        header.append("gain")
        for name, row in zip(names, rows):
            pair = [columns[title].get(name) for title in ("before", "after")]
            row.append(None if None in pair else pair[1] - pair[0])  # type: ignore[operator]
    return tabulate(rows, header, floatfmt=".1f")


def _by_row(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (row title, score in percent) of one test set, or of several by name."""
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _by_row(value, f"{prefix}{key} ")
        elif key in SHOWN:
            yield f"{prefix}{key}", float(value)


def format_epoch(record: EpochRecord, epochs: int, left: float | None) -> str:
    """Return the console line of one epoch.

    Args:
        record: Record of the epoch.
        epochs: Total number of epochs.
        left: Estimated seconds until the end of training, or None after the last epoch.
    """
    labels, quality = record.labels, record.quality.get("final", {})
    parts = []
    if labels.get("images"):
        share = 100 * labels.get("noise", 0) / labels["images"]
        parts.append(f"{labels.get('clusters', 0):.0f} clusters, noise {share:.1f} %")
    known = [
        (title, quality[key]) for key, title in (("f_score", "F"), ("ari", "ARI")) if key in quality
    ]
    parts += [f"{title} {value:.3f}" for title, value in known]
    if "total_loss" in record.losses:
        parts.append(f"loss {record.losses['total_loss']:.3f}")
    for name, scores in record.scores.items():
        if "mAP" in scores:
            parts.append(f"{name} mAP {scores['mAP']:.1f}")
    parts.append(duration(sum(record.seconds.values())))
    if left is not None:
        parts.append(f"{duration(left)} left")
    width = len(str(epochs))
    return f"epoch {record.epoch + 1:{width}d}/{epochs}: {', '.join(parts)}"


class ConsoleHook(HookBase):
    """Print one line per epoch, and on a terminal the progress within it; rank 0 only.

    Must be registered after :class:`unreid.engine.epoch_log.EpochLogHook`.

    Args:
        log: Provides the record of each epoch.
        title: Name of the training, such as its output folder.
    """

    def __init__(self, log: EpochLogHook, title: str) -> None:
        self.log = log
        self.title = title
        self._progress: Progress | None = None
        self._started = 0.0
        self._first = 0

    def before_train(self) -> None:
        trainer = self.trainer
        self._first, self._started = trainer.start_epoch, time.monotonic()
        after = f", starting at epoch {self._first + 1}" if self._first else ""
        self._write(
            f"{self.title}: {trainer.max_epoch} epochs of {trainer.iters_per_epoch}"
            f" iterations{after}"
        )

    def after_step(self) -> None:
        if not sys.stderr.isatty():
            return
        trainer = self.trainer
        if self._progress is None:
            self._progress = Progress(trainer.iters_per_epoch, f"epoch {trainer.epoch + 1}")
        self._progress.step()

    def after_epoch(self) -> None:
        if self._progress is not None:
            self._progress.end()
            self._progress = None
        done = self.trainer.epoch + 1
        remaining = self.trainer.max_epoch - done
        mean = (time.monotonic() - self._started) / (done - self._first)
        self._write(
            format_epoch(
                self.log.records[-1],
                self.trainer.max_epoch,
                mean * remaining if remaining else None,
            )
        )

    def after_train(self) -> None:
        if self._progress is not None:  # an error within an epoch: print it on its own line
            self._progress.end()

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def quiet_console(log: logging.Logger) -> None:
    """Restrict the console handlers of fast-reid's logger to warnings; files get all records."""
    for handler in log.handlers:
        if not isinstance(handler, logging.FileHandler) and getattr(handler, "stream", None) in (
            sys.stdout,
            sys.stderr,
        ):
            handler.setLevel(logging.WARNING)
            handler.addFilter(_is_unexpected_error)


def _is_unexpected_error(record: logging.LogRecord) -> bool:
    """Filter out errors that the command line prints in one line; log.txt has their traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], EXPECTED))
