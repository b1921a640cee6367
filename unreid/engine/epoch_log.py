"""Write ``epochs.jsonl`` and the log files of fast-reid; evaluate every few epochs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from fastreid.engine.hooks import HookBase, PeriodicWriter

from unreid.engine.atomic import append_line, replace_file
from unreid.engine.label_hook import PseudoLabelHook, label_counts
from unreid.engine.results import scores_of
from unreid.engine.step import UnsupervisedStep
from unreid.reading.epochs_file import EPOCHS, EpochRecord, read_epochs


class EvaluationHook(HookBase):
    """Evaluate every ``period`` epochs and after the last epoch; 0: after the last epoch only.

    Attributes:
        epoch: Last evaluated epoch, -1 before the first evaluation.
        results: Scores of that epoch.
        seconds: Wall seconds of that evaluation.
    """

    def __init__(self, period: int) -> None:
        self.period = period
        self.epoch = -1
        self.results: Mapping[str, Any] = {}
        self.seconds = 0.0

    def after_epoch(self) -> None:
        trainer = self.trainer
        done = trainer.epoch + 1
        if done != trainer.max_epoch and not (self.period and done % self.period == 0):
            return
        self.evaluate()

    def evaluate(self) -> None:
        """Score the model as it is, as the result of this epoch."""
        trainer = self.trainer
        start = time.perf_counter()
        self.results = trainer.evaluate()
        self.seconds = time.perf_counter() - start
        self.epoch = trainer.epoch
        trainer.seconds["evaluate"] = trainer.seconds.get("evaluate", 0.0) + self.seconds
        trainer.storage.put_scalars(smoothing_hint=False, **_flatten(self.results))


def _flatten(results: Mapping[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{k}": v for k, v in _flatten(value).items()})
        else:
            flat[key] = float(value)
    return flat


class EpochLogHook(HookBase):
    """Append one :class:`~unreid.reading.epochs_file.EpochRecord` per epoch to ``epochs.jsonl``.

    Must be registered after the evaluation and before the checkpoint. Every epoch of a checkpoint
    then has a line; the line of an epoch that a resumed run repeats is removed when the run starts.

    Args:
        folder: ``OUTPUT_DIR``.
        step: Provides the names of the losses.
        labels: Provides the label step of the epoch.
        evaluation: Provides the scores of the epoch, or None if nothing is evaluated.

    Attributes:
        records: Records of the epochs so far.
    """

    def __init__(
        self,
        folder: str,
        step: UnsupervisedStep,
        labels: PseudoLabelHook,
        evaluation: EvaluationHook | None,
    ) -> None:
        self.path = os.path.join(folder, EPOCHS)
        self.step = step
        self.labels = labels
        self.evaluation = evaluation
        self.records: list[EpochRecord] = []
        self._sums: dict[str, float] = {}
        self._iterations = 0
        self._started = self._stepped = 0.0

    def before_train(self) -> None:
        """Keep the lines of epochs before the first one of this process; drop incomplete lines."""
        if not os.path.isfile(self.path):
            return
        records, _ = read_epochs(self.path)
        self.records = [r for r in records if r.epoch < self.trainer.start_epoch]
        with replace_file(self.path, "w") as file:
            file.writelines(record.to_line() for record in self.records)

    def before_epoch(self) -> None:
        self._sums, self._iterations = {}, 0
        self._started = self._stepped = time.perf_counter()

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        # With a single loss fast-reid stores the total only.
        for name in ("total_loss", *self.step.losses):
            if name in latest:
                self._sums[name] = self._sums.get(name, 0.0) + float(latest[name][0])
        self._iterations += 1
        self._stepped = time.perf_counter()

    def after_epoch(self) -> None:
        record = self._record(self.trainer.epoch)
        append_line(self.path, record.to_line())
        self.records.append(record)

    def _record(self, epoch: int) -> EpochRecord:
        hook, step = self.labels, self.labels.step
        assert hook.labels is not None
        seconds = {"train": self._stepped - self._started}
        scores: Mapping[str, Mapping[str, float]] = {}
        if self.evaluation is not None and self.evaluation.epoch == epoch:
            seconds["evaluate"] = self.evaluation.seconds
            scores = _by_test_set(self.evaluation.results, self.trainer.cfg.DATASETS.TESTS)
        # Labels that were not renewed are those of the previous record.
        before = self.records[-1] if self.records else EpochRecord(epoch)
        latest = self.trainer.storage.latest()
        return EpochRecord(
            epoch=epoch,
            iterations=self._iterations,
            started=_utc(hook.started),
            finished=_utc(time.time()),
            relabelled=step is not None,
            losses={k: v / self._iterations for k, v in self._sums.items()},
            learning_rate=float(latest["lr"][0]) if "lr" in latest else None,
            labels=label_counts(hook.labels, hook.images.camids),
            quality=before.quality if step is None else step.quality,
            remarks=before.remarks if step is None else step.remarks,
            seconds=_rounded({**({} if step is None else step.seconds), **seconds}),
            label_seconds=_rounded({} if step is None else step.label_seconds),
            scores=scores,
        )


def _by_test_set(results: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return scores by name of the test set, also for a single test set."""
    return {names[0]: scores_of(results)} if len(names) == 1 else scores_of(results)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


class EpochEndWriter(PeriodicWriter):
    """Writers of fast-reid that write the last iteration of an epoch after its evaluation.

    ``PeriodicWriter`` writes that iteration before the evaluation adds its scores. ``JSONWriter``
    and ``TensorboardXWriter`` drop values that are added to an iteration after it was written.
    """

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.trainer.iters_per_epoch:
            super().after_step()
