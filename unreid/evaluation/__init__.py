"""Scores: of a model (``reid_evaluator``, with fast-reid) and of labels (``label_quality``).

Nothing is imported here, so that label quality can be had without fast-reid.
"""
