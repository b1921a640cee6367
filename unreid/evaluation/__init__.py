"""Scores: of a model (``reid_evaluator``, with fast-reid) and of labels (``label_quality``).

The names exported here do not need fast-reid.
"""

from unreid.evaluation.label_quality import label_quality
from unreid.evaluation.rank import evaluate_features, evaluate_rank

__all__ = ["evaluate_features", "evaluate_rank", "label_quality"]
