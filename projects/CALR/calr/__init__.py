"""CALR: clusters inside each camera refine the clusters across cameras.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450
"""

from __future__ import annotations

from calr.config import add_config, check_config
from calr.inter import CALRLabeler
from calr.intra import before_training
from calr.meta_arch import CALR

__all__ = ["CALR", "CALRLabeler", "add_config", "before_training", "check_config"]
