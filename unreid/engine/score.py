"""Evaluate on a test set with all processes: each extracts features, rank 0 computes the scores."""

from __future__ import annotations

from typing import Any

from fastreid.evaluation import inference_on_dataset
from torch import nn

from unreid.data.loader import Batches
from unreid.engine.distributed import gather_to_rank_0, rank, run_on_rank_0, world_size
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator


class _GatheringEvaluator:
    """Collect the predictions of one rank; on ``evaluate`` gather them and score on rank 0."""

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
    """Return the scores of ``model`` on all batches, in every process.

    An evaluator that overrides ``process`` may keep a state of its own that cannot be gathered
    here; it runs on rank 0 only.

    Args:
        model: Without DistributedDataParallel.
        loader: All batches, in order.
        evaluator: A ``DatasetEvaluator`` of fast-reid.
        flip: Horizontal-flip test-time augmentation: average the features of both images.
    """
    if world_size() == 1:
        return inference_on_dataset(model, loader, evaluator, flip_test=flip)
    if type(evaluator).process is not UnsupervisedEvaluator.process:
        return run_on_rank_0(lambda: inference_on_dataset(model, loader, evaluator, flip_test=flip))
    own = loader.part(rank(), world_size())
    return inference_on_dataset(model, own, _GatheringEvaluator(evaluator), flip_test=flip)
