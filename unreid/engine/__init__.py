"""Extraction, the label step, training, checkpoints and results: one run from a config."""
