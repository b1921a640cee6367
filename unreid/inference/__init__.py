"""A trained model at work: features of any pictures, pseudo identities, search, export."""

from __future__ import annotations

from unreid.inference.predictor import Embedded, Predictor

__all__ = ["Embedded", "Predictor"]
