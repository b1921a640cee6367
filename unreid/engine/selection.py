"""Unsupervised model selection: keep the model of the round with the best selection score.

A method that stops at another number of clusters every round needs a choice. BUC makes it by the
accuracy on the test set; here it is ``Labeler.selection_score``, which sees no id, and the test set
is scored afterwards.
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

#: The model of the best round, beside ``model_final.pth``.
SELECTED = "model_selected.pth"


class Selection:
    """Keeps the model of the round with the best selection score; the first of equals.

    Args:
        selection_score: ``Labeler.selection_score``.
        folder: Where ``model_selected.pth`` goes.

    Attributes:
        epoch: Last epoch of the best round, -1 before the first score.
        score: Its score.
    """

    def __init__(self, selection_score: Any, folder: str) -> None:
        self.selection_score = selection_score
        self.path = os.path.join(folder, SELECTED)
        self.epoch = -1
        self.score = -math.inf

    def update(self, model: nn.Module, bank: FeatureBank, pseudo: PseudoLabels, epoch: int) -> None:
        """Score the round that ended with ``epoch``; keep ``model`` when it is the best yet."""
        score = float(self.selection_score(bank, pseudo))
        best = score > self.score
        logger.info(
            f"Round to epoch {epoch}: label-free score {score:.4f}"
            + (", the best so far" if best else f" (best: {self.score:.4f}, epoch {self.epoch})")
        )
        if not best:
            return
        with replace_file(self.path) as file:
            torch.save({"model": model.state_dict(), "epoch": epoch, "score": score}, file)
        self.epoch, self.score = epoch, score

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"epoch": self.epoch, "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a checkpoint."""
        self.epoch, self.score = int(state["epoch"]), float(state["score"])
