"""Inference with a trained model: feature extraction, pseudo identities, search, export."""

from __future__ import annotations

from unreid.inference.predictor import Embedded, Predictor

__all__ = ["Embedded", "Predictor"]
