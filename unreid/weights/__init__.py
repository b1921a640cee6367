"""Weights to start from: reading, fitting to a network, and a registry of published ones."""

from __future__ import annotations
