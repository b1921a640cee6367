"""What a training prints: one line per epoch, progress inside it, a table at the end.

All else is in ``log.txt``.
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

#: The scores in the tables, in percent.
SHOWN = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def score_table(scores: Mapping[str, Mapping[str, Any] | None], *, settings: str = "") -> str:
    """Return scores as a table: a row for each name of a score, a column for each evaluation.

    Args:
        scores: Title of a column -> scores in percent by name, of one test set or by the name of
            several; a column without scores is left out. Of "before" and "after" the gain is
            shown, too.
        settings: Test settings that must be named beside the numbers.
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
    """(row, score in percent) of one test set, or of several by name."""
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _by_row(value, f"{prefix}{key} ")
        elif key in SHOWN:
            yield f"{prefix}{key}", float(value)


def format_epoch(record: EpochRecord, epochs: int, left: float | None) -> str:
    """Return the line of one epoch.

    Args:
        record: The epoch.
        epochs: Epochs of the training in all.
        left: Seconds until the last one ends, or None after it.
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
    """Print one line per epoch, and on a terminal the progress inside it; rank 0 only.

    Belongs after :class:`unreid.engine.epoch_log.EpochLogHook`.

    Args:
        log: Has the record of each epoch.
        title: What is trained, such as its output folder.
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
        after = f", from epoch {self._first + 1} on" if self._first else ""
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
        if self._progress is not None:  # an error inside an epoch: its message has its own line
            self._progress.end()

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def quiet_console(log: logging.Logger) -> None:
    """Let only the warnings of fast-reid's logger reach the terminal; its files get everything."""
    for handler in log.handlers:
        if not isinstance(handler, logging.FileHandler) and getattr(handler, "stream", None) in (
            sys.stdout,
            sys.stderr,
        ):
            handler.setLevel(logging.WARNING)
            handler.addFilter(_is_unexpected_error)


def _is_unexpected_error(record: logging.LogRecord) -> bool:
    """What the command line prints in one line at the end; log.txt has where it was raised."""
    return not (record.exc_info and isinstance(record.exc_info[1], EXPECTED))
