"""Evaluation every ``TEST.EVAL_PERIOD`` epochs and after the last epoch."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import pytest

from unreid.engine.epoch_log import EvaluationHook


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (0, [5]),
        (1, [0, 1, 2, 3, 4, 5]),
        (2, [1, 3, 5]),
        (4, [3, 5]),
        (5, [4, 5]),
        (6, [5]),
        (9, [5]),
    ],
)
def test_eval_period__evaluates_after_that_many_epochs_and_after_the_last(
    period: int, expected: list[int]
) -> None:
    evaluated: list[int] = []
    trainer = SimpleNamespace(epoch=0, max_epoch=6, seconds={}, storage=mock.Mock())

    def evaluate() -> dict[str, float]:
        evaluated.append(trainer.epoch)
        return {"mAP": 1.0}

    trainer.evaluate = evaluate
    hook = EvaluationHook(period)
    hook.trainer = trainer
    for trainer.epoch in range(6):
        hook.after_epoch()
    assert evaluated == expected and hook.epoch == 5
