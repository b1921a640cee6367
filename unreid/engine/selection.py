"""Unsupervised model selection: keep the model of the round with the best selection score.

A progressive method has another number of clusters in each round, so one round has to be selected.
BUC selects by accuracy on the test set. Here ``Labeler.selection_score`` selects without ids; the
test set is evaluated afterwards.
"""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import torch
from torch import nn

from unreid.engine.atomic import replace_file
from unreid.structures import FeatureBank, PseudoLabels

logger = logging.getLogger("fastreid.unreid.selection")

#: File of the selected model, in the folder of ``model_final.pth``.
SELECTED = "model_selected.pth"


class Selection:
    """Keep the model of the round with the best selection score; of equal scores the first.

    Args:
        selection_score: ``Labeler.selection_score``.
        folder: Output folder of ``model_selected.pth``.

    Attributes:
        epoch: Last epoch of the best round, -1 before the first score.
        score: Selection score of the best round.
    """

    def __init__(self, selection_score: Any, folder: str) -> None:
        self.selection_score = selection_score
        self.path = os.path.join(folder, SELECTED)
        self.epoch = -1
        self.score = -math.inf

    def update(self, model: nn.Module, bank: FeatureBank, pseudo: PseudoLabels, epoch: int) -> None:
        """Score the round that ended with ``epoch``; save ``model`` if the score is the best."""
        score = float(self.selection_score(bank, pseudo))
        best = score > self.score
        logger.info(
            f"Round ending with epoch {epoch}: selection score {score:.4f}"
            + (", the best so far" if best else f" (best: {self.score:.4f}, epoch {self.epoch})")
        )
        if not best:
            return
        with replace_file(self.path) as file:
            torch.save({"model": model.state_dict(), "epoch": epoch, "score": score}, file)
        self.epoch, self.score = epoch, score

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint."""
        return {"epoch": self.epoch, "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.epoch, self.score = int(state["epoch"]), float(state["score"])
