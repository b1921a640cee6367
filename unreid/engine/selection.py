"""Which round's model to keep, chosen without a label: the one whose clusters look best to it.

A method that stops at another number of clusters every round needs a choice. BUC makes it by the
accuracy on the test set; here the labeler judges (``judge``), and the test set is asked afterwards.
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
    """Keeps the model after the round that the labeler judges best; the first of equals.

    Args:
        judge: ``judge(bank, pseudo) -> float``: how good the labels that were just trained on look
            on the features that came of it; larger is better.
        folder: Where ``model_selected.pth`` goes.

    Attributes:
        epoch: Last epoch of the best round, -1 before the first judgement.
        score: Its score.
    """

    def __init__(self, judge: Any, folder: str) -> None:
        self.judge = judge
        self.path = os.path.join(folder, SELECTED)
        self.epoch = -1
        self.score = -math.inf

    def consider(
        self, model: nn.Module, bank: FeatureBank, pseudo: PseudoLabels, epoch: int
    ) -> None:
        """Judge the round that ended with ``epoch``; keep ``model`` when it is the best yet."""
        score = float(self.judge(bank, pseudo))
        best = score > self.score
        logger.info(f"Round to epoch {epoch}: label-free score {score:.4f}"
                    + (", the best so far" if best else f" (best: {self.score:.4f}, epoch"
                       f" {self.epoch})"))
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
