"""CALR: local clusters of each camera refine global clusters across cameras.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450
"""

from __future__ import annotations

from typing import Any

from calr import config, intra
from calr.inter import CALRLabeler
from calr.meta_arch import CALR
from unreid.contracts import Project
from unreid.data.unlabelled import UnlabelledImages
from unreid.evaluation.label_scorer import LabelScorer

__all__ = ["CALR", "CALRLabeler", "CALRProject"]


class CALRProject(Project):
    """Two stages: one network per camera for local labels, then one for all cameras [0]."""

    def add_config(self, cfg: Any) -> None:
        """Declare ``cfg.CALR``."""
        config.add_config(cfg)

    def rename_key(self, key: str, value: Any) -> tuple[str, Any]:
        """Return the shared key that replaces an old key of CALR."""
        return config.rename_key(key, value)

    def check_config(self, cfg: Any) -> None:
        """Raise ValueError if a value is out of range."""
        config.check_config(cfg)

    def before_training(
        self, cfg: Any, images: UnlabelledImages, quality: LabelScorer | None
    ) -> None:
        """Run stage 1."""
        intra.before_training(cfg, images, quality)
