"""Test scores, by all processes: each computes the features of its batches, rank 0 ranks them."""

from __future__ import annotations

from typing import Any

from fastreid.evaluation import inference_on_dataset
from torch import nn

from unreid.data.loader import Batches
from unreid.engine.distributed import gather_to_rank_0, rank, run_on_rank_0, world_size
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator


class _GatheringEvaluator:
    """An evaluator of some batches, which evaluates all of them on rank 0."""

    def __init__(self, evaluator: UnsupervisedEvaluator) -> None:
        self._evaluator = evaluator

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: dict[str, Any], outputs: Any) -> None:
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> Any:
        parts = gather_to_rank_0(self._evaluator._predictions)
        if parts:
            ranks = len(parts)
            number = sum(map(len, parts))
            self._evaluator._predictions = [parts[b % ranks][b // ranks] for b in range(number)]
        return run_on_rank_0(self._evaluator.evaluate)


def score(model: nn.Module, loader: Batches, evaluator: Any, *, flip: bool) -> Any:
    """What ``evaluator`` says of ``model`` on all batches, in every process.

    An evaluator with a ``process`` of its own may keep what is not known here: it runs on rank 0
    alone.

    Args:
        model: Not wrapped for several processes.
        loader: All batches in order.
        evaluator: As fast-reid's.
        flip: Average features with those of mirror images.
    """
    if world_size() == 1:
        return inference_on_dataset(model, loader, evaluator, flip_test=flip)
    if type(evaluator).process is not UnsupervisedEvaluator.process:
        return run_on_rank_0(lambda: inference_on_dataset(model, loader, evaluator, flip_test=flip))
    own = loader.part(rank(), world_size())
    return inference_on_dataset(model, own, _GatheringEvaluator(evaluator), flip_test=flip)
